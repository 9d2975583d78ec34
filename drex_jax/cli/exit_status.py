"""How a command ends: an exception becomes one line for the user and an exit status."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from drex_jax.common.errors import Stopped, UserError
from drex_jax.common.foreign_messages import (
    is_closed_loop,
    is_short_write,
    is_without_temporary_folder,
    tensorstore_errno,
)

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

DONE, BUG, MISTAKE, STOPPED = 0, 1, 2, 75
CANNOT_WRITE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM)


def print_stdout(text: str) -> None:
    """Print an answer to standard output. A reader that closes the pipe early (`head`) is no error."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        _silence()
    except OSError:  # a full disk
        _silence()
        raise


def exit_code(work: Callable[[], int | None]) -> int:
    """Run `work` and return the exit status; errors of the user and of the machine are printed on one line.

    Characters that the encoding of standard output lacks are escaped.

    Args:
      work: the command; it returns its exit status, or None for 0.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        return work() or DONE
    except UserError as error:
        print(f"drex_jax: {_one_line(error)}", file=sys.stderr)
        return MISTAKE
    except BrokenPipeError:
        _silence()
        with contextlib.suppress(OSError):
            print("drex_jax: stopped, as its output was closed; the same command continues", file=sys.stderr)
        return STOPPED
    except Stopped as stop:
        print(f"drex_jax: {_one_line(stop)}", file=sys.stderr)
        return STOPPED
    except Exception as error:
        what = _unwritable(error)
        if what is None:
            raise
        remedy = "make room or give another --workdir, then run the same command"
        print(f"drex_jax: cannot write {what}; {remedy}", file=sys.stderr)
        return MISTAKE


def run_main(work: Callable[[], int]) -> int:
    """Return the exit status of `work`; in a run of several processes a failure ends all of them."""
    try:
        status = work()
    except Exception:
        traceback.print_exc()
        status = BUG
    joined = sys.modules.get("drex_jax.devices.processes")  # not imported yet if the flags are wrong
    if status != DONE and joined is not None:
        joined.leave(status)
    return status


def unraisable(lost: UnraisableHookArgs, report: Callable[[Any], object] = sys.unraisablehook) -> None:
    """Report an exception that cannot be caught (`sys.unraisablehook`), unless it follows from a reported one."""
    if not is_closed_loop(lost.exc_value):
        report(lost)


def _silence() -> None:
    """Send the rest of standard output nowhere, so that the interpreter's last flush does not fail."""
    with contextlib.suppress(OSError, ValueError):  # ValueError: a stream without a file
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def _unwritable(error: Exception) -> str | None:
    """Return what a full or protected disk did not take, or None for any other error."""
    if isinstance(error, OSError):
        known = error.errno in CANNOT_WRITE or is_short_write(error) or is_without_temporary_folder(error)
        return f"{error.filename or 'to the disk'} ({_one_line(error.strerror or error)})" if known else None
    code = tensorstore_errno(error)
    return f"to the disk ({os.strerror(code)})" if code in CANNOT_WRITE else None


def _one_line(message: object) -> str:
    return " ".join(str(message).split())
