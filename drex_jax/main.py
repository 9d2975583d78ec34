"""The command `drex`, also python -m drex_jax.main: trains, evaluates and asks recommenders.

Train an experiment, evaluate it and print its results; the same command continues a stopped run:
  drex --config=experiments/NAME.py[:ARGUMENT] [--workdir=DIR] [--config.FIELD=VALUE ...]
Ask a finished run for recommendations, or for an explanation:
  drex --workdir=DIR --mode=recommend --user=ID [--k=10] [--format=json]
  drex --workdir=DIR --mode=explain --user=ID [--item=ID] [--format=json]
Let a finished run learn from new interactions:
  drex --workdir=DIR --mode=update --interactions=FILE [--format=json]

Exit status: 0 done; 2 a mistake of the user, told in one line; 75 stopped by SIGTERM or SIGINT, nothing is lost and the
same command continues or asks again; 1 a bug, with its traceback. `drex leaks` has a meaning of its own for 1.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Sequence

from drex_jax.cli import command as command_lib
from drex_jax.cli import startup
from drex_jax.cli.exit_status import exit_code, print_stdout, run_main, unraisable
from drex_jax.cli.subcommands import NOTHING_TO_SAVE, SUBCOMMANDS, run_subcommand, summaries
from drex_jax.common.errors import UserError
from drex_jax.common.signals import SAVED, raise_on_signals

STOPPED = {  # what a stop leaves, by mode
    "train": SAVED,
    "evaluate": NOTHING_TO_SAVE,
    "recommend": NOTHING_TO_SAVE,
    "explain": NOTHING_TO_SAVE,
    "update": "an update is saved whole or not at all; run the same command again, which applies nothing twice",
    "report": "report.html is as it was before, or whole; run the same command again",
}


def drex(*first: str) -> int:
    """Run the command line of this process, with the arguments `first` before it, and return the exit status."""
    return run_main(lambda: run([sys.argv[0], *first, *sys.argv[1:]]))


def run(argv: Sequence[str]) -> int:
    """Run the command in `argv` (the program's name first) and return the exit status."""
    return exit_code(lambda: _obey(argv))


def _obey(argv: Sequence[str]) -> int | None:
    startup.set_up_logging()
    sys.unraisablehook = unraisable
    name = next(iter(argv[1:]), "-")
    if name in SUBCOMMANDS:
        return run_subcommand(name, argv[2:])
    if not name.startswith("-"):
        close = difflib.get_close_matches(name, SUBCOMMANDS, 1)
        hint = f"did you mean {close[0]}?" if close else f"it should be one of {' '.join(SUBCOMMANDS)}, or a flag"
        raise UserError(f"unknown subcommand {name}; {hint}")
    command = command_lib.parse(argv)
    if command is None:
        print_stdout(f"{__doc__}\n{summaries()}\n{command_lib.usage()}")
        return None
    with raise_on_signals(STOPPED[command.mode]):
        startup.join_processes(command.settings)
        _execute(command)
    return None


def _execute(command: command_lib.Command) -> None:
    # Imported late, as they import JAX: a mistake in the flags is answered at once.
    if command.mode in ("recommend", "explain", "update"):
        from drex_jax.cli import answers

        print_stdout(answers.answer(command))
        return
    if command.mode == "report":
        from drex_jax.report import page

        print_stdout(str(page.write(command.workdir)))
        return
    from drex_jax.devices import processes
    from drex_jax.report import results_table
    from drex_jax.training import experiment

    trained = command.mode == "train"
    results = experiment.train(command.settings, command.workdir) if trained else experiment.evaluate(command.workdir)
    if processes.is_main_process():
        print_stdout(f"{results_table.format_results(results)}\n\nrun directory: {command.workdir}")


if __name__ == "__main__":
    sys.exit(drex())
