"""Word pieces of reviews with the token features of a BERT, cached, for `text.bert.pooling=attention`."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np

from drex_jax.common.cache import Cache
from drex_jax.common.errors import UserError
from drex_jax.common.progress import progress_bar
from drex_jax.data import storage
from drex_jax.data.strings import Strings, allocate
from drex_jax.data.tokens import Tokens
from drex_jax.text.bert import BertEncoder
from drex_jax.text.bert.network import Architecture
from drex_jax.text.bert.wordpiece import CONTINUES, UNKNOWN
from drex_jax.text.vocabulary import Words, words_of

SCHEMA = "pieces-1"
PART = 512  # texts of a cache entry
VERSION = 1  # raise it when the cached values change


class WordPieces:
    """A vocabulary of word pieces, whose tokens have features from a frozen BERT.

    Attributes:
      model: function that returns the BERT, which is loaded at the first call; it may raise UserError.
      width: D, width of the features.
      learns: architecture of a BERT that is trained with the model; tokens then have no features. None: frozen.
    """

    def __init__(self, pieces: list[str], width: int, model: Callable[[], BertEncoder], learns: Architecture | None):
        """Store the word pieces. `pieces`: the spelling of each id; `model`: a function that loads the BERT."""
        self._pieces, self.width, self.learns = pieces, width, learns
        self.model = functools.cache(model)

    @classmethod
    def of(cls, model: BertEncoder, learns: bool = False) -> WordPieces:
        """Return the word pieces of a BERT. `learns`: it is trained with the model, instead of frozen."""
        return cls(model.tokenizer.pieces(), model.width, lambda: model, model.architecture if learns else None)

    def __len__(self) -> int:
        return len(self._pieces)

    def save(self, folder: pathlib.Path) -> None:
        """Write the spellings of the pieces atomically."""
        learns = None if self.learns is None else dataclasses.asdict(self.learns)
        header = {"schema": SCHEMA, "width": self.width, "learns": learns}
        storage.write_columns(folder, header, {"pieces": Strings.of(self._pieces)})

    @classmethod
    def load(cls, folder: pathlib.Path, model: Callable[[], BertEncoder]) -> WordPieces:
        """Read a folder of `save`. `model`: function that loads the BERT.

        Raises:
          UserError: the folder is missing or damaged.
        """
        header = storage.read_header(folder, SCHEMA)
        width, learns = header.get("width"), header.get("learns")
        if type(width) is not int:
            raise UserError(f"{folder}: damaged; its width is {width!r}")
        try:
            architecture = None if learns is None else Architecture(**learns)
        except TypeError:
            raise UserError(f"{folder}: damaged; its BERT is {learns!r}") from None
        return cls(list(storage.read_strings(folder, "pieces")), width, model, architecture)

    def encode(self, texts: Strings, max_tokens: int) -> Tokens:
        """Split texts into word pieces with [CLS] and [SEP], and with features; an empty text has no pieces.

        Raises:
          UserError: the model cannot be loaded, or cannot read `max_tokens` tokens.
        """
        present = np.flatnonzero(texts.lengths)
        features = None if self.learns else np.zeros((0, self.width), np.float16)
        if not len(present):  # the model is not needed
            pieces = Tokens(np.zeros(0, np.int32), np.zeros(1, np.int64), np.zeros(0, bool))
        elif self.learns:
            pieces = self.model().pieces(texts.take(present), max_tokens)
        else:
            pieces, values = self.model().encode_tokens(texts.take(present), max_tokens)
            features = values.astype(np.float16)
        lengths, cut = np.zeros(len(texts), np.int64), np.zeros(len(texts), bool)
        lengths[present], cut[present] = pieces.lengths, pieces.cut
        return Tokens(pieces.ids, np.concatenate([[0], np.cumsum(lengths)]), cut, features)

    def words(self, tokens: Tokens) -> Words:
        """Join the pieces of every text into words, like `Vocabulary.words`."""
        special = [piece.startswith("[") and piece.endswith("]") and len(piece) > 2 for piece in self._pieces]
        inside = [piece.startswith(CONTINUES) and len(piece) > len(CONTINUES) for piece in self._pieces]
        spellings = [
            " " if is_special else piece.removeprefix(CONTINUES) if is_inside else piece
            for piece, is_special, is_inside in zip(self._pieces, special, inside, strict=True)
        ]
        unknown = self._pieces.index(UNKNOWN) if UNKNOWN in self._pieces else -1
        if unknown >= 0:
            spellings[unknown] = ""
        return words_of(tokens, ~np.array(inside), spellings, unknown)


def tokens_of(
    words: WordPieces,
    texts: Strings,
    max_tokens: int,
    cache: Cache,
    scratch: pathlib.Path | None = None,
) -> Tokens:
    """Encode the texts of a whole table with `WordPieces.encode`, part by part.

    Args:
      words: the word pieces of the BERT.
      texts: the texts.
      max_tokens: longer texts are cut.
      cache: cache of the tokens of each part.
      scratch: as for `drex_jax.data.strings.allocate`.

    Raises:
      UserError: the model cannot be loaded, or cannot read `max_tokens` tokens.
    """
    model = words.model()
    options: dict[str, Any] = {"model": model.fingerprint, "dtype": model.dtype, "max_tokens": max_tokens}
    options, parts = options | {"features": not words.learns}, []
    with progress_bar("encoding reviews", len(texts), "texts") as bar:
        for begin in range(0, max(len(texts), 1), PART):
            part = texts.part(begin, begin + PART)

            def make(part: Strings = part) -> dict[str, Any]:
                return words.encode(part, max_tokens).columns()

            kept = cache("bert_tokens", {"data": part.data, "offsets": part.offsets}, options, VERSION, make)
            parts.append(Tokens(**kept))
            bar.update(len(part))
    if words.learns:
        return Tokens.concatenate(parts)
    total = sum(len(part.ids) for part in parts)
    features = allocate(total * model.width, np.float16, scratch).reshape(total, model.width)
    return Tokens.concatenate(parts, features=features)
