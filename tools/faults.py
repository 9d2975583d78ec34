"""Injects faults into runs, many random points each, and prints a table: fault, promise, trials, losses.

    python tools/faults.py [--trials N] [--faults NAME ...] [--models NAME ...] [--seed 0]

Every trial is a command of its own, of a small model, all of those that train by batches by turns (or, for `update`
and `report`, of popularity), in a process that is killed, starved of room or damaged; then the same command is given
again. Points are drawn from the
calls that touch files of the run directory, and fall up to a few milliseconds after one. Of training it is a loss
unless what the newest checkpoint gives back has the SHA-256 that an undisturbed run saved at that step, and the run
then ends as the undisturbed one, bit by bit: the last checkpoint, every line of `metrics.jsonl`, every test figure.

Exit status: 0 nothing was lost; 1 something was, and is told.
"""

import os
import sys

# Imports begin at the repository: `profile.py` in this folder would hide the standard module of that name.
sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import argparse  # noqa: E402
import pathlib  # noqa: E402
import tempfile  # noqa: E402
import time  # noqa: E402

from drex_jax import main  # noqa: E402, F401 (imported before processes are forked)
from drex_jax.report import results_table  # noqa: E402, F401
from tools.robustness.faults import small, trials  # noqa: E402
from tools.robustness.faults.lab import Lab  # noqa: E402


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, help="of each fault; default: those of the full suite")
    parser.add_argument("--faults", nargs="+", choices=list(trials.TRIALS), default=list(trials.TRIALS))
    parser.add_argument("--models", nargs="+", choices=small.MODELS, default=small.MODELS, help="trained by turns")
    parser.add_argument("--seed", type=int, default=0, help="of the points")
    return parser.parse_args()


def inject(given: argparse.Namespace) -> int:
    """Prints the table; returns how many trials lost something."""
    lost = 0
    print(f"| fault | promise | trials | losses | seconds |\n|{'---|' * 5}", flush=True)
    with tempfile.TemporaryDirectory(prefix="drex_jax_faults_") as folder:
        pathlib.Path(folder).chmod(0o755)  # another user reads it, too
        lab = Lab(pathlib.Path(folder), given.seed, given.models)
        for name in given.faults:
            begun = time.monotonic()
            try:
                number, losses = trials.suite(lab, name, given.trials or trials.TRIALS[name])
            except trials.MountsRefusedError:
                print(f"| {' | '.join(trials.PROMISES[name])} | skipped: mounts are refused here | | |", flush=True)
                continue
            lost += len(losses)
            row = (*trials.PROMISES[name], str(number), str(len(losses)), f"{time.monotonic() - begun:.0f}")
            print(f"| {' | '.join(row)} |", flush=True)
            for loss in losses:
                print(f"{name}: {loss}", file=sys.stderr, flush=True)
    return lost


if __name__ == "__main__":
    sys.exit(1 if inject(parse()) else 0)
