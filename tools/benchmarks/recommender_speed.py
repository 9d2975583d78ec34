"""Measure how fast a finished DReX run answers questions and takes updates.

    python -m tools.benchmarks.recommender_speed --workdir=runs/quickstart [--batch=10000] [--users=10000 --items=50000]

Nothing is written: updates stay in memory. These operations are timed, each after a first call that compiles: loading;
updates by single interactions with a rating; updates by batches of interactions with a rating and no text, of known and
new users and items; recommendation lists for `--users` users over `--items` items (random rows instead of the run's);
an explanation of a pair. A figure is the median of the repeats, with the lowest and the highest.
"""

from __future__ import annotations

import argparse
import pathlib
import resource
import sys
import time
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

from drex_jax import Recommender
from drex_jax.cli.exit_status import exit_code
from drex_jax.cli.flags import Parser
from drex_jax.data.interactions import Interactions
from drex_jax.data.strings import Strings
from drex_jax.models.baselines.factors import BPR
from drex_jax.models.pairwise import TableSizes
from drex_jax.models.protocol import States
from drex_jax.models.settings import RankerSettings
from drex_jax.serving.finished_run import open_run
from drex_jax.serving.interaction_log import InteractionLog
from drex_jax.serving.live_run import LiveRun

LATER = 4e9  # seconds since 1970: later than all interactions


def parse() -> argparse.Namespace:
    """Return the parsed flags."""
    parser = Parser("python -m tools.benchmarks.recommender_speed", __doc__)
    parser.add_argument("--workdir", required=True, help="a finished run of DReX")
    parser.add_argument("--batch", type=int, default=10_000, help="interactions a batch")
    parser.add_argument("--users", type=int, default=10_000, help="users of the stand-in")
    parser.add_argument("--items", type=int, default=50_000, help="items of the stand-in")
    parser.add_argument("--repeats", type=int, default=5, help="timed calls")
    return parser.parse_args()


def timed(call: Callable[[int], object], repeats: int) -> np.ndarray:
    """Return the seconds of calls 1 to `repeats`; call 0 is a warm-up."""
    seconds = []
    for number in range(repeats + 1):
        begin = time.perf_counter()
        call(number)
        seconds.append(time.perf_counter() - begin)
    return np.array(seconds[1:])


def shown(what: str, values: np.ndarray, unit: str) -> None:
    """Print a line: the median, the lowest and the highest value."""
    print(f"{what:<58} {np.median(values):>10,.1f} {unit} ({values.min():,.1f} to {values.max():,.1f})")


def stand_in(workdir: pathlib.Path, users: int, items: int) -> Recommender:
    """Return a recommender with random rows that answers like a ranker."""
    rng = np.random.default_rng(0)
    ids = [Strings.of(str(number) for number in range(count)) for count in (users, items)]
    seen = 20 * users
    table = Interactions(
        name="stand-in",
        user_ids=ids[0],
        item_ids=ids[1],
        user=rng.integers(0, users, seen).astype(np.int32),
        item=rng.integers(0, items, seen).astype(np.int32),
        timestamp=np.zeros(seen),
        rating=np.full(seen, np.nan, np.float32),
        text=Strings.empty(seen),
    )
    rows = (jnp.asarray(rng.normal(size=(count, 64)), jnp.float32) for count in (users, items))
    run = open_run(workdir)
    model = BPR(RankerSettings(), TableSizes(users, items, items))
    run = run._replace(model=model, params={}, states=States(*rows), log=InteractionLog(table, seen))
    return Recommender(LiveRun(run))


def main() -> None:
    """Run the command."""
    given = parse()
    begin = time.perf_counter()
    recommender = Recommender.load(given.workdir)
    print(f"{'load':<58} {time.perf_counter() - begin:>10,.2f} s")
    rng = np.random.default_rng(0)
    moment = iter(range(10**9))

    def rows(n: int) -> list[dict[str, object]]:
        return [
            {
                "user": f"user{rng.integers(2000)}",
                "item": f"item{rng.integers(1000)}",
                "rating": 4.0,
                "timestamp": LATER + next(moment),
            }
            for _ in range(n)
        ]

    batches = [rows(given.batch) for _ in range(given.repeats + 1)]
    seconds = timed(lambda number: recommender.update(batches[number]), given.repeats)
    shown(f"update, batches of {given.batch:,} ratings", given.batch / seconds, "interactions/s")
    singles = [rows(1) for _ in range(201)]
    shown("update, one rating", 1000 * timed(lambda number: recommender.update(singles[number]), 200), "ms")
    pair = "user1", "item1"
    shown("explain a pair", 1000 * timed(lambda number: recommender.explain(*pair), given.repeats), "ms")
    other = stand_in(pathlib.Path(given.workdir), given.users, given.items)
    asked = [str(number) for number in range(given.users)]
    seconds = timed(lambda number: sum(1 for _ in other.stream(asked, k=10)), min(given.repeats, 2))
    shown(f"{given.users:,} lists of 10 over {given.items:,} items", seconds, "s")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20 if sys.platform != "darwin" else 1 << 30)
    print(f"{'peak memory of the process':<58} {peak:>10,.2f} GB")


if __name__ == "__main__":
    sys.exit(exit_code(main))
