"""`.npy` files that need not be trusted: never unpickled, and never more memory than the file has bytes."""

from __future__ import annotations

import tokenize
from pathlib import Path

import numpy as np

# What NumPy raises of a header that is none; it reads one as a literal, by `ast.literal_eval`.
NO_HEADER = (EOFError, TypeError, OverflowError, SyntaxError, tokenize.TokenError, RecursionError, MemoryError)


def mapped(path: Path) -> np.ndarray:
    """The array of a file that `numpy.save` wrote, memory-mapped: whatever its header claims, it ends with the file.

    Raises:
      OSError: the file cannot be read.
      ValueError: it is damaged, no such file or an archive of arrays, or holds Python objects.
    """
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except NO_HEADER as error:
        raise ValueError(str(error)) from error
    if not isinstance(array, np.ndarray):
        array.close()
        raise ValueError("an archive of arrays")
    return array
