"""Room for arrays that may be too large for memory."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

MAP_FROM_BYTES = 256 << 20  # less is held in memory


def room(count: int, dtype: type, folder: str | Path | None = None) -> np.ndarray:
    """An array [count] to be written: in memory or, where it is large, mapped from a file without a name.

    Args:
      count: of its elements.
      dtype: theirs.
      folder: where such a file has its place, which the array's end frees; None: that of temporary files.
    """
    if count * np.dtype(dtype).itemsize < MAP_FROM_BYTES:
        return np.empty(count, dtype)
    with tempfile.TemporaryFile(dir=folder) as file:
        file.truncate(count * np.dtype(dtype).itemsize)
        return np.memmap(file, dtype, "r+", shape=(count,))
