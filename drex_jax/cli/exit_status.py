"""How a command ends: what it raises becomes one line for its user and an exit status."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import re
import sys
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from drex_jax.common.errors import Stopped, UserError

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

DONE, BUG, MISTAKE, STOPPED = 0, 1, 2, 75
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM)  # or no right to it
UNNAMED = re.compile(r"\d+ requested and \d+ written")  # what NumPy says of a full disk, without a number
OF_CHECKPOINTS = re.compile(r"os_error_code='(\d+)'")  # what TensorStore says, in errors of several types
NOWHERE = "No usable temporary directory"
TOO_LATE = "Event loop is closed"  # what Orbax's other writers meet when one of them has failed, which is told


def print_stdout(text: str) -> None:
    """Prints an answer to standard output; a reader who leaves early (`head`) has had enough."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        _silence()
    except OSError:  # a full disk
        _silence()
        raise


def exit_code(work: Callable[[], None]) -> int:
    """Does `work` and returns the exit status; what the user has to know is told in one line.

    What the encoding of standard output lacks is written escaped.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        work()
    except UserError as error:
        print(f"drex_jax: {_one_line(error)}", file=sys.stderr)
        return MISTAKE
    except BrokenPipeError:
        _silence()
        with contextlib.suppress(OSError):
            print("drex_jax: stopped, as nobody reads its output; the same command continues", file=sys.stderr)
        return STOPPED
    except Stopped as stop:
        print(f"drex_jax: {_one_line(stop)}", file=sys.stderr)
        return STOPPED
    except Exception as error:
        what = _no_room(error)
        if what is None:
            raise
        remedy = "make room or give another --workdir, then run the same command"
        print(f"drex_jax: cannot write {what}; {remedy}", file=sys.stderr)
        return MISTAKE
    return DONE


def run_main(work: Callable[[], int]) -> int:
    """The exit status of `work`; where it fails in one process of many, the others end with it."""
    try:
        status = work()
    except Exception:
        traceback.print_exc()
        status = BUG
    joined = sys.modules.get("drex_jax.devices.processes")  # not yet there where the flags are wrong
    if status != DONE and joined is not None:
        joined.leave(status)
    return status


def unraisable(lost: UnraisableHookArgs, report: Callable[[Any], object] = sys.unraisablehook) -> None:
    """What `sys.unraisablehook` does with an exception that nobody can catch: tells it, unless it follows from one."""
    if not (lost.exc_type is RuntimeError and str(lost.exc_value) == TOO_LATE):
        report(lost)


def _silence() -> None:
    """Sends what is still to be written to nobody, so that the interpreter's last flush finds no broken pipe."""
    with contextlib.suppress(OSError, ValueError):  # ValueError: a stream that is no file
        nobody = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nobody, sys.stdout.fileno())
        os.close(nobody)


def _no_room(error: Exception) -> str | None:
    """What a full disk has no room for, or may not be written; None of any other error."""
    reason = _one_line(getattr(error, "strerror", None) or error)
    if isinstance(error, OSError):
        known = error.errno in NO_ROOM or UNNAMED.search(reason) or NOWHERE in reason
        return f"{error.filename or 'to the disk'} ({reason})" if known else None
    code = OF_CHECKPOINTS.search(reason)
    return f"to the disk ({os.strerror(int(code[1]))})" if code and int(code[1]) in NO_ROOM else None


def _one_line(message: object) -> str:
    return " ".join(str(message).split())
