"""The test metrics by list in `lists/WAY.npz` of a seed's folder, for paired tests."""

from __future__ import annotations

import pathlib
import zipfile

import numpy as np

from drex_jax.common.errors import UserError
from drex_jax.common.files import replacing
from drex_jax.data import storage

Arrays = dict[str, np.ndarray]


def write_lists(path: pathlib.Path, arrays: Arrays) -> None:
    """Write the arrays of one way of evaluating (`drex_jax.evaluation.evaluator.Tested.lists`) atomically."""
    with replacing(path) as file:
        np.savez(file, **arrays)  # pyright: ignore[reportArgumentType] (of an option that newer versions have)


def read_lists(path: pathlib.Path) -> Arrays:
    """Return the arrays of a file of `write_lists`.

    Raises:
      UserError: the file is missing or damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
                raise ValueError("compressed")  # such arrays could be far larger than the file
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            lists = dict(arrays.items())
        if not all(isinstance(array, np.ndarray) for array in lists.values()):  # NumPy returns other members as bytes
            raise ValueError("not an array")
        return lists
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror or error}); a finished run has its lists there"
        ) from None
    except (ValueError, LookupError, AttributeError, RuntimeError, zipfile.BadZipFile, *storage.NO_HEADER):
        raise UserError(f"{path}: damaged; it should hold the lists that the run wrote") from None
