"""Word pieces of reviews, each with what a BERT says of it: made once, kept, and made for new interactions."""

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
PART = 512  # texts an entry of the store
VERSION = 1  # of what is kept


class WordPieces:
    """Word pieces with what a frozen BERT says of each, as `Vocabulary` has subwords: `text.bert.pooling=attention`.

    Attributes:
      model: the BERT, loaded once, when it is first asked for; it may raise UserError.
      width: D of the features.
      learns: of the BERT that learns with the rest: texts are then pieces without features; None: it is frozen.
    """

    def __init__(self, pieces: list[str], width: int, model: Callable[[], BertEncoder], learns: Architecture | None):
        """`pieces`: what each id spells; `model`: loads the BERT."""
        self._pieces, self.width, self.learns = pieces, width, learns
        self.model = functools.cache(model)

    @classmethod
    def of(cls, model: BertEncoder, learns: bool = False) -> WordPieces:
        """Those of a model, which learns with the rest or is frozen."""
        return cls(model.tokenizer.pieces(), model.width, lambda: model, model.architecture if learns else None)

    def __len__(self) -> int:
        return len(self._pieces)

    def save(self, folder: pathlib.Path) -> None:
        """Writes what the pieces spell, whole or not at all."""
        learns = None if self.learns is None else dataclasses.asdict(self.learns)
        header = {"schema": SCHEMA, "width": self.width, "learns": learns}
        storage.write_columns(folder, header, {"pieces": Strings.of(self._pieces)})

    @classmethod
    def load(cls, folder: pathlib.Path, model: Callable[[], BertEncoder]) -> WordPieces:
        """Reads what `save` wrote.

        Raises:
          UserError: it is missing or damaged.
        """
        header = storage.read_header(folder, SCHEMA)
        width, learns = header.get("width"), header.get("learns")
        if type(width) is not int:
            raise UserError(f"{folder}: damaged; its width is {width!r}")
        try:
            architecture = None if learns is None else Architecture(**learns)
        except TypeError:
            raise UserError(f"{folder}: damaged; it says of the BERT that learns {learns!r}") from None
        return cls(list(storage.read_strings(folder, "pieces")), width, model, architecture)

    def encode(self, texts: Strings, max_tokens: int) -> Tokens:
        """The texts as word pieces, [CLS] and [SEP] among them, with features; an empty text has none.

        Raises:
          UserError: the model cannot be had, or cannot read `max_tokens`.
        """
        present = np.flatnonzero(texts.lengths)
        features = None if self.learns else np.zeros((0, self.width), np.float16)
        if not len(present):  # nothing that needs the model
            pieces = Tokens(np.zeros(0, np.int32), np.zeros(1, np.int64), np.zeros(0, bool))
        elif self.learns:
            pieces = self.model().pieces(texts.take(present), max_tokens)
        else:
            pieces, found = self.model().encode_tokens(texts.take(present), max_tokens)
            features = found.astype(np.float16)
        lengths, cut = np.zeros(len(texts), np.int64), np.zeros(len(texts), bool)
        lengths[present], cut[present] = pieces.lengths, pieces.cut
        return Tokens(pieces.ids, np.concatenate([[0], np.cumsum(lengths)]), cut, features)

    def words(self, tokens: Tokens) -> Words:
        """Joins the pieces of every text into words, as `Vocabulary.words` does."""
        special = [piece.startswith("[") and piece.endswith("]") and len(piece) > 2 for piece in self._pieces]
        inside = [piece.startswith(CONTINUES) and len(piece) > len(CONTINUES) for piece in self._pieces]
        spellings = [
            " " if own else piece.removeprefix(CONTINUES) if within else piece
            for piece, own, within in zip(self._pieces, special, inside, strict=True)
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
    """The texts of a whole table as `WordPieces.encode` gives them, part by part.

    Args:
      words: of the model.
      texts: any number of them.
      max_tokens: longer ones are cut.
      cache: keeps each part.
      scratch: as for `drex_jax.data.strings.allocate`.

    Raises:
      UserError: the model cannot be had, or cannot read `max_tokens` tokens.
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
