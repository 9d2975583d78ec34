"""Locks between processes on one machine or on a shared file system, by an exclusively locked file."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import pathlib
from collections.abc import Generator
from typing import TextIO

from drex_jax.common.errors import UserError
from drex_jax.devices import processes
from drex_jax.runs.layout import RunLayout

NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK)  # errors of a file system without locks


@contextlib.contextmanager
def held(path: pathlib.Path, taken: str) -> Generator[None]:
    """Hold an exclusive lock on `path`, a file that exists while the lock is held. It is released at process exit, too.

    Args:
      path: the file.
      taken: the message if another process holds the lock.

    Raises:
      UserError: another process holds the lock.
      OSError: the file cannot be created.
    """
    while True:
        with path.open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(taken) from None
            except OSError as error:
                if error.errno not in NO_LOCKS:  # a file system without locks: go on without one
                    raise
            if not _is(path, file):  # the last holder removed the file between our two calls
                continue
            try:
                yield
            finally:
                with contextlib.suppress(OSError):
                    path.unlink()  # while we hold the lock
                    fcntl.flock(file, fcntl.LOCK_UN)  # otherwise a child process would keep the lock
            return


@contextlib.contextmanager
def sole_writer(workdir: pathlib.Path) -> Generator[None]:
    """Hold the lock of a run directory, for training or for writing its report.

    Of several processes of one run, the first holds the lock for all.

    Raises:
      UserError: another process trains there or writes its report.
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
        if made:  # and it is still empty
            with contextlib.suppress(OSError):
                workdir.rmdir()


def _is(path: pathlib.Path, file: TextIO) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False
