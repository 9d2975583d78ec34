"""Give hostile input to everything that reads a file, and print the results.

    pip install -e '.[fuzz]'
    python tools/fuzz.py                                        # all targets, more than a million inputs
    python tools/fuzz.py --targets yelp run --inputs=5000       # two targets

Inputs are made from good files, by random damage (`tools.robustness.fuzzing.mutations`) and by Atheris, which prefers
inputs that reach new lines of code. Good files include the real files below the folder in DREX_JAX_DATA. An input is
lost if reading it has another outcome than a result or a `UserError`, takes longer than 20 seconds, needs more than
3 GB of memory, or if one of its rows is neither kept nor merged nor rejected. A target stops at its first lost input,
which is saved in the folder of --keep; `--again=FILE` runs it again. Inputs are written to TMPDIR, which is best in
memory (/dev/shm).

Exit status: 0 nothing was lost; 1 something was lost, as reported; 2 a user error.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

from drex_jax.cli.exit_status import exit_code
from drex_jax.cli.flags import Parser, at_least
from drex_jax.common.errors import UserError
from tools.robustness.fuzzing.targets import TARGETS

COUNTED = re.compile(r"^(?:#|Done )(\d+)\b", re.MULTILINE)  # libFuzzer's counts of inputs
ROOT = pathlib.Path(__file__).parents[3]


def run(arguments: Sequence[str]) -> int:
    """Run the command and return its exit status."""
    return exit_code(lambda: int(fuzz(parse(arguments)) > 0))


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Return the parsed flags.

    Raises:
      UserError: a wrong flag, an unknown target, or Atheris is not installed.
    """
    parser = Parser("tools/fuzz.py", __doc__)
    parser.add_argument(
        "--targets",
        nargs="+",
        choices=list(TARGETS),
        default=list(TARGETS),
        metavar="NAME",
        help=f"some of {' '.join(TARGETS)}; default: all",
    )
    parser.add_argument("--inputs", type=at_least(1), help="of each target; default: those of the full job")
    parser.add_argument("--seed", type=at_least(1), default=1, help="of the random damage")
    parser.add_argument("--keep", type=pathlib.Path, default=pathlib.Path(), help="folder for lost inputs")
    parser.add_argument("--again", type=pathlib.Path, help="one input of one target, instead of new ones")
    given = parser.parse_args(arguments)
    if importlib.util.find_spec("atheris") is None:
        raise UserError("tools/fuzz.py needs Atheris: pip install -e '.[fuzz]'")
    return given


def fuzz(given: argparse.Namespace) -> int:
    """Print the table and return how many targets lost an input."""
    lost = 0
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    print(f"| target | inputs | lost | seconds |\n|{'---|' * 4}", flush=True)
    for name in given.targets:
        inputs, begun = given.inputs or TARGETS[name][1], time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "tools.robustness.fuzzing.worker", name, f"--folder={folder}"]
            command += [f"--inputs={inputs}", f"--seed={given.seed}", f"--keep={given.keep}"]
            command += [f"--again={given.again}"] if given.again else []
            done = subprocess.run(
                command,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                check=False,
                env=os.environ | {"PYTHONPATH": paths},
            )
        told = done.stdout.decode(errors="replace")
        number = max(map(int, COUNTED.findall(told)), default=int(given.again is not None))
        lost += done.returncode != 0
        seconds = time.monotonic() - begun
        print(f"| {name} | {number} | {int(done.returncode != 0)} | {seconds:.0f} |", flush=True)
        if done.returncode:
            print(f"{name}: {told[-4000:]}", file=sys.stderr, flush=True)
    return lost
