"""A lock on a file: of many processes one at a time, on one machine or on a file system that they share."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import pathlib
from collections.abc import Iterator
from typing import TextIO

from drex_jax.common.errors import UserError
from drex_jax.devices import processes
from drex_jax.runs.layout import RunLayout

NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK)  # of a file system that knows none


@contextlib.contextmanager
def held(path: pathlib.Path, taken: str) -> Iterator[None]:
    """Nobody else is inside with the same file, which is there meanwhile. However a process ends, its lock goes.

    Raises:
      UserError: somebody else is; the message is `taken`.
      OSError: the file cannot be made.
    """
    while True:
        with path.open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(taken) from None
            except OSError as error:
                if error.errno not in NO_LOCKS:  # without locks each has to look at what is there
                    raise
            if not _is(path, file):  # who was here removed it between our two calls
                continue
            try:
                yield
            finally:
                with contextlib.suppress(OSError):
                    path.unlink()  # while it is ours
                    fcntl.flock(file, fcntl.LOCK_UN)  # a child forked meanwhile would go on holding it
            return


@contextlib.contextmanager
def sole_writer(workdir: pathlib.Path) -> Iterator[None]:
    """Nobody else trains in a run directory meanwhile, or writes its report. Of many processes the first locks for all.

    Raises:
      UserError: somebody else does.
    """
    if not processes.is_main_process():
        yield
        return
    made = not workdir.exists()
    workdir.mkdir(parents=True, exist_ok=True)
    try:
        with held(
            RunLayout(workdir).lock,
            f"{workdir} is in use: another process trains there or writes its report; wait until it has ended, "
            "or give another --workdir",
        ):
            yield
    finally:
        if made:  # and nothing was put there
            with contextlib.suppress(OSError):
                workdir.rmdir()


def _is(path: pathlib.Path, file: TextIO) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False
