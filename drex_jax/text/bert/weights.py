"""Reading and checking the `config.json` and `model.safetensors` of a BERT in a Hugging Face folder."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from drex_jax.common.errors import UserError
from drex_jax.common.files import json_of
from drex_jax.text.bert.network import ACTIVATIONS, Architecture

CONFIG, WEIGHTS = "config.json", "model.safetensors"
Params = dict[str, Any]
_SIZES = {  # field of `config.json`: field of `Architecture`
    "vocab_size": "vocabulary_size",
    "hidden_size": "width",
    "num_hidden_layers": "layers",
    "num_attention_heads": "heads",
    "intermediate_size": "hidden",
    "max_position_embeddings": "positions",
}
MAX_WEIGHT_BYTES = 16 << 30  # size limit of the file; BERT-large has 1.3 GB
_FLOATS = ("F16", "BF16", "F32")
_OLD_NAMES = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}  # names in early checkpoints


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file of a model folder.

    Raises:
      UserError: the file is missing, or is not a JSON object.
    """
    try:
        value = json_of(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); a BERT folder has one") from None
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise UserError(f"{path}: damaged; it should be a JSON object")
    return value


def read_architecture(folder: Path) -> Architecture:
    """Return the architecture in `config.json`.

    Raises:
      UserError: the file is missing or damaged, or the model is not a BERT or of an unsupported kind.
    """
    path = folder / CONFIG
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder; a BERT folder has {CONFIG}, a tokenizer and {WEIGHTS}")
    stated = read_json(path)
    kind = stated.get("model_type")
    if kind != "bert":
        raise UserError(f"{path}: model_type is {kind!r}; only bert can be read")
    sizes = {}
    for theirs, ours in _SIZES.items():
        sizes[ours] = _positive(path, theirs, stated.get(theirs))
    types = _positive(path, "type_vocab_size", stated.get("type_vocab_size", Architecture.types))
    epsilon = stated.get("layer_norm_eps", Architecture.epsilon)
    if isinstance(epsilon, bool) or not isinstance(epsilon, int | float) or not 0 <= epsilon < 1:
        raise UserError(f"{path}: layer_norm_eps is {epsilon!r}; it should be a small number such as 1e-12")
    activation = stated.get("hidden_act", Architecture.activation)
    if activation not in ACTIVATIONS:
        raise UserError(f"{path}: hidden_act is {activation!r}; it should be one of {' '.join(ACTIVATIONS)}")
    positions = stated.get("position_embedding_type") or "absolute"
    if positions != "absolute":
        raise UserError(f"{path}: position_embedding_type is {positions!r}; only absolute can be read")
    if stated.get("is_decoder"):
        raise UserError(f"{path}: is_decoder is true; only encoders can be read")
    if sizes["width"] % sizes["heads"]:
        raise UserError(f"{path}: hidden_size {sizes['width']} does not divide by num_attention_heads {sizes['heads']}")
    return Architecture(**sizes, types=types, epsilon=float(epsilon), activation=activation)


def _positive(path: Path, name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UserError(f"{path}: {name} is {value!r}; it should be a positive integer")
    return value


def read_params(folder: Path, architecture: Architecture) -> Params:
    """Return the parameters of `network.Bert` from `model.safetensors`, as float32.

    Names of tensors may begin with `bert.`; heads, the pooler and position numbers are ignored.

    Raises:
      UserError: the file is missing or damaged, a tensor is missing, of another shape or type, or not finite, or the
        extra `bert` is not installed.
    """
    try:
        import safetensors
    except ImportError:
        raise UserError("BERT needs the library safetensors: pip install -e '.[bert]'") from None
    path = folder / WEIGHTS
    if not path.exists():
        raise UserError(f"{path}: there is no such file; only safetensors can be read, never pickled weights")
    try:
        if path.stat().st_size > MAX_WEIGHT_BYTES:
            raise UserError(f"{path}: {path.stat().st_size:,} bytes; at most {MAX_WEIGHT_BYTES:,} are read")
        with safetensors.safe_open(path, framework="flax") as file:
            return _Reader(path, file, architecture).params()
    except (safetensors.SafetensorError, OSError) as error:
        raise UserError(f"{path}: damaged, or no safetensors file ({error})") from None


class _Reader:
    """Reads tensors from an open file, and checks their shapes and values."""

    def __init__(self, path: Path, file: Any, architecture: Architecture):
        self._path, self._file, self._architecture = path, file, architecture
        self._names = set(file.keys())
        self._prefix = "bert." if any(name.startswith("bert.") for name in self._names) else ""
        begins = re.escape(f"{self._prefix}encoder.layer.") + r"(\d{1,9})\."
        deepest = max((int(match[1]) for name in self._names if (match := re.match(begins, name))), default=-1)
        if deepest >= architecture.layers:
            raise UserError(f"{path}: has a layer {deepest}, from 0, and {CONFIG} says {architecture.layers} layers")

    def params(self) -> Params:
        options = self._architecture
        layers = [self._layer(number) for number in range(options.layers)]
        return {
            "words": self._tensor("embeddings.word_embeddings.weight", options.vocabulary_size, options.width),
            "positions": self._tensor("embeddings.position_embeddings.weight", options.positions, options.width),
            "types": self._tensor("embeddings.token_type_embeddings.weight", options.types, options.width),
            "norm": self._norm("embeddings"),
            "layers": _stacked(layers),
        }

    def _layer(self, number: int) -> Params:
        options, prefix = self._architecture, f"encoder.layer.{number}"
        parts = [self._dense(f"{prefix}.attention.self.{name}") for name in ("query", "key", "value")]
        return {
            "query_key_value": {name: np.concatenate([part[name] for part in parts], -1) for name in parts[0]},
            "attention_out": self._dense(f"{prefix}.attention.output.dense"),
            "attention_norm": self._norm(f"{prefix}.attention.output"),
            "hidden": self._dense(f"{prefix}.intermediate.dense", options.hidden, options.width),
            "out": self._dense(f"{prefix}.output.dense", options.width, options.hidden),
            "norm": self._norm(f"{prefix}.output"),
        }

    def _dense(self, name: str, to: int = 0, of: int = 0) -> Params:
        """Read a dense layer; PyTorch stores the transpose of our kernel."""
        width = self._architecture.width
        to, of = to or width, of or width
        return {"kernel": self._tensor(f"{name}.weight", to, of).T, "bias": self._tensor(f"{name}.bias", to)}

    def _norm(self, name: str) -> Params:
        scale, bias = (
            self._tensor(f"{name}.LayerNorm.{part}", self._architecture.width) for part in ("weight", "bias")
        )
        return {"scale": scale, "bias": bias}

    def _tensor(self, name: str, *shape: int) -> np.ndarray:
        name = self._prefix + name
        for new, old in _OLD_NAMES.items():
            if name not in self._names and name.endswith(new):
                old_name = name.removesuffix(new) + old
                name = old_name if old_name in self._names else name
        if name not in self._names:
            raise UserError(f"{self._path}: the tensor {name} is missing")
        described = self._file.get_slice(name)
        stored = tuple(described.get_shape())
        if stored != shape:
            raise UserError(f"{self._path}: the tensor {name} has shape {list(stored)}; {CONFIG} says {list(shape)}")
        if described.get_dtype() not in _FLOATS:
            raise UserError(f"{self._path}: the tensor {name} is of {described.get_dtype()}; it should be of F32")
        values = np.asarray(self._file.get_tensor(name)).astype(np.float32)
        if not np.isfinite(values).all():
            raise UserError(f"{self._path}: the tensor {name} holds NaN or infinity")
        return values


def _stacked(layers: list[Params]) -> Params:
    """Stack the trees of all layers into one tree of arrays with a leading axis."""
    first = layers[0]
    return {
        name: _stacked([layer[name] for layer in layers])
        if isinstance(value, Mapping)
        else np.stack([layer[name] for layer in layers])
        for name, value in first.items()
    }
