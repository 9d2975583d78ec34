"""An array that grows along its first axis."""

from __future__ import annotations

from typing import Any

import numpy as np


class GrowingArray:
    """An array [n, ...] whose n may grow; its room at least doubles, so appending costs O(1) on average."""

    def __init__(self, values: np.ndarray, fill: Any = 0):
        """Copy `values`; `fill` is the value of rows that `resize` adds."""
        self._room, self._size, self._fill = np.array(values), len(values), fill

    def __len__(self) -> int:
        return self._size

    @property
    def values(self) -> np.ndarray:
        """All rows so far, as a view that later calls may change."""
        return self._room[: self._size]

    def resize(self, size: int) -> None:
        """Add rows of the fill value until there are `size`; an array that is as long already stays as it is."""
        if size > len(self._room):
            more = max(size, 2 * len(self._room), 16) - len(self._room)
            padding = [(0, more)] + [(0, 0)] * (self._room.ndim - 1)
            self._room = np.pad(self._room, padding, constant_values=self._fill)
        self._size = max(self._size, size)

    def extend(self, values: np.ndarray) -> None:
        """Append rows [m, ...]."""
        begin = self._size
        self.resize(begin + len(values))
        self._room[begin : self._size] = values
