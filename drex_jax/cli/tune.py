"""Search the space that an experiment declares (`config.tune`) on validation, and print the best settings.

    drex tune --config=experiments/NAME.py[:ARGUMENT] [--workdir=DIR] [--config.FIELD=VALUE ...]

Fields of the search: --config.tune.trials=20, --config.tune.search=random (or grid), and the space, a tuple of lines
FIELD=VALUE,VALUE,... or FIELD=LOW..HIGH: --config.tune.space='("train.learning_rate=1e-3..1e-2", "ranker.layers=1,2")'.
All trials are kept in DIR/trials/ (default DIR: runs/NAME[-ARGUMENT]-tune); the same command continues a stopped
search, or prints the results of a finished one. No test metric is computed: append the printed flags to the main
command for that.
"""

from __future__ import annotations

from collections.abc import Sequence

from drex_jax.cli import command as command_lib
from drex_jax.cli import startup
from drex_jax.cli.exit_status import print_stdout
from drex_jax.common.errors import UserError


def run(arguments: Sequence[str]) -> None:
    """Run the command.

    Raises:
      UserError: a wrong flag or field, or a search that cannot be done.
      Stopped: SIGTERM or SIGINT; everything is saved.
    """
    command = command_lib.parse(["drex tune", *arguments], suffix="-tune")
    if command is None:
        print_stdout(__doc__ or "")
        return
    if command.mode != "train":
        raise UserError(f"--mode={command.mode} is for drex without a subcommand; drex tune only searches")
    startup.join_processes(command.settings)
    # Imported late, as they import JAX: a mistake in the flags is answered at once.
    from drex_jax.devices import processes
    from drex_jax.runs.layout import RunLayout
    from drex_jax.training import tune

    tuned = tune.search_settings(command.settings, command.workdir)
    if processes.is_main_process():
        print_stdout(f"\n{tune.format_tuned(tuned)}\n\ntrials: {RunLayout(command.workdir).trials}")
