"""The door: python -m drex_jax.main --config=experiments/NAME.py[:ARGUMENT] [--workdir=DIR] [--config.FIELD=VALUE ...]

Trains the experiment, evaluates it and prints its results; run again, it continues or prints what it found.

Exit status: 0 done; 2 a mistake of yours, told in one line; 75 stopped by SIGTERM or SIGINT with everything saved (the
same command continues); 1 a mistake of ours, with its traceback.
"""

from __future__ import annotations

import errno
import logging
import sys
import traceback
from collections.abc import Sequence

from drex_jax import command as command_lib
from drex_jax.config import Config
from drex_jax.errors import Stopped, UserError
from drex_jax.signals import stop_on_signals

DONE, BUG, MISTAKE, STOPPED = 0, 1, 2, 75
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


def run(argv: Sequence[str]) -> int:
    """Does what `argv` (the program's name first) says and returns the exit status."""
    try:
        command = command_lib.parse(argv)
        if command is None:
            print(f"{__doc__}\n{command_lib.usage()}")
            return DONE
        with stop_on_signals():
            _execute(command)
    except UserError as error:
        print(f"drex_jax: {_one_line(error)}", file=sys.stderr)
        return MISTAKE
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        print(
            f"drex_jax: cannot write {error.filename or 'to the disk'} ({error.strerror}); "
            "make room or give another --workdir, then run the same command",
            file=sys.stderr,
        )
        return MISTAKE
    except Stopped as stop:
        print(f"drex_jax: {_one_line(stop)}", file=sys.stderr)
        return STOPPED
    return DONE


def _execute(command: command_lib.Command) -> None:
    logging.basicConfig(format="%(message)s")
    logging.getLogger("drex_jax").setLevel(logging.INFO)
    from drex_jax import processes, train  # JAX is imported here, so that a mistake in the flags is answered at once
    from drex_jax.report import table

    config: Config = command.config
    processes.connect(config.devices.distributed)
    if not processes.is_first():
        logging.getLogger("drex_jax").setLevel(logging.WARNING)
    results = train.train(config, command.workdir) if command.mode == "train" else train.evaluate(command.workdir)
    if processes.is_first():
        table.print_results(results)
        print(f"\nrun directory: {command.workdir}")


def _one_line(message: object) -> str:
    return " ".join(str(message).split())


def run_as_one_of_many(argv: Sequence[str]) -> int:
    """`run`; where it fails in one process of many, the others end with it."""
    try:
        status = run(argv)
    except Exception:
        traceback.print_exc()
        status = BUG
    joined = sys.modules.get("drex_jax.processes")  # not yet there where the flags are wrong
    if status != DONE and joined is not None:
        joined.leave(status)
    return status


if __name__ == "__main__":
    sys.exit(run_as_one_of_many(sys.argv))
