"""Training checkpoints and finished models on disk (Orbax).

Everything is saved with the SHA-256 of its arrays, with their names, types and shapes, and of the numbers beside them.
The digest is checked on reading, so damage is found even where Orbax can still decode the files.
"""

from __future__ import annotations

import itertools
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

from drex_jax.common.digest import sha256_of
from drex_jax.common.errors import DivergedError, UserError
from drex_jax.devices import processes

LOGGER = logging.getLogger(__name__)
KEPT = 2  # number of newest checkpoints kept; each also holds the best parameters so far
PATIENT = ocp.options.AsyncOptions(  # Orbax aborts saves by wall-clock time, which may jump
    timeout_secs=4 * 10**9,
    create_directories_asynchronously=False,  # otherwise its writers wait for directories without a time limit
)
NO_DAMAGE = (jax.errors.JaxRuntimeError, MemoryError)  # errors of the machine, not of a file
DIGEST = "sha256"  # key of the digest beside the saved data
MAX_EXPANSION = 200  # arrays may be this many times larger than their files, which are compressed
EXPANDS_FREELY = 1 << 30  # bytes of arrays that are always allowed, however small the files


class Checkpoints:
    """The training checkpoints of one run. A context manager: leaving it waits for the last asynchronous save.

    Attributes:
      folder: the folder of the checkpoints.
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
        """Save a tree of arrays and a JSON dictionary under `step`, asynchronously.

        Raises:
          DivergedError: an array has a value that is not finite; the checkpoints are unchanged.
          RuntimeError: a checkpoint of this step exists.
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
        """Return the newest readable checkpoint as (step, arrays, facts); None without checkpoints.

        Unreadable steps are skipped with a warning and removed, so that they can be written again.

        Args:
          like: a tree of arrays with the expected shapes and types.

        Raises:
          UserError: there are checkpoints, but none is readable.
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
        """Return the contents of `step`; None, with a warning, if any process cannot read it."""
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
            except Exception as error:  # damaged files raise many different errors in Orbax
                fault = str(error).splitlines()[0] if str(error) else type(error).__name__
            if processes.agree(bool(fault))[0]:
                reason = fault or "another process cannot read it"
                LOGGER.warning("checkpoint %d of %s cannot be read and is skipped: %s", step, self.folder, reason)
                return None
        return restored


def _without_empty(tree: Any) -> Any:
    """Replace arrays without elements by None, because Orbax cannot save them."""
    return jax.tree.map(lambda leaf: leaf if leaf.size else None, tree)


def _with_empty(tree: Any, like: Any) -> Any:
    """Put the arrays without elements of `like` back into the tree."""
    present = iter(jax.tree.leaves(tree))
    return jax.tree.map(lambda leaf: next(present) if leaf.size else leaf, like)


def _check(target: Any, folder: pathlib.Path) -> None:
    """Raise ValueError if an array saved in `folder` has another type or shape than expected (Orbax casts silently)."""
    metadata = ocp.StandardCheckpointHandler().metadata(folder)  # pyright: ignore[reportArgumentType] (any path will do)
    _require_same(_leaves(metadata.tree), _leaves(target))


def _require_same(arrays: dict[str, Any], expected: dict[str, Any]) -> None:
    """Raise ValueError if arrays have other names, shapes or types than expected."""
    if arrays.keys() != expected.keys():
        raise ValueError(f"{' '.join(sorted(arrays.keys() ^ expected.keys()))}: not both there and expected")
    for name, wanted in expected.items():
        array = arrays[name]
        if (tuple(array.shape), array.dtype) != (wanted.shape, wanted.dtype):
            raise ValueError(f"{name}: {array.shape} {array.dtype} instead of {wanted.shape} {wanted.dtype}")


def _leaves(tree: Any) -> dict[str, Any]:
    """Return the leaves of a tree by dotted name; fields of named tuples and keys of dictionaries look the same."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}


def _values(arrays: Any) -> dict[str, np.ndarray]:
    """Return the arrays of a tree by name, gathered from all devices to the host."""
    return {name: processes.whole(leaf) for name, leaf in sorted(_leaves(arrays).items())}


def _digest(values: dict[str, np.ndarray]) -> str:
    """Return the SHA-256 of arrays with their names, types and shapes."""
    parts = ((f"{name} {value.dtype} {value.shape}\n", value) for name, value in values.items())
    return sha256_of(itertools.chain.from_iterable(parts))


def digest_of(arrays: Any) -> str:
    """Return the SHA-256 that is saved with a tree of arrays: of their names, types, shapes and values."""
    return _digest(_values(_without_empty(arrays)))


def _digest_of_facts(facts: Any) -> str:
    return sha256_of([json.dumps(facts, sort_keys=True)])


def _verified(restored: Any) -> Any:
    """Return `restored` if its digests are right, else raise ValueError."""
    content = restored["facts"]
    if not isinstance(content, dict) or content.keys() != {"facts", DIGEST}:
        raise ValueError("its facts are damaged, or of an older version")
    digests = {"arrays": digest_of(restored["arrays"]), "facts": _digest_of_facts(content["facts"])}
    if digests != content[DIGEST]:
        raise ValueError("what is there is not what was saved: the SHA-256 is another one")
    return restored


def save_model(folder: pathlib.Path, arrays: dict[str, Any]) -> None:
    """Write the arrays of the finished model atomically (Orbax renames a complete folder).

    All processes call this with the same arrays; the first one writes.
    """
    arrays = jax.device_get(_without_empty(arrays))
    arrays = arrays | {DIGEST: np.frombuffer(bytes.fromhex(digest_of(arrays)), np.uint8)}
    with ocp.StandardCheckpointer(async_options=PATIENT) as checkpointer:
        checkpointer.save(folder.resolve(), arrays, force=True)


def _unreadable(folder: pathlib.Path, error: Exception) -> UserError:
    reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
    return UserError(f"{folder}: no finished model can be read there ({reason})")


def _require_bounded(folder: pathlib.Path) -> None:
    """Raise ValueError if the arrays are too large for their files: an attack with compressed zeros."""
    saved = _leaves(ocp.StandardCheckpointHandler().metadata(folder.resolve()).tree)  # pyright: ignore[reportArgumentType]
    needed = sum(math.prod(leaf.shape) * np.dtype(leaf.dtype).itemsize for leaf in saved.values())
    there = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    if needed > max(EXPANDS_FREELY, MAX_EXPANSION * there):
        raise ValueError(f"{needed:,} bytes of arrays in {there:,} bytes of files")


def load_arrays(folder: pathlib.Path) -> Any:
    """Return the arrays of the finished model as nested dictionaries of NumPy arrays.

    Arrays from older versions have no digest, and are not checked.

    Raises:
      UserError: the folder is missing or damaged.
    """
    try:
        _require_bounded(folder)
        with ocp.StandardCheckpointer() as checkpointer:
            arrays = jax.device_get(checkpointer.restore(folder.resolve()))
        digest = arrays.pop(DIGEST, None)
        if digest is not None and digest.tobytes().hex() != digest_of(arrays):
            raise ValueError("what is there is not what was saved: the SHA-256 is another one")
    except NO_DAMAGE:
        raise
    except Exception as error:
        raise _unreadable(folder, error) from None
    return arrays


def in_form(arrays: Any, like: Any) -> Any:
    """Return the result of `load_arrays` with the classes of `like` in place of dictionaries; shapes may differ."""
    leaves = _leaves(arrays)
    paths, form = jax.tree_util.tree_flatten_with_path(like)
    names = [jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in paths]
    return jax.tree.unflatten(form, [leaves[name] for name in names])


def load_model(folder: pathlib.Path, like: Any) -> Any:
    """Return the arrays of the finished model in the structure of `like`.

    Raises:
      UserError: the folder is missing or damaged, or an array has another name, shape or type than in `like`.
    """
    arrays, expected = load_arrays(folder), _without_empty(like)
    try:
        _require_same(_leaves(arrays), _leaves(expected))
    except ValueError as error:
        raise _unreadable(folder, error) from None
    return _with_empty(jax.tree.map(jnp.asarray, in_form(arrays, expected)), like)
