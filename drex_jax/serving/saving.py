"""Saves a run with its updates: to its own directory, or to a copy of it."""

from __future__ import annotations

import os
import pathlib
import shutil
import stat
import tempfile
from typing import Any

from drex_jax.common.errors import UserError
from drex_jax.models.protocol import States
from drex_jax.runs.layout import RunLayout
from drex_jax.serving import update_log
from drex_jax.serving.finished_run import FinishedRun
from drex_jax.serving.update_log import PendingUpdate


def save_run(
    run: FinishedRun, folder: str | os.PathLike[str] | None, pending: PendingUpdate, states: States
) -> FinishedRun:
    """Save a run, all of it or nothing.

    Args:
      run: the run, whose log holds the update.
      folder: directory for a copy of the run, which must neither exist nor be within the run; None, or the run's own:
        the update is committed there.
      pending: the update; if it applied nothing, nothing is committed.
      states: the states of all users and items after the update.

    Returns:
      The run as it is saved.

    Raises:
      UserError: `folder` cannot be written, or the run's directory has changed since it was loaded; nothing was saved.
    """
    own = run.folder
    if folder is not None and not _is_path(folder):
        raise UserError(f"{folder!r} is no directory; name the run's own, {own}, or a new one")
    target = own if folder is None else pathlib.Path(folder)
    try:
        if not own.exists():
            raise UserError(f"{own}: the run directory is no longer there")
        if target.exists() and target.samefile(own):
            return run._replace(batches=_committed(run, own, pending, states))
        if target.exists() or target.is_symlink():
            raise UserError(f"{target} exists already; name the run's own directory, {own}, or a new one")
        if target.resolve().is_relative_to(own.resolve()):
            raise UserError(f"{target} is within the run directory {own}; name a new directory beside it")
        return _copied(run, target, pending, states)
    except OSError as error:
        raise UserError(f"{target}: cannot be written ({_reason(error)}); nothing was saved") from None


def _copied(run: FinishedRun, target: pathlib.Path, pending: PendingUpdate, states: States) -> FinishedRun:
    """Copy a run to a temporary directory beside `target`, commit there, and rename the directory."""
    layout = RunLayout(run.folder)
    left_out = (layout.checkpoints.name, layout.lock.name, layout.updates_lock.name)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as temporary:
        copy = pathlib.Path(temporary, "run")
        try:
            shutil.copytree(run.folder, copy, ignore=shutil.ignore_patterns(*left_out))
        finally:  # if no process has committed meanwhile, all files are of one moment
            update_log.require(run.folder, run.batches)
        for each in (copy, *filter(pathlib.Path.is_dir, copy.rglob("*"))):
            each.chmod(each.stat().st_mode | stat.S_IRWXU)  # the run may be read-only
        batches = _committed(run, copy, pending, states)
        copy.rename(target)
    return run._replace(folder=target, batches=batches)


def _committed(run: FinishedRun, folder: pathlib.Path, pending: PendingUpdate, states: States) -> list[dict[str, Any]]:
    """Commit an update in a folder, if it applied anything, and return the batches of the run."""
    if not pending.applied:
        return run.batches
    return update_log.commit(folder, run.batches, pending, run.log.since_table(), states)


def _is_path(folder: object) -> bool:
    return isinstance(folder, str | os.PathLike) and "\0" not in os.fspath(folder)


def _reason(error: OSError) -> str:
    """Return the cause of an error. Errors of NumPy have no number, and one of a copied tree holds a list of causes."""
    if isinstance(error, shutil.Error):
        _, _, reason = error.args[0][0]
        return str(reason)
    return error.strerror or f"not written whole: {error}"
