"""How a command ends: what it raises becomes one line for its user and an exit status."""

from __future__ import annotations

import errno
import os
import re
import sys
import traceback
from collections.abc import Callable

from drex_jax.errors import Stopped, UserError

DONE, BUG, MISTAKE, STOPPED = 0, 1, 2, 75
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
_CUT_SHORT = re.compile(r"\d+ requested and \d+ written")  # NumPy's, which has no number


def status_of(work: Callable[[], None]) -> int:
    """Does `work` and returns the exit status; what the user has to know is told in one line."""
    try:
        work()
    except UserError as error:
        print(f"drex_jax: {_one_line(error)}", file=sys.stderr)
        return MISTAKE
    except BrokenPipeError:  # whoever read the answer has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # so that the interpreter's last flush is silent
    except OSError as error:
        if error.errno not in NO_ROOM and not (error.errno is None and _CUT_SHORT.search(str(error))):
            raise
        print(
            f"drex_jax: cannot write {error.filename or 'to the disk'} ({error.strerror or error}); "
            "make room or give another --workdir, then run the same command",
            file=sys.stderr,
        )
        return MISTAKE
    except Stopped as stop:
        print(f"drex_jax: {_one_line(stop)}", file=sys.stderr)
        return STOPPED
    return DONE


def as_one_of_many(work: Callable[[], int]) -> int:
    """The exit status of `work`; where it fails in one process of many, the others end with it."""
    try:
        status = work()
    except Exception:
        traceback.print_exc()
        status = BUG
    joined = sys.modules.get("drex_jax.processes")  # not yet there where the flags are wrong
    if status != DONE and joined is not None:
        joined.leave(status)
    return status


def _one_line(message: object) -> str:
    return " ".join(str(message).split())
