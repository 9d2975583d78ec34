"""Measure reviews a second through the text encoder, forward and forward + backward.

    python -m tools.benchmarks.text_speed [--budgets 4096 8192] [--reviews=4096] [--tokens=128]

The texts are random, with Zipfian token ids, and have no padding. Forward is `encode`; training is the value and the
gradient of a sum of squares of its features, in two phases, with dropout. Each figure is the median of the repeats with
the lowest and the highest. Load is the machine's load average over the last minute; figures are reliable only if it is
near 0.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from drex_jax.cli.exit_status import exit_code
from drex_jax.cli.flags import Parser
from drex_jax.text import batching
from drex_jax.text import encoder as text_encoder


def parse() -> argparse.Namespace:
    """Return the parsed flags."""
    parser = Parser("python -m tools.benchmarks.text_speed", __doc__)
    parser.add_argument("--reviews", type=int, default=4096, help="reviews a call")
    parser.add_argument("--tokens", type=int, default=128, help="tokens a review")
    parser.add_argument("--vocabulary", type=int, default=8000, help="vocabulary size")
    parser.add_argument("--width", type=int, default=64, help="encoder width")
    parser.add_argument("--features", type=int, default=32, help="features of a review")
    parser.add_argument("--dropout", type=float, default=0.1, help="in training")
    parser.add_argument("--budgets", type=int, nargs="+", default=[batching.BUDGET], help="tokens a chunk, a row each")
    parser.add_argument("--repeats", type=int, default=7, help="timed calls")
    return parser.parse_args()


def seconds(function: Callable[..., Any], *arguments: Any, repeats: int) -> tuple[float, np.ndarray]:
    """Return the seconds of the first call, with compilation, and of each later one [repeats]."""
    times = []
    for _ in range(repeats + 1):
        begin = time.perf_counter()
        jax.block_until_ready(function(*arguments))
        times.append(time.perf_counter() - begin)
    return times[0], np.array(times[1:])


def main() -> None:
    """Run the command."""
    given = parse()
    reviews, tokens = given.reviews, given.tokens
    rng = np.random.default_rng(0)
    ids = np.minimum(rng.zipf(1.2, size=reviews * tokens), given.vocabulary - 1).astype(np.int32)
    offsets = np.arange(reviews + 1, dtype=np.int64) * tokens
    encoder = text_encoder.TextEncoder(given.vocabulary, given.width, given.features, given.dropout)
    params = text_encoder.init(encoder, jax.random.key(0))
    key = jax.random.key(1)

    @jax.jit
    def forward(params: text_encoder.Params, batch: batching.TextBatch) -> jax.Array:
        return text_encoder.encode(encoder, params, batch, reviews)

    @jax.jit
    def train(params: text_encoder.Params, batch: batching.TextBatch) -> tuple[jax.Array, text_encoder.Params]:
        return jax.value_and_grad(lambda p: jnp.sum(text_encoder.encode(encoder, p, batch, reviews, key) ** 2))(params)

    device = jax.devices()[0]
    print(
        f"{device.device_kind} x {jax.device_count()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, ", end=""
    )
    print(f"{reviews} reviews of {tokens} tokens, width {given.width}, vocabulary {given.vocabulary}")
    print(
        f"{'budget':>8} {'chunks':>7} {'what':>8} {'reviews/s':>10} {'lowest':>8} {'highest':>8} {'first call s':>13}"
    )
    for budget in given.budgets:
        shapes = batching.fit([np.diff(offsets)], (tokens,), budget)
        batch = jax.device_put(batching.plan(ids, offsets, np.arange(reviews), shapes))
        for name, function in (("forward", forward), ("train", train)):
            first, times = seconds(function, params, batch, repeats=given.repeats)
            speeds = reviews / times
            print(f"{budget:>8} {shapes[0].chunks:>7} {name:>8} {np.median(speeds):>10.0f} ", end="")
            print(f"{speeds.min():>8.0f} {speeds.max():>8.0f} {first:>13.1f}")


if __name__ == "__main__":
    sys.exit(exit_code(main))
