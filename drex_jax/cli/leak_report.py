"""Look for leaks in a run directory, finished or not: one verdict for each check, and what was found.

    drex leaks --workdir=runs/quickstart

The `results.json` of a finished run has the same sentences under `leaks`.

Exit status: 0 no leak was found; 1 a leak was found; 2 the directory has no run that has read its data, or is damaged.
"""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

from drex_jax.cli.exit_status import print_stdout
from drex_jax.cli.flags import Parser


def run(arguments: Sequence[str]) -> int:
    """Run the command and return its exit status.

    Raises:
      UserError: a wrong flag, or a directory that cannot be checked.
    """
    parser = Parser("drex leaks", __doc__)
    parser.add_argument("--workdir", type=pathlib.Path, required=True, help="the run directory")
    options = parser.parse_args(arguments)
    # Imported late, as they import JAX: a mistake in the flags is answered at once.
    from drex_jax.evaluation import leaks
    from drex_jax.training import experiment

    checks = experiment.check_leaks(options.workdir)
    print_stdout(leaks.describe(checks))
    return int(any(check.found for check in checks))
