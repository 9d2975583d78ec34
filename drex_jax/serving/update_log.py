"""The updates that were committed to a run directory: a log of them, and the newest state of all that they change.

    updates.jsonl             a line for each committed update; that of the newest holds their SHA-256 as `saved`
    updates/N/interactions/   all interactions since training, in the order in which they were applied
    updates/N/rows/           the states of all users and items after them

A commit writes the folder N first, and then replaces `updates.jsonl` by one whose last line names N. Whenever a process
dies, a reader finds the old run or the new one. Unreferenced folders are ignored. A commit holds a lock on
`updates.lock` from reading the log to the rename; the lock ends with its process.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import itertools
import json
import pathlib
import shutil
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

import numpy as np

from drex_jax.common.digest import sha256_of
from drex_jax.common.errors import UserError
from drex_jax.common.files import MAX_JSON_BYTES, parsed, write_text
from drex_jax.data import storage
from drex_jax.data.interactions import Interactions
from drex_jax.models.protocol import States
from drex_jax.runs import lock
from drex_jax.runs.layout import RunLayout

SCHEMA = "rows 1"
KEYS = ("batch", "applied", "refused", "sha256")


@dataclasses.dataclass(frozen=True)
class PendingUpdate:
    """The new interactions since the last commit, as the log of commits records them.

    Attributes:
      applied: how many were applied.
      refused: how many were refused.
      sha256: fingerprints of the tables that were applied.
    """

    applied: int = 0
    refused: int = 0
    sha256: tuple[str, ...] = ()

    def plus(self, applied: int, refused: int, sha256: str | None) -> PendingUpdate:
        """Return the same with one more update; `sha256` is the fingerprint of its table, if it was one."""
        tables = self.sha256 if sha256 is None else (*self.sha256, sha256)
        return PendingUpdate(self.applied + applied, self.refused + refused, tables)


class Saved(NamedTuple):
    """What was committed last.

    Attributes:
      since: all interactions after training, in the order in which they were applied.
      states: the states of all users and items after them.
    """

    since: Interactions
    states: States


def batches(folder: pathlib.Path) -> list[dict[str, Any]]:
    """Return the lines of a run's `updates.jsonl`; none if the run was never updated.

    Raises:
      UserError: the log is damaged.
    """
    path = RunLayout(folder).updates_log
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise UserError(f"{path}: damaged; a line a batch makes no {path.stat().st_size:,} bytes")
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error})") from None
    return [_batch(path, number, line) for number, line in enumerate(lines, 1)]


def _batch(path: pathlib.Path, number: int, line: bytes) -> dict[str, Any]:
    """Return one line. Its number must be that of its batch, so the folder that it names is within the run."""
    found: Any = None
    with contextlib.suppress(ValueError):
        found = parsed(line)
    batch = cast(dict[str, Any], found) if isinstance(found, dict) else {}
    whole = batch.keys() >= set(KEYS) and isinstance(batch["sha256"], list)
    if not whole or (type(batch["batch"]), batch["batch"]) != (int, number):  # True is 1
        raise UserError(
            f"{path}, line {number}: damaged; it should be a JSON object with {' '.join(KEYS)}, of batch {number}"
        )
    return batch


def read(folder: pathlib.Path) -> tuple[list[dict[str, Any]], Saved | None]:
    """Return the batches of a run and what was committed last; no batches and None if the run was never updated.

    No lock is needed: if another process commits meanwhile, its commit is read.

    Raises:
      UserError: the log or the newest update is damaged.
    """
    while True:
        known = batches(folder)
        try:
            return known, _read(RunLayout(folder).updates, known[-1]) if known else None
        except UserError:
            if batches(folder) == known:
                raise


def require(folder: pathlib.Path, known: Sequence[Mapping[str, Any]]) -> None:
    """Require that a run has the batches that it had when it was loaded.

    Raises:
      UserError: another process has committed since.
    """
    found = batches(folder)
    if found != known:
        raise UserError(
            f"{folder} has {len(found)} updates, and had {len(known)} when it was loaded: somebody else has updated "
            "it; load it again and repeat the update"
        )


def commit(
    folder: pathlib.Path,
    known: Sequence[Mapping[str, Any]],
    pending: PendingUpdate,
    since: Interactions,
    states: States,
) -> list[dict[str, Any]]:
    """Commit an update, wholly or not at all.

    Args:
      folder: directory of the run.
      known: batches that the run had when it was loaded.
      pending: the update.
      since: as in `Saved`.
      states: as in `Saved`.

    Returns:
      All batches after the commit.

    Raises:
      UserError: another process has committed since the run was loaded, or is committing now.
      OSError: a file cannot be written; the run is as it was.
    """
    taken = f"{folder} is being updated by somebody else at this moment; load it again and repeat the update"
    with lock.held(RunLayout(folder).updates_lock, taken):
        require(folder, known)
        batch = len(known) + 1
        place = RunLayout(folder).updates / str(batch)
        shutil.rmtree(place, ignore_errors=True)  # left by a process that died
        since.save(place / "interactions")
        rows = {"user": np.asarray(states.user), "item": np.asarray(states.item)}
        storage.write_columns(place / "rows", {"schema": SCHEMA}, rows)
        at = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        facts = dataclasses.asdict(pending) | {"sha256": list(pending.sha256)}
        line: dict[str, Any] = {"batch": batch, "at": at} | facts | {f"{side}s": len(rows[side]) for side in rows}
        line["saved"] = _digest(Saved(since, States(**rows)))  # pyright: ignore[reportArgumentType]
        try:
            _read(RunLayout(folder).updates, line)
        except UserError as error:
            raise OSError(f"not written whole: {error}") from None
        now = [*map(dict, known), line]
        write_text(RunLayout(folder).updates_log, "".join(f"{json.dumps(each)}\n" for each in now))
        with contextlib.suppress(OSError):  # the update is committed; folders of older ones are ignored
            for other in RunLayout(folder).updates.iterdir():
                if other != place:
                    shutil.rmtree(other, ignore_errors=True)
        return now


def _read(folder: pathlib.Path, line: Mapping[str, Any]) -> Saved:
    """Return what a line of the log names. Lines of older versions have no digest to check."""
    place = folder / str(line["batch"])
    since = Interactions.load(place / "interactions")
    storage.read_header(place / "rows", SCHEMA)
    user, item = (storage.read_array(place / "rows", side, np.float32, 2) for side in ("user", "item"))
    saved = Saved(since, States(user, item))  # pyright: ignore[reportArgumentType] (NumPy's serve)
    if line.get("saved") not in (None, _digest(saved)):
        raise UserError(f"{place}: what is there is not what was saved, its SHA-256 is another; the update is damaged")
    return saved


def _digest(saved: Saved) -> str:
    states = ((f"{rows.dtype} {rows.shape}\n", rows) for rows in map(np.asarray, saved.states))
    return sha256_of([saved.since.sha256(), *itertools.chain.from_iterable(states)])
