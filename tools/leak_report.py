"""Looks for leaks in a run directory, finished or not: a verdict on each check, and what was found.

    python tools/leak_report.py --workdir=runs/quickstart

What a finished run's results.json has under `leaks` are the same sentences.

Exit status: 0 no leak was found; 1 one was; 2 the directory holds no run that has read its data, or a damaged one.
"""

import os
import sys

# As a script its folder is the first place for imports, where profile.py would hide the standard module `profile`.
sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry) != os.path.dirname(os.path.abspath(__file__))]

import argparse  # noqa: E402
import pathlib  # noqa: E402
from collections.abc import Sequence  # noqa: E402

from drex_jax.cli.exit_status import exit_code, print_stdout  # noqa: E402
from drex_jax.cli.flags import Parser  # noqa: E402


def look(arguments: Sequence[str]) -> int:
    """Prints the report; returns how many checks found a leak."""
    parser = Parser(
        prog="tools/leak_report.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workdir", type=pathlib.Path, required=True)
    options = parser.parse_args(arguments)
    from drex_jax.evaluation import leaks
    from drex_jax.training import experiment  # JAX is imported here: a mistake in the flags is answered at once

    checks = experiment.check_leaks(options.workdir)
    print_stdout(leaks.describe(checks))
    return sum(bool(check.found) for check in checks)


if __name__ == "__main__":
    leaking: list[int] = []
    status = exit_code(lambda: leaking.append(look(sys.argv[1:])))
    sys.exit(status or int(sum(leaking) > 0))
