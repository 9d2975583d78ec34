"""Measure experiments/yelp.py on synthetic files of several sizes: seconds, rates and memory of each stage.

    python -m tools.benchmarks.scale --folder=DIR [--reviews 70000 700000 7000000]

For every size a file in Yelp's format is written into the folder (once), with the real proportions of users, items and
reviews. The experiment runs on it for one epoch, with windows of `--window` interactions, in its own process. The peak
memory of the process is measured (on Linux; without mapped files, which the system may drop at any time). The table
shows the slope of the logarithms between two sizes: 1 means linear. Existing runs are reused: remove DIR/runs to start
over. Seven million reviews are a file of 6.3 GB and need 30 GB on disk.
"""

from __future__ import annotations

import argparse
import math
import pathlib
import re
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from drex_jax.cli.exit_status import exit_code
from drex_jax.cli.flags import Parser
from drex_jax.common.errors import UserError
from drex_jax.runs.layout import results_of
from tools.benchmarks import yelp_like

SAMPLE_SECONDS = 0.5
ROOT = pathlib.Path(__file__).parents[2]


def parse() -> argparse.Namespace:
    """Return the parsed flags."""
    parser = Parser("python -m tools.benchmarks.scale", __doc__)
    parser.add_argument("--folder", required=True, type=pathlib.Path, help="for files, runs and what is kept")
    parser.add_argument("--reviews", type=int, nargs="+", default=[70_000, 700_000, yelp_like.REVIEWS])
    parser.add_argument("--window", type=int, default=10_000, help="interactions a window")
    return parser.parse_args()


def run(folder: pathlib.Path, reviews: int, window: int) -> tuple[dict[str, Any], float]:
    """Run one size; return its results and the peak memory of its process in gigabytes.

    Raises:
      UserError: the experiment failed.
    """
    share = reviews / yelp_like.REVIEWS
    file, workdir = folder / f"{reviews}.json", folder / "runs" / str(reviews)
    if not file.exists():
        sides = (max(10, round(share * all_of_them)) for all_of_them in (yelp_like.USERS, yelp_like.ITEMS))
        yelp_like.write(file, reviews, *sides)
    command = [sys.executable, "-m", "drex_jax.main", f"--config={ROOT / 'experiments' / 'yelp.py'}"]
    command += [f"--workdir={workdir}", f"--config.data.path={file}", f"--config.data.cache_dir={folder / 'kept'}"]
    command += ["--config.train.epochs=1", f"--config.train.bptt_windows={max(1, round(0.8 * reviews / window))}"]
    command += ["--config.baselines=('running_bias',)"]
    process, highest = subprocess.Popen(command, cwd=ROOT), 0.0
    while process.poll() is None:
        highest = max(highest, own_memory(process.pid))
        time.sleep(SAMPLE_SECONDS)
    if process.returncode:
        raise UserError(f"the run of {reviews:,} reviews ended with {process.returncode}")
    return results_of(workdir), highest


def own_memory(pid: int) -> float:
    """Return the memory of a process in gigabytes, without mapped files, which the system may drop at any time."""
    try:
        status = pathlib.Path(f"/proc/{pid}/status").read_text()
    except OSError:  # the process has just ended, or this is not Linux
        return 0.0
    found = re.search(r"RssAnon:\s+(\d+) kB", status)
    return int(found[1]) / (1 << 20) if found else 0.0


COLUMNS: dict[str, tuple[str, Callable[[dict[str, Any], float], float]]] = {  # columns of the table: format, value
    "reading, s": (",.0f", lambda timing, _: timing["preparation_seconds"]["reading"]),
    "texts, s": (",.0f", lambda timing, _: timing["preparation_seconds"]["texts"]),
    "schedule and windows, s": (",.1f", lambda timing, _: timing["build_seconds"]),
    "training, s": (",.0f", lambda timing, _: timing["train_seconds"]),
    "interactions/s": (",.0f", lambda timing, _: timing["interactions_per_second"]),
    "test and keywords, s": (",.0f", lambda timing, _: timing["test_seconds"]),
    "all, s": (",.0f", lambda timing, _: timing["total_seconds"]),
    "GB": (".1f", lambda _, gigabytes: gigabytes),
}


def main() -> None:
    """Run the command."""
    given = parse()
    try:
        given.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--folder={given.folder} cannot be made: {error.strerror}") from None
    print(f"\n| reviews | {' | '.join(COLUMNS)} |\n|{'---|' * (len(COLUMNS) + 1)}", flush=True)
    before: tuple[int, list[float]] | None = None
    for reviews in given.reviews:
        results, gigabytes = run(given.folder, reviews, given.window)
        values = [value(results["timing"], gigabytes) for _, value in COLUMNS.values()]
        if before and before[0] != reviews:
            times = math.log(reviews / before[0])
            slopes = (f"{math.log(now / then) / times:.2f}" for now, then in zip(values, before[1], strict=True))
            print(f"| *slope of the logarithms* | {' | '.join(slopes)} |", flush=True)
        written = (format(value, form) for value, (form, _) in zip(values, COLUMNS.values(), strict=True))
        print(f"| {reviews:,} | {' | '.join(written)} |", flush=True)
        before = reviews, values


if __name__ == "__main__":
    sys.exit(exit_code(main))
