"""Write a random BERT of a few kilobytes as a Hugging Face folder, and compute the same network slowly in NumPy."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import numpy as np
from safetensors.numpy import save_file
from scipy.special import erf

LETTERS = "abcdefghijklmnopqrstuvwxyz"
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS, *(f"##{letter}" for letter in LETTERS)]
WORDS += ["good", "bad", "string", "pick", "the", "it", "holds", "tune", ".", ",", "'", "!", "cafe", "é"]
SIZES: dict[str, Any] = {
    "model_type": "bert",
    "vocab_size": len(WORDS),
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 24,
    "max_position_embeddings": 20,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "hidden_act": "gelu",
}
Tensors = dict[str, np.ndarray]


def tensors(seed: int = 0) -> Tensors:
    """Return random weights by their Hugging Face names, and the other arrays that such files hold."""
    rng = np.random.default_rng(seed)
    width, hidden = SIZES["hidden_size"], SIZES["intermediate_size"]
    found: Tensors = {"embeddings.position_ids": np.arange(20)[None], "pooler.dense.bias": np.zeros(width, np.float32)}

    def random(name: str, *shape: int, scale: float = 0.4, around: float = 0.0) -> None:
        found[name] = (around + scale * rng.normal(size=shape)).astype(np.float32)

    def norm(name: str) -> None:
        random(f"{name}.LayerNorm.weight", width, around=1.0)
        random(f"{name}.LayerNorm.bias", width)

    def dense(name: str, to: int, of: int) -> None:
        random(f"{name}.weight", to, of)
        random(f"{name}.bias", to)

    random("embeddings.word_embeddings.weight", SIZES["vocab_size"], width)
    random("embeddings.position_embeddings.weight", SIZES["max_position_embeddings"], width)
    random("embeddings.token_type_embeddings.weight", SIZES["type_vocab_size"], width)
    norm("embeddings")
    for layer in range(SIZES["num_hidden_layers"]):
        own = f"encoder.layer.{layer}"
        for part in ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"):
            dense(f"{own}.{part}", width, width)
        norm(f"{own}.attention.output")
        dense(f"{own}.intermediate.dense", hidden, width)
        dense(f"{own}.output.dense", width, hidden)
        norm(f"{own}.output")
    return found


def write(folder: pathlib.Path, weights: Tensors | None = None, **sizes: Any) -> pathlib.Path:
    """Write the files and return the folder; `sizes` override values in `config.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(SIZES | sizes))
    (folder / "vocab.txt").write_text("".join(f"{word}\n" for word in WORDS), encoding="utf-8")
    save_file(tensors() if weights is None else weights, folder / "model.safetensors")
    return folder


def active(x: np.ndarray, activation: str = "gelu") -> np.ndarray:
    """Compute an activation by its formula."""
    if activation == "relu":
        return np.maximum(x, 0)
    if activation == "gelu_new":
        return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
    return 0.5 * x * (1 + erf(x / np.sqrt(2)))


def slow_features(weights: Tensors, ids: list[int]) -> np.ndarray:
    """Return the features of one text, float64 [T, D], computed head by head without masks or padding."""
    w = {name: values.astype(np.float64) for name, values in weights.items()}
    heads, width = SIZES["num_attention_heads"], SIZES["hidden_size"]
    each = width // heads

    def norm(name: str, x: np.ndarray) -> np.ndarray:
        centred = x - x.mean(1, keepdims=True)
        scale = np.sqrt((centred**2).mean(1, keepdims=True) + SIZES["layer_norm_eps"])
        return centred / scale * w[f"{name}.LayerNorm.weight"] + w[f"{name}.LayerNorm.bias"]

    def dense(name: str, x: np.ndarray) -> np.ndarray:
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    x = w["embeddings.word_embeddings.weight"][ids] + w["embeddings.position_embeddings.weight"][: len(ids)]
    x = norm("embeddings", x + w["embeddings.token_type_embeddings.weight"][0])
    for layer in range(SIZES["num_hidden_layers"]):
        own = f"encoder.layer.{layer}"
        query, key, value = (dense(f"{own}.attention.self.{part}", x) for part in ("query", "key", "value"))
        context = np.zeros_like(x)
        for head in range(heads):
            part = slice(head * each, (head + 1) * each)
            score = query[:, part] @ key[:, part].T / np.sqrt(each)
            mass = np.exp(score - score.max(1, keepdims=True))
            context[:, part] = mass / mass.sum(1, keepdims=True) @ value[:, part]
        x = norm(f"{own}.attention.output", x + dense(f"{own}.attention.output.dense", context))
        hidden = active(dense(f"{own}.intermediate.dense", x))
        x = norm(f"{own}.output", x + dense(f"{own}.output.dense", hidden))
    return x
