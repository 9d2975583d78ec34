"""Saving and restoring (Orbax): everything needed to continue, and the finished model.

What is saved carries the SHA-256 of its arrays, names, types and shapes included, and of the numbers beside them; what
is restored must have the same, so that damage which still decodes is damage all the same.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import pathlib
from types import TracebackType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from drex_jax.common.errors import DivergedError, UserError
from drex_jax.devices import processes

KEPT = 2  # the newest checkpoints kept; the best parameters travel inside each
PATIENT = ocp.options.AsyncOptions(  # Orbax gives saves up by the clock, which may jump: from 1970 to now, say
    timeout_secs=4 * 10**9,
    create_directories_asynchronously=False,  # or its writers wait for them, for as long as no option says
)
NO_DAMAGE = (jax.errors.JaxRuntimeError, MemoryError)  # what is wrong with the machine, and not with a file
DIGEST = "sha256"  # beside what it is of
MAX_EXPANSION = 200  # times that arrays may be larger than their files, which are compressed
EXPANDS_FREELY = 1 << 30  # bytes, however small the files are


class Checkpoints:
    """The training checkpoints of one run. A context manager: leaving it waits for the last asynchronous save.

    Attributes:
      folder: where they are.
    """

    def __init__(self, folder: pathlib.Path):
        options = ocp.CheckpointManagerOptions(max_to_keep=KEPT, create=True, async_options=PATIENT)
        self.folder = folder.resolve()
        if folder.exists() and not folder.is_dir():
            raise UserError(f"{folder}: is no folder; remove it, the run keeps its checkpoints there")
        self._manager = ocp.CheckpointManager(self.folder, options=options)

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._manager.close()

    def save(self, step: int, arrays: Any, facts: dict[str, Any]) -> None:
        """Saves a tree of arrays and a JSON dictionary under `step`; asynchronous.

        Raises:
          DivergedError: an array has a value that is not finite; the checkpoints are as they were.
          RuntimeError: the step is there already.
        """
        arrays = _without_empty(arrays)
        values = _values(arrays)
        for name, value in values.items():
            if jnp.issubdtype(value.dtype, jnp.inexact) and not np.isfinite(value).all():
                raise DivergedError(
                    f"{name} is not finite after step {step}, though its loss is: lower train.learning_rate or "
                    "train.clip_norm; the last good checkpoint is kept"
                )
        content = {"facts": facts, DIGEST: {"arrays": _digest(values), "facts": _digest_of_facts(facts)}}
        saved = self._manager.save(
            step, args=ocp.args.Composite(arrays=ocp.args.StandardSave(arrays), facts=ocp.args.JsonSave(content))
        )
        if not saved:
            raise RuntimeError(f"{self.folder}: step {step} was not saved: it exists")

    def restore(self, like: Any) -> tuple[int, Any, dict[str, Any]] | None:
        """The newest checkpoint that can be read: (step, arrays, facts); None if there is none.

        Steps that cannot be read are skipped with a warning that names them, and removed so that they can be written
        again.

        Args:
          like: a tree of arrays with the expected shapes and types.

        Raises:
          UserError: there are checkpoints, but none of them can be read.
        """
        steps = sorted(self._manager.all_steps(), reverse=True)
        target = jax.tree.map(ocp.utils.to_shape_dtype_struct, _without_empty(like))
        for step in steps:
            restored = self._restore(step, target)
            if restored is None:
                continue
            for newer in [other for other in steps if other > step]:
                self._manager.delete(newer)
            return step, _with_empty(restored["arrays"], like), restored["facts"]["facts"]
        if steps:
            raise UserError(
                f"{self.folder}: none of the checkpoints {steps} can be read; remove the folder to start over"
            )
        return None

    def _restore(self, step: int, target: Any) -> Any:
        """What was saved under `step`; None, with a warning, where it cannot be read (in many processes: by any)."""
        args = ocp.args.Composite(arrays=ocp.args.StandardRestore(target), facts=ocp.args.JsonRestore())
        restored = None
        for read in (
            lambda _: _check(target, self.folder / str(step) / "arrays"),
            lambda _: self._manager.restore(step, args=args),
            _verified,
        ):
            fault = ""
            try:
                restored = read(restored)
            except NO_DAMAGE:
                raise
            except Exception as error:  # what Orbax makes of damage is of any kind
                fault = str(error).splitlines()[0] if str(error) else type(error).__name__
            if processes.agree(bool(fault))[0]:
                reason = fault or "another process cannot read it"
                logging.warning("checkpoint %d of %s cannot be read and is skipped: %s", step, self.folder, reason)
                return None
        return restored


def _without_empty(tree: Any) -> Any:
    """The tree with None for arrays without elements, which Orbax cannot save."""
    return jax.tree.map(lambda leaf: leaf if leaf.size else None, tree)


def _with_empty(tree: Any, like: Any) -> Any:
    """The tree with the arrays without elements back in their places."""
    present = iter(jax.tree.leaves(tree))
    return jax.tree.map(lambda leaf: next(present) if leaf.size else leaf, like)


def _check(target: Any, folder: pathlib.Path) -> None:
    """Raises ValueError where an array saved in `folder` is of another type or shape (Orbax casts silently)."""
    metadata = ocp.StandardCheckpointHandler().metadata(folder)  # pyright: ignore[reportArgumentType] (any path will do)
    _require_same(_leaves(metadata.tree), _leaves(target))


def _require_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """Raises ValueError where arrays have other names, shapes or types than expected."""
    if found.keys() != expected.keys():
        raise ValueError(f"{' '.join(sorted(found.keys() ^ expected.keys()))}: not both there and expected")
    for name, one in expected.items():
        other = found[name]
        if (tuple(other.shape), other.dtype) != (one.shape, one.dtype):
            raise ValueError(f"{name}: {other.shape} {other.dtype} instead of {one.shape} {one.dtype}")


def _leaves(tree: Any) -> dict[str, Any]:
    """The leaves of a tree by their names, in which a tuple's field and a dictionary's key look alike."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}


def _values(arrays: Any) -> dict[str, np.ndarray]:
    """The arrays of a tree by their names, whole and on the host, whatever devices they are on."""
    return {name: processes.whole(leaf) for name, leaf in sorted(_leaves(arrays).items())}


def _digest(values: dict[str, np.ndarray]) -> str:
    """The SHA-256 of arrays, their names, types and shapes."""
    found = hashlib.sha256()
    for name, value in values.items():
        found.update(f"{name} {value.dtype} {value.shape}\n".encode())
        found.update(np.ascontiguousarray(value).reshape(-1).view(np.uint8).data)
    return found.hexdigest()


def _digest_of_facts(facts: Any) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _verified(restored: Any) -> Any:
    """What was restored. Raises ValueError where it is not what was saved."""
    content = restored["facts"]
    if not isinstance(content, dict) or content.keys() != {"facts", DIGEST}:
        raise ValueError("its facts are damaged, or of an older version")
    found = {"arrays": _digest(_values(restored["arrays"])), "facts": _digest_of_facts(content["facts"])}
    if found != content[DIGEST]:
        raise ValueError("what is there is not what was saved: the SHA-256 is another one")
    return restored


def save_model(folder: pathlib.Path, arrays: dict[str, Any]) -> None:
    """Writes the finished model's arrays (atomic: Orbax renames a complete folder into place).

    Called in all processes, which have the same arrays; the first writes.
    """
    arrays = jax.device_get(_without_empty(arrays))  # as they are to one process, whatever devices they are on
    arrays = arrays | {DIGEST: np.frombuffer(bytes.fromhex(_digest(_values(arrays))), np.uint8)}
    with ocp.StandardCheckpointer(async_options=PATIENT) as checkpointer:
        checkpointer.save(folder.resolve(), arrays, force=True)


def _unreadable(folder: pathlib.Path, error: Exception) -> UserError:
    reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
    return UserError(f"{folder}: no finished model can be read there ({reason})")


def _require_bounded(folder: pathlib.Path) -> None:
    """Raises ValueError where the arrays of a folder are too large for its files: zeros, made to fill memories."""
    saved = _leaves(ocp.StandardCheckpointHandler().metadata(folder.resolve()).tree)  # pyright: ignore[reportArgumentType]
    needed = sum(math.prod(leaf.shape) * np.dtype(leaf.dtype).itemsize for leaf in saved.values())
    there = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    if needed > max(EXPANDS_FREELY, MAX_EXPANSION * there):
        raise ValueError(f"{needed:,} bytes of arrays in {there:,} bytes of files")


def load_arrays(folder: pathlib.Path) -> Any:
    """The finished model's arrays as they were saved, dictionaries of NumPy arrays: for who has no model to say more.

    Those that an older version saved have no digest to check.

    Raises:
      UserError: the folder is missing or damaged.
    """
    try:
        _require_bounded(folder)
        with ocp.StandardCheckpointer() as checkpointer:
            arrays = jax.device_get(checkpointer.restore(folder.resolve()))
        said = arrays.pop(DIGEST, None)
        if said is not None and said.tobytes().hex() != _digest(_values(arrays)):
            raise ValueError("what is there is not what was saved: the SHA-256 is another one")
    except NO_DAMAGE:
        raise
    except Exception as error:
        raise _unreadable(folder, error) from None
    return arrays


def in_form(arrays: Any, like: Any) -> Any:
    """What `load_arrays` gave, with the classes of `like` in place of dictionaries; shapes may differ."""
    found = _leaves(arrays)
    paths, form = jax.tree_util.tree_flatten_with_path(like)
    names = [jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in paths]
    return jax.tree.unflatten(form, [found[name] for name in names])


def load_model(folder: pathlib.Path, like: Any) -> Any:
    """The finished model's arrays.

    Raises:
      UserError: the folder is missing or damaged, or its arrays have other names, shapes or types than those of `like`.
    """
    found, expected = load_arrays(folder), _without_empty(like)
    try:
        _require_same(_leaves(found), _leaves(expected))
    except ValueError as error:
        raise _unreadable(folder, error) from None
    return _with_empty(jax.tree.map(jnp.asarray, in_form(found, expected)), like)
