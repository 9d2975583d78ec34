"""Where what a finished run has learned is kept: its own directory, or a copy of it."""

from __future__ import annotations

import os
import pathlib
import shutil
import stat
import tempfile
from collections.abc import Mapping
from typing import Any

from drex_jax.common.errors import UserError
from drex_jax.models.protocol import States
from drex_jax.runs.layout import RunLayout
from drex_jax.serving import update_log
from drex_jax.serving.finished_run import FinishedRun


def save(
    run: FinishedRun, folder: str | os.PathLike[str] | None, carry: States, facts: Mapping[str, Any] | None
) -> FinishedRun:
    """Commits a batch, all of it or nothing.

    Args:
      run: the run, whose journal holds the batch.
      folder: where a copy is made, which must not exist and not be within the run; None, or the run's own: there.
      carry: everyone's rows after the batch.
      facts: of the batch, as `updates.commit` takes them; None: nothing has happened since the last commit.

    Returns:
      The run as it is saved.

    Raises:
      UserError: nothing can be written there, or the run's directory is no longer as it was loaded; nothing has
        changed then.
    """
    own = run.folder
    if folder is not None and (not isinstance(folder, str | os.PathLike) or "\0" in os.fspath(folder)):
        raise UserError(f"{folder!r} is no directory; name the run's own, {own}, or a new one")
    target = own if folder is None else pathlib.Path(folder)
    try:
        if not own.exists():
            raise UserError(f"{own}: the run directory is no longer there")
        if target.exists() and target.samefile(own):
            return run._replace(batches=_committed(run, own, carry, facts))
        if target.exists() or target.is_symlink():
            raise UserError(f"{target} exists already; name the run's own directory, {own}, or a new one")
        if target.resolve().is_relative_to(own.resolve()):
            raise UserError(f"{target} is within the run directory {own}; name a new directory beside it")
        return _copied(run, target, carry, facts)
    except OSError as error:
        raise UserError(f"{target}: cannot be written ({_reason(error)}); nothing was saved") from None


def _copied(run: FinishedRun, target: pathlib.Path, carry: States, facts: Mapping[str, Any] | None) -> FinishedRun:
    """A copy beside its place, which then takes its name."""
    layout = RunLayout(run.folder)
    left_out = (layout.checkpoints.name, layout.lock.name, layout.updates_lock.name)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as temporary:
        copy = pathlib.Path(temporary, "run")
        try:
            shutil.copytree(run.folder, copy, ignore=shutil.ignore_patterns(*left_out))
        finally:  # as long as nobody has committed, what is copied is of one moment
            update_log.require(run.folder, run.batches)
        for each in (copy, *filter(pathlib.Path.is_dir, copy.rglob("*"))):
            each.chmod(each.stat().st_mode | stat.S_IRWXU)  # the run may be one that cannot be written to
        batches = _committed(run, copy, carry, facts)
        copy.rename(target)
    return run._replace(folder=target, batches=batches)


def _committed(
    run: FinishedRun, folder: pathlib.Path, carry: States, facts: Mapping[str, Any] | None
) -> list[dict[str, Any]]:
    """The batches after a commit in a folder; those there are where there is nothing to commit."""
    if facts is None:
        return run.batches
    return update_log.commit(folder, run.batches, run.log.since_table(), carry, **facts)


def _reason(error: OSError) -> str:
    """What went wrong; NumPy's has no number, and that of a tree has a list."""
    if isinstance(error, shutil.Error):
        _, _, reason = error.args[0][0]
        return str(reason)
    return error.strerror or f"not written whole: {error}"
