"""Texts as token ids, end to end, with features of each token or without, in memory or in a folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from drex_jax.common.errors import UserError
from drex_jax.data import storage

SCHEMA = "tokens-1"


class Tokens(NamedTuple):
    """Texts as token ids, end to end.

    Attributes:
      ids: int32 [total], or uint16 where every id fits; possibly memory-mapped, as the others are.
      offsets: int64 [n + 1]; text i is `ids[offsets[i]:offsets[i + 1]]`, empty for a missing text.
      cut: bool [n]: the text was longer than the maximum.
      features: float16 [total, D]: what a frozen encoder says of each token; None where embeddings are learned.
    """

    ids: np.ndarray
    offsets: np.ndarray
    cut: np.ndarray
    features: np.ndarray | None = None

    @property
    def truncated(self) -> int:
        """How many texts were cut at the maximum."""
        return int(self.cut.sum())

    @property
    def lengths(self) -> np.ndarray:
        """int64 [n]: tokens of each text."""
        return np.diff(self.offsets)

    def part(self, begin: int, end: int) -> Tokens:
        """Texts [begin, end); their ids and features are views, not copies."""
        offsets = self.offsets[begin : end + 1]
        own = slice(offsets[0], offsets[-1])
        return Tokens(self.ids[own], offsets - offsets[0], self.cut[begin:end], self._features(own))

    @classmethod
    def concatenate(
        cls, parts: Sequence[Tokens], ids: np.ndarray | None = None, features: np.ndarray | None = None
    ) -> Tokens:
        """All texts of all parts, one at least, in order.

        Ids are written to `ids` [total], where given, and features, if there are any, to `features` [total, D].
        """
        offsets = np.concatenate([[0], np.cumsum(np.concatenate([part.lengths for part in parts]))])
        views = [part.ids[part.offsets[0] : part.offsets[-1]] for part in parts]
        written = np.concatenate(views, out=ids, casting="unsafe")
        given = [part.features[part.offsets[0] : part.offsets[-1]] for part in parts if part.features is not None]
        cut = np.concatenate([part.cut for part in parts])
        return cls(written, offsets, cut, np.concatenate(given, out=features) if given else None)

    def take(self, rows: np.ndarray) -> Tokens:
        """The texts at `rows` (int [m], any of them any number of times), as a copy."""
        rows = np.asarray(rows, np.int64)
        lengths = self.lengths[rows]
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        source = np.arange(offsets[-1]) + np.repeat(self.offsets[:-1][rows] - offsets[:-1], lengths)
        return Tokens(self.ids[source], offsets, self.cut[rows], self._features(source))

    def keep(self, kept: np.ndarray) -> Tokens:
        """The same texts with only those of their tokens that are `kept`, bool [total]."""
        offsets = np.concatenate([[0], np.cumsum(kept)])[self.offsets]
        return Tokens(self.ids[kept], offsets, self.cut, self._features(kept))

    def _features(self, tokens: slice | np.ndarray) -> np.ndarray | None:
        return None if self.features is None else self.features[tokens]

    def columns(self) -> dict[str, np.ndarray]:
        """The arrays there are, by name."""
        return {name: column for name, column in self._asdict().items() if column is not None}

    def save(self, folder: str | Path) -> None:
        """Writes a folder of .npy columns, whole or not at all."""
        header = {"schema": SCHEMA, "ids": self.ids.dtype.name, "features": self.features is not None}
        storage.write_columns(folder, header, self.columns())

    @classmethod
    def load(cls, folder: str | Path) -> Tokens:
        """Reads what `save` wrote; large columns are memory-mapped.

        Raises:
          UserError: a missing or damaged file, by its name.
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
