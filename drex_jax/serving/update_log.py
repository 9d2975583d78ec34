"""What updates leave in a run directory: one line a batch, and the newest state of everything that they move.

    updates.jsonl             a line for every batch that was committed; of the newest, `saved` is the SHA-256
    updates/N/interactions/   all rows since training, in the order in which they were applied
    updates/N/rows/           everyone's rows after them

A commit writes the folder N first and then, by one rename, `updates.jsonl`, whose last line names N: whenever a
process dies, a reader finds the old run or the new one. Folders that no line names are nobody's. Who commits holds a
lock on `updates.lock` from the look at what is there to the rename; it goes with the process that holds it.
"""

from __future__ import annotations

import contextlib
import datetime
import itertools
import json
import pathlib
import shutil
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

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


class Saved(NamedTuple):
    """What was committed last.

    Attributes:
      since: all rows after training, in the order in which they were applied.
      carry: everyone's rows after them.
    """

    since: Interactions
    carry: States


def batches(folder: pathlib.Path) -> list[dict[str, Any]]:
    """The lines of a run's `updates.jsonl`; empty where it was never updated.

    Raises:
      UserError: it is damaged.
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
    """One line. The batches are numbered from 1 on, and so the folder that it names is one of this run."""
    found: Any = None
    with contextlib.suppress(ValueError):
        found = parsed(line)
    whole = isinstance(found, dict) and found.keys() >= set(KEYS) and isinstance(found["sha256"], list)
    if not whole or (type(found["batch"]), found["batch"]) != (int, number):  # True is 1
        raise UserError(
            f"{path}, line {number}: damaged; it should be a JSON object with {' '.join(KEYS)}, of batch {number}"
        )
    return found


def read(folder: pathlib.Path) -> tuple[list[dict[str, Any]], Saved | None]:
    """The batches of a run and what was committed last; no batch and None where it was never updated.

    Needs no lock: where somebody commits meanwhile, what has been committed then is read.

    Raises:
      UserError: it is damaged.
    """
    while True:
        known = batches(folder)
        try:
            return known, _read(RunLayout(folder).updates, known[-1]) if known else None
        except UserError:
            if batches(folder) == known:
                raise


def require(folder: pathlib.Path, known: Sequence[Mapping[str, Any]]) -> None:
    """Makes sure that a run has the batches that it had when it was loaded.

    Raises:
      UserError: it has others.
    """
    found = batches(folder)
    if found != known:
        raise UserError(
            f"{folder} has {len(found)} updates, and had {len(known)} when it was loaded: somebody else has updated "
            "it; load it again and repeat the update"
        )


def commit(
    folder: pathlib.Path, known: Sequence[Mapping[str, Any]], since: Interactions, carry: States, **facts: Any
) -> list[dict[str, Any]]:
    """Makes a batch the newest of a run, wholly or not at all.

    Args:
      folder: the run's.
      known: the batches that it had when it was loaded.
      since: as in `Saved`, of all batches.
      carry: as in `Saved`.
      facts: of the batch: `applied`, `refused`, `sha256`.

    Returns:
      All batches now.

    Raises:
      UserError: somebody else has committed a batch since, or is at it.
      OSError: it cannot be written; the run is as it was.
    """
    taken = f"{folder} is being updated by somebody else at this moment; load it again and repeat the update"
    with lock.held(RunLayout(folder).updates_lock, taken):
        require(folder, known)
        batch = len(known) + 1
        place = RunLayout(folder).updates / str(batch)
        shutil.rmtree(place, ignore_errors=True)  # of somebody who died on the way
        since.save(place / "interactions")
        rows = {"user": np.asarray(carry.user), "item": np.asarray(carry.item)}
        storage.write_columns(place / "rows", {"schema": SCHEMA}, rows)
        at = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        line = {"batch": batch, "at": at, **facts, "users": len(rows["user"]), "items": len(rows["item"])}
        line["saved"] = _digest(Saved(since, States(**rows)))  # pyright: ignore[reportArgumentType]
        try:
            _read(RunLayout(folder).updates, line)
        except UserError as error:
            raise OSError(f"not written whole: {error}") from None
        now = [*map(dict, known), line]
        write_text(RunLayout(folder).updates_log, "".join(f"{json.dumps(each)}\n" for each in now))
        with contextlib.suppress(OSError):  # the batch is committed; what is left of older ones is nobody's
            for other in (RunLayout(folder).updates).iterdir():
                if other != place:
                    shutil.rmtree(other, ignore_errors=True)
        return now


def _read(folder: pathlib.Path, line: Mapping[str, Any]) -> Saved:
    """What a line of the log names. One that an older version wrote has no digest to check."""
    place = folder / str(line["batch"])
    since = Interactions.load(place / "interactions")
    storage.read_header(place / "rows", SCHEMA)
    user, item = (storage.read_array(place / "rows", side, np.float32, 2) for side in ("user", "item"))
    saved = Saved(since, States(user, item))  # pyright: ignore[reportArgumentType] (NumPy's serve)
    if line.get("saved") not in (None, _digest(saved)):
        raise UserError(f"{place}: what is there is not what was saved, its SHA-256 is another; the update is damaged")
    return saved


def _digest(saved: Saved) -> str:
    states = ((f"{rows.dtype} {rows.shape}\n", rows) for rows in map(np.asarray, saved.carry))
    return sha256_of([saved.since.sha256(), *itertools.chain.from_iterable(states)])
