"""Inject faults into runs, at many random points each, and print a table: fault, promise, trials, losses.

    python tools/faults.py [--trials N] [--faults NAME ...] [--models NAME ...] [--seed 0]

Every trial runs a command in its own process, which is killed, runs out of disk space or has its files damaged; then
the same command runs again. The model is small. Models that train in batches take turns; the faults `update` and
`report` use popularity. A fault happens at a random call that touches a file of the run directory, or up to a few
milliseconds later. A trial of training is lost unless the newest checkpoint restores exactly what an undisturbed run
saved at that step (SHA-256), and the run then ends exactly like the undisturbed one: same last checkpoint, same lines
of `metrics.jsonl` and same test metrics.

Exit status: 0 nothing was lost; 1 something was lost, as reported; 2 a wrong flag.
"""

from __future__ import annotations

import argparse
import pathlib
import sys
import tempfile
import time
from collections.abc import Sequence

# Import both before forking, so that the forked processes need not import them.
from drex_jax import main  # noqa: F401  # pyright: ignore[reportUnusedImport]
from drex_jax.cli.exit_status import exit_code
from drex_jax.cli.flags import Parser, at_least
from drex_jax.report import results_table  # noqa: F401  # pyright: ignore[reportUnusedImport]
from tools.robustness.faults import small, trials
from tools.robustness.faults.lab import Lab


def run(arguments: Sequence[str]) -> int:
    """Run the command and return its exit status."""
    return exit_code(lambda: int(inject(parse(arguments)) > 0))


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Return the parsed flags.

    Raises:
      UserError: a wrong flag.
    """
    parser = Parser("tools/faults.py", __doc__)
    parser.add_argument("--trials", type=at_least(1), help="of each fault; default: those of the full suite")
    for flag, known in (("--faults", list(trials.TRIALS)), ("--models", small.MODELS)):
        text = f"some of {' '.join(known)}; default: all"
        parser.add_argument(flag, nargs="+", choices=known, default=known, metavar="NAME", help=text)
    parser.add_argument("--seed", type=int, default=0, help="of the random points")
    return parser.parse_args(arguments)


def inject(given: argparse.Namespace) -> int:
    """Print the table and return how many trials lost something."""
    lost = 0
    print(f"| fault | promise | trials | losses | seconds |\n|{'---|' * 5}", flush=True)
    with tempfile.TemporaryDirectory(prefix="drex_jax_faults_") as folder:
        pathlib.Path(folder).chmod(0o755)  # one fault runs as another user
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
