"""The door: python -m drex_jax.main --config=experiments/NAME.py[:ARGUMENT] [--workdir=DIR] [--config.FIELD=VALUE ...]

Trains the experiment, evaluates it and prints its results; run again, it continues or prints what it found. A finished
run answers: python -m drex_jax.main --workdir=DIR --mode=recommend --user=ID [--k=10] [--format=json]
and explains: python -m drex_jax.main --workdir=DIR --mode=explain --user=ID [--item=ID] [--format=json]
and goes on learning: python -m drex_jax.main --workdir=DIR --mode=update --interactions=FILE [--format=json]

Exit status: 0 done; 2 a mistake of yours, told in one line; 75 stopped by SIGTERM or SIGINT with nothing lost (the
same command continues, or asks again); 1 a mistake of ours, with its traceback.
"""

from __future__ import annotations

import functools
import logging
import sys
from collections.abc import Sequence

from drex_jax.cli import command as command_lib
from drex_jax.cli.exit_status import exit_code, print_stdout, run_main, unraisable
from drex_jax.cli.signals import SAVED, stop_on_signals
from drex_jax.training.settings import Settings

ASKED = "there was nothing to save; run the same command again"
STOPPED = {  # what a stop leaves, by mode
    "train": SAVED,
    "evaluate": ASKED,
    "recommend": ASKED,
    "explain": ASKED,
    "update": "an update is saved whole or not at all; run the same command again, which applies nothing twice",
    "report": "report.html is as it was before, or whole; run the same command again",
}


def run(argv: Sequence[str]) -> int:
    """Does what `argv` (the program's name first) says and returns the exit status."""
    return exit_code(functools.partial(_obey, argv))


def _obey(argv: Sequence[str]) -> None:
    command = command_lib.parse(argv)
    if command is None:
        print_stdout(f"{__doc__}\n{command_lib.usage()}")
        return
    sys.unraisablehook = unraisable
    with stop_on_signals(STOPPED[command.mode]):
        begin(command.settings)
        _execute(command)


def begin(settings: Settings) -> None:
    """Sets up logging and joins the processes of a run."""
    logging.basicConfig(format="%(message)s")
    logging.getLogger("drex_jax").setLevel(logging.INFO)
    logging.getLogger("absl").setLevel(logging.CRITICAL)  # Orbax logs each error's traceback, and then raises it
    from drex_jax.devices import processes  # JAX is imported here, so that a mistake in the flags is answered at once

    processes.connect(settings.devices.distributed)
    if not processes.is_main_process():
        logging.getLogger("drex_jax").setLevel(logging.WARNING)


def _execute(command: command_lib.Command) -> None:
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
    sys.exit(run_main(lambda: run(sys.argv)))
