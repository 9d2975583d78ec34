"""Searches the space that an experiment declares (`config.tune`), on validation, and prints the best settings.

    python tools/tune.py --config=experiments/NAME.py[:ARGUMENT] [--workdir=DIR] [--config.FIELD=VALUE ...]

Fields of the search: --config.tune.trials=20, --config.tune.search=random (or grid, or tpe, which learns from the
trials before and needs the extra `tune`), and the space, a tuple of lines
FIELD=VALUE,VALUE,... or FIELD=LOW..HIGH: --config.tune.space='("train.learning_rate=1e-3..1e-2", "ranker.layers=1,2")'.
All trials are kept in DIR/trials/ (default DIR: runs/NAME[-ARGUMENT]-tune); run again, it continues, or prints what it
found. No test figure is computed: append the printed flags to the main command for that.

Exit status: 0 done; 2 a mistake of yours, told in one line; 75 stopped by SIGTERM or SIGINT with everything saved (the
same command continues); 1 a mistake of ours, with its traceback.
"""

import os
import sys

# As a script its folder is the first place for imports, where profile.py would hide the standard module `profile`.
sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry) != os.path.dirname(os.path.abspath(__file__))]

from collections.abc import Sequence  # noqa: E402

from drex_jax import main  # noqa: E402
from drex_jax.cli import command as command_lib  # noqa: E402
from drex_jax.cli.exit_status import exit_code, run_main  # noqa: E402
from drex_jax.cli.signals import stop_on_signals  # noqa: E402
from drex_jax.common.errors import UserError  # noqa: E402


def run(argv: Sequence[str]) -> int:
    """Does what `argv` (the program's name first) says and returns the exit status."""
    return exit_code(lambda: _tune(argv))


def _tune(argv: Sequence[str]) -> None:
    command = command_lib.parse(argv, suffix="-tune")
    if command is None:
        print(__doc__)
        return
    if command.mode != "train":
        raise UserError(f"--mode={command.mode} is for python -m drex_jax.main; tools/tune.py only searches")
    with stop_on_signals():
        main.begin(command.settings)
        from drex_jax.devices import processes
        from drex_jax.runs.layout import RunLayout
        from drex_jax.training import tune  # JAX is imported here: a mistake in the flags is answered at once

        tuned = tune.tune(command.settings, command.workdir)
        if processes.is_main_process():
            print(f"\n{tune.format_tuned(tuned)}\n\ntrials: {RunLayout(command.workdir).trials}")


if __name__ == "__main__":
    sys.exit(run_main(lambda: run(sys.argv)))
