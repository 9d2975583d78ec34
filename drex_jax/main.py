"""The door: python -m drex_jax.main --config=experiments/NAME.py[:ARGUMENT] [--workdir=DIR] [--config.FIELD=VALUE ...]

Trains the experiment, evaluates it and prints its results; run again, it continues or prints what it found.

Exit status: 0 done; 2 a mistake of yours, told in one line; 75 stopped by SIGTERM or SIGINT with everything saved (the
same command continues); 1 a mistake of ours, with its traceback.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import sys
from collections.abc import Iterator, Sequence

from drex_jax import command as command_lib
from drex_jax.errors import Stopped, UserError

DONE, MISTAKE, STOPPED = 0, 2, 75


def run(argv: Sequence[str]) -> int:
    """Does what `argv` (the program's name first) says and returns the exit status."""
    try:
        command = command_lib.parse(argv)
        if command is None:
            print(f"{__doc__}\n{command_lib.usage()}")
            return DONE
        with _stop_on_signals():
            _execute(command)
    except UserError as error:
        print(f"drex_jax: {_one_line(error)}", file=sys.stderr)
        return MISTAKE
    except Stopped as stop:
        print(f"drex_jax: {_one_line(stop)}", file=sys.stderr)
        return STOPPED
    return DONE


def _execute(command: command_lib.Command) -> None:
    logging.basicConfig(format="%(message)s")
    logging.getLogger("drex_jax").setLevel(logging.INFO)
    from drex_jax import train  # JAX is imported here, so that a mistake in the flags is answered at once
    from drex_jax.report import table

    if command.mode == "train":
        results = train.train(command.config, command.workdir)
    else:
        results = train.evaluate(command.workdir)
    table.print_results(results)
    print(f"\nrun directory: {command.workdir}")


@contextlib.contextmanager
def _stop_on_signals() -> Iterator[None]:
    """Where the training loop has no handler of its own, nothing is half done: SIGTERM and SIGINT raise Stopped."""

    def stop(number: int, _: object) -> None:
        name = signal.Signals(number).name
        raise Stopped(f"stopped by {name}; everything so far is saved, and the same command continues")

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _one_line(message: object) -> str:
    return " ".join(str(message).split())


if __name__ == "__main__":
    sys.exit(run(sys.argv))
