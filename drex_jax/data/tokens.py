"""Texts as token ids, end to end, optionally with features of each token, in memory or in a folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from drex_jax.common.errors import UserError
from drex_jax.data import storage
from drex_jax.data.strings import offsets_of

SCHEMA = "tokens-1"


class Tokens(NamedTuple):
    """Texts as token ids, end to end.

    Attributes:
      ids: int32 [total], or uint16 if every id fits; like the other arrays possibly memory-mapped.
      offsets: int64 [n + 1]; text i is `ids[offsets[i]:offsets[i + 1]]`, empty for a missing text.
      cut: bool [n]; True if the text was longer than the maximum.
      features: features of each token from a frozen encoder, float16 [total, D]; None if embeddings are learned.
    """

    ids: np.ndarray
    offsets: np.ndarray
    cut: np.ndarray
    features: np.ndarray | None = None

    @property
    def truncated(self) -> int:
        """Number of texts that were cut at the maximum."""
        return int(self.cut.sum())

    @property
    def lengths(self) -> np.ndarray:
        """Number of tokens of each text, int64 [n]."""
        return np.diff(self.offsets)

    def part(self, begin: int, end: int) -> Tokens:
        """Return the texts [begin, end); their ids and features are views, not copies."""
        offsets = self.offsets[begin : end + 1]
        span = slice(offsets[0], offsets[-1])
        return Tokens(self.ids[span], offsets - offsets[0], self.cut[begin:end], self._features(span))

    @classmethod
    def concatenate(
        cls, parts: Sequence[Tokens], ids: np.ndarray | None = None, features: np.ndarray | None = None
    ) -> Tokens:
        """Return all texts of all parts, in order.

        Args:
          parts: at least one part.
          ids: array [total] that receives the ids; None: a new array.
          features: array [total, D] that receives the features, if there are any; None: a new array.
        """
        offsets = offsets_of(np.concatenate([part.lengths for part in parts]))
        views = [part.ids[part.offsets[0] : part.offsets[-1]] for part in parts]
        written = np.concatenate(views, out=ids, casting="unsafe")
        given = [part.features[part.offsets[0] : part.offsets[-1]] for part in parts if part.features is not None]
        cut = np.concatenate([part.cut for part in parts])
        return cls(written, offsets, cut, np.concatenate(given, out=features) if given else None)

    def take(self, rows: np.ndarray) -> Tokens:
        """Return a copy of the texts at `rows` (int [m], repeats allowed)."""
        rows = np.asarray(rows, np.int64)
        lengths = self.lengths[rows]
        offsets = offsets_of(lengths)
        source = np.arange(offsets[-1]) + np.repeat(self.offsets[:-1][rows] - offsets[:-1], lengths)
        return Tokens(self.ids[source], offsets, self.cut[rows], self._features(source))

    def keep(self, kept: np.ndarray) -> Tokens:
        """Return the same texts with only those of their tokens that are `kept`, bool [total]."""
        offsets = offsets_of(kept)[self.offsets]
        return Tokens(self.ids[kept], offsets, self.cut, self._features(kept))

    def _features(self, tokens: slice | np.ndarray) -> np.ndarray | None:
        return None if self.features is None else self.features[tokens]

    def columns(self) -> dict[str, np.ndarray]:
        """Return the arrays by name; absent features are omitted."""
        return {name: column for name, column in self._asdict().items() if column is not None}

    def save(self, folder: str | Path) -> None:
        """Write a folder of .npy columns, atomically."""
        header = {"schema": SCHEMA, "ids": self.ids.dtype.name, "features": self.features is not None}
        storage.write_columns(folder, header, self.columns())

    @classmethod
    def load(cls, folder: str | Path) -> Tokens:
        """Read a folder written by `save`; large columns are memory-mapped.

        Raises:
          UserError: a file is missing or damaged; the message names it.
        """
        header = storage.read_header(folder, SCHEMA)
        kind = header.get("ids")
        types = {"uint16": np.uint16, "int32": np.int32}
        if kind not in types:
            raise UserError(f"{Path(folder) / 'columns.json'}: damaged (ids of type {kind!r})")
        tokens = cls(
            storage.read_array(folder, "ids", types[kind]),
            storage.read_array(folder, "offsets", np.int64),
            storage.read_array(folder, "cut", np.bool_),
            storage.read_array(folder, "features", np.float16, 2) if header.get("features") else None,
        )
        ends = tokens.offsets[[0, -1]].tolist() if len(tokens.offsets) else []
        sizes = {len(tokens.ids), len(tokens.ids if tokens.features is None else tokens.features)}
        if ends != [0, len(tokens.ids)] or len(tokens.cut) != len(tokens.offsets) - 1 or len(sizes) > 1:
            raise UserError(f"{Path(folder) / 'offsets.npy'}: does not fit its tokens; the run directory is damaged")
        return tokens
