"""Subwords: a sentencepiece unigram vocabulary, texts as token ids, and the words that tokens form."""

from __future__ import annotations

import dataclasses
import html
import io
import itertools
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import sentencepiece

from drex_jax.common.cache import Cache, no_cache
from drex_jax.common.cores import available_cores
from drex_jax.common.digest import sha256_of
from drex_jax.common.errors import UserError
from drex_jax.common.foreign_messages import smallest_vocabulary
from drex_jax.common.progress import progress_bar
from drex_jax.data.strings import Strings, allocate
from drex_jax.data.tokens import Tokens

PADDING = 0
UNKNOWN = 1
MAX_TRAINING_BYTES = 20_000_000  # about 40,000 reviews; more text changes the pieces little and takes minutes
THREADS = 2  # of training; fixed, because the number changes the trained model
PART_ROWS = 65_536  # texts that are encoded and cached together
MAX_BYTES = 256 << 20  # size limit of a model file
VERSION = 1  # raise it when the same texts and vocabulary give other tokens
ENCODE_ROWS = 20_000  # texts held as Python objects at once
_SPACE = "\u2581"  # marks the start of a word in sentencepiece
_JOINERS = "'\u2019-"  # part of a word: don't, well-made


class Words(NamedTuple):
    """The whole words that tokens form.

    Attributes:
      word: int32 [total], the number of the word that each token belongs to; -1 for punctuation and unknown pieces.
      first: bool [total], true if the token begins an occurrence of its word.
      names: the words by number: distinct, in lower case, without surrounding punctuation.
    """

    word: np.ndarray
    first: np.ndarray
    names: list[str]


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """A trained sentencepiece model. Id 0 is padding, id 1 the unknown piece.

    Text is case-folded, and HTML entities such as `&#34;`, which are common in review files, are decoded.

    Attributes:
      model: the serialized model.
      fitted_on: the fingerprint of the texts that it was trained on (`fingerprint`); empty for a loaded vocabulary.
    """

    model: bytes = dataclasses.field(repr=False)
    fitted_on: str = dataclasses.field(default="", compare=False)

    def __post_init__(self) -> None:
        processor = sentencepiece.SentencePieceProcessor()
        processor.LoadFromSerializedProto(self.model)
        object.__setattr__(self, "_processor", processor)

    def __len__(self) -> int:
        return self._pieces.GetPieceSize()

    @property
    def _pieces(self) -> sentencepiece.SentencePieceProcessor:
        return self.__dict__["_processor"]

    def save(self, path: str | Path) -> None:
        """Write the model to a file."""
        Path(path).write_bytes(self.model)

    @classmethod
    def load(cls, path: str | Path) -> Vocabulary:
        """Read a file of `save`. Raises UserError if it is missing or damaged."""
        try:
            if Path(path).stat().st_size > MAX_BYTES:
                raise UserError(f"{path}: damaged vocabulary; it has more than {MAX_BYTES:,} bytes")
            vocabulary = cls(Path(path).read_bytes())
        except OSError as error:
            raise UserError(
                f"{path}: cannot read the vocabulary ({error.strerror}); expected a file of save()"
            ) from None
        except RuntimeError:
            raise UserError(f"{path}: damaged vocabulary; expected a sentencepiece model as save() writes it") from None
        if len(vocabulary) <= UNKNOWN or vocabulary._pieces.pad_id() != PADDING:
            raise UserError(f"{path}: no vocabulary of this package; expected a sentencepiece model with padding id 0")
        return vocabulary

    def encode(self, texts: Strings, max_tokens: int) -> Tokens:
        """Split texts into token ids; a text is cut before the first word that does not fit into `max_tokens`.

        Only a first word longer than `max_tokens` is cut inside.

        Raises:
          ValueError: `max_tokens` is not positive.
        """
        if max_tokens < 1:
            raise ValueError(f"max_tokens must be at least 1, got {max_tokens}")
        begins_word = np.array([self._pieces.IdToPiece(i).startswith(_SPACE) for i in range(len(self))])
        parts, lengths, cut = [np.zeros(0, np.int32)], [np.zeros(0, np.int64)], [np.zeros(0, bool)]
        for begin in range(0, len(texts), ENCODE_ROWS):
            batch = [html.unescape(texts[row]) for row in range(begin, min(begin + ENCODE_ROWS, len(texts)))]
            encoded = self._pieces.encode(batch, out_type=int, num_threads=available_cores())
            full = np.array([len(ids) for ids in encoded], np.int64)
            ids = np.fromiter(itertools.chain.from_iterable(encoded), np.int32, full.sum())
            kept = _cut_at_word(begins_word[ids], full, max_tokens)
            starts = np.cumsum(full) - full
            within = np.arange(len(ids)) - np.repeat(starts, full)
            parts.append(ids[within < np.repeat(kept, full)])
            lengths.append(kept)
            cut.append(full > max_tokens)
        offsets = np.zeros(len(texts) + 1, np.int64)
        np.cumsum(np.concatenate(lengths), out=offsets[1:])
        return Tokens(np.concatenate(parts), offsets, np.concatenate(cut))

    def words(self, tokens: Tokens) -> Words:
        """Join the pieces of every token sequence into words.

        A word begins at a space, at the start of a text or after punctuation; apostrophes and hyphens inside a word
        belong to it. A word with an unknown piece has number -1.
        """
        pieces = [self._pieces.IdToPiece(i) for i in range(len(self))]
        spaced = np.array([piece.startswith(_SPACE) for piece in pieces])
        spellings = [piece.replace(_SPACE, "") for piece in pieces]
        spellings[PADDING] = spellings[UNKNOWN] = ""
        return words_of(tokens, spaced, spellings, UNKNOWN)


def words_of(tokens: Tokens, spaced: np.ndarray, spellings: list[str], unknown: int) -> Words:
    """Join the pieces of every token sequence into words.

    Args:
      tokens: token ids below V.
      spaced: bool [V], true if the piece begins a word.
      spellings: the spellings of V pieces without space marks; pieces without a letter or digit separate words.
      unknown: the unknown piece; a word with it has number -1.
    """
    separates = np.array([_separates(spelling) for spelling in spellings])
    ids, total = tokens.ids, len(tokens.ids)
    separator = separates[ids]
    first = spaced[ids]
    first[tokens.offsets[:-1][tokens.lengths > 0]] = True
    first[1:] |= separator[:-1]
    first &= ~separator
    starts = np.flatnonzero(first)
    lengths = np.zeros(len(starts), np.int64)
    occurrence = np.cumsum(first) - 1
    inside = np.flatnonzero(~separator)
    np.add.at(lengths, occurrence[inside], 1)
    distinct, kinds = _distinct_sequences(ids, starts, lengths, len(spellings))
    names, number = _names(distinct, spellings, unknown)
    word = np.full(total, -1, np.int32)
    word[inside] = number[kinds][occurrence[inside]]
    return Words(word, first & (word >= 0), names)


def tokens_of(
    vocabulary: Vocabulary,
    texts: Strings,
    max_tokens: int,
    cache: Cache = no_cache,
    scratch: str | Path | None = None,
) -> Tokens:
    """Encode the texts of a whole table with `Vocabulary.encode`, part by part, on all cores.

    Args:
      vocabulary: the vocabulary, fitted on train texts.
      texts: the texts.
      max_tokens: longer texts are cut.
      cache: cache of the tokens of each part, used if there are several parts.
      scratch: as for `drex_jax.data.strings.allocate`.
    """
    forget = len(texts) <= PART_ROWS
    model = sha256_of([vocabulary.model])
    parts = []
    with progress_bar("splitting into tokens", len(texts), "texts") as bar:
        for begin in range(0, max(len(texts), 1), PART_ROWS):
            part = texts.part(begin, begin + PART_ROWS)
            kept = (no_cache if forget else cache)(
                "tokens",
                {"bytes": part.data, "offsets": part.offsets},
                {"vocabulary": model, "max_tokens": max_tokens},
                VERSION,
                lambda part=part: vocabulary.encode(part, max_tokens).columns(),
            )
            parts.append(Tokens(**kept))
            bar.update(len(part))
    kind = np.uint16 if len(vocabulary) <= 1 << 16 else np.int32
    return Tokens.concatenate(parts, allocate(sum(len(part.ids) for part in parts), kind, scratch))


def train(
    texts: Strings, size: int, *, rows: np.ndarray | None = None, max_bytes: int = MAX_TRAINING_BYTES
) -> Vocabulary | None:
    """Train a unigram vocabulary of at most `size` pieces. Equal texts give an equal vocabulary.

    Args:
      texts: the texts.
      rows: int [m], ascending, the texts to train on; None: all. Above `max_bytes` bytes a fixed random sample is used.
      size: number of pieces, with padding and unknown; a small corpus gives fewer.
      max_bytes: limit of the UTF-8 text to train on.

    Returns:
      The vocabulary, or None if no text has a visible character: such data have no text modality.

    Raises:
      UserError: `size` is too small to hold the characters of the texts.
    """
    rows = _sample(texts, np.arange(len(texts)) if rows is None else rows, max_bytes)

    def sentences() -> Iterator[str]:
        # Sentencepiece skips long sentences and ends a sentence at a line feed, so it gets short lines.
        for row in rows:
            text = " ".join(html.unescape(texts[int(row)]).split())
            yield from (text[begin : begin + 1000] for begin in range(0, len(text), 1000))

    if not any(character.isprintable() and character not in " " + _SPACE for line in sentences() for character in line):
        return None
    if size < 1:
        raise UserError(f"text.vocabulary_size={size} is not a size; expected a positive integer such as 8000")
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.Train(
            sentence_iterator=sentences(),
            model_writer=model,
            model_type="unigram",
            vocab_size=size,
            hard_vocab_limit=False,
            normalization_rule_name="nmt_nfkc_cf",
            pad_id=PADDING,
            unk_id=UNKNOWN,
            bos_id=-1,
            eos_id=-1,
            num_threads=THREADS,
            minloglevel=2,
        )
    except RuntimeError as error:
        needed = smallest_vocabulary(error)
        remedy = "use a larger one" if needed is None else f"use at least {needed}"
        raise UserError(f"text.vocabulary_size={size} cannot hold the texts' different characters; {remedy}") from None
    return Vocabulary(model.getvalue(), _digest(texts, rows))


def fingerprint(texts: Strings) -> str:
    """Return the SHA-256 of the texts that `train` would train on, given these texts."""
    return _digest(texts, _sample(texts, np.arange(len(texts)), MAX_TRAINING_BYTES))


def _sample(texts: Strings, rows: np.ndarray, max_bytes: int) -> np.ndarray:
    """Return the rows to train on, ascending: all with a text, or a fixed random sample of at most `max_bytes`."""
    rows = rows[texts.lengths[rows] > 0]
    if texts.lengths[rows].sum() > max_bytes:
        order = np.random.default_rng(0).permutation(rows)
        rows = np.sort(order[np.cumsum(texts.lengths[order]) <= max_bytes])
    return rows


def _digest(texts: Strings, rows: np.ndarray) -> str:
    learned = texts.take(rows)
    return sha256_of([learned.offsets, learned.data])


def _separates(spelling: str) -> bool:
    """Return True if a piece (without its space mark) is punctuation between words."""
    if any(character.isalpha() for character in spelling):
        return False
    return not all(
        character.isalnum() or character in _JOINERS or unicodedata.category(character).startswith("M")
        for character in spelling
    )


def _cut_at_word(begins_word: np.ndarray, lengths: np.ndarray, max_tokens: int) -> np.ndarray:
    """Return the number of tokens to keep of each text, int64 [n]: all, or up to the last word that fits."""
    kept = np.minimum(lengths, max_tokens)
    long = np.flatnonzero(lengths > max_tokens)
    starts = (np.cumsum(lengths) - lengths)[long]
    last_begin = np.maximum.accumulate(np.where(begins_word, np.arange(len(begins_word)), -1))
    whole = last_begin[starts + max_tokens] - starts
    kept[long] = np.where(whole > 0, whole, max_tokens)
    return kept


def _distinct_sequences(
    ids: np.ndarray, starts: np.ndarray, lengths: np.ndarray, vocabulary_size: int
) -> tuple[list[tuple[int, ...]], np.ndarray]:
    """Number the distinct sequences `ids[start:start + length]`: (the sequences, int64 [occurrences] their numbers).

    There is one pass for each position, over the sequences that reach it: a prefix and an id give a longer prefix.
    """
    prefixes: list[tuple[int, ...]] = [()]
    kinds = np.zeros(len(starts), np.int64)
    active = np.flatnonzero(lengths > 0)
    position = 0
    while len(active):
        unique, inverse = np.unique(
            kinds[active] * vocabulary_size + ids[starts[active] + position], return_inverse=True
        )
        kinds[active] = inverse + len(prefixes)
        prefixes += [(*prefixes[pair // vocabulary_size], pair % vocabulary_size) for pair in unique.tolist()]
        position += 1
        active = active[lengths[active] > position]
    used, numbers = np.unique(kinds, return_inverse=True)
    return [prefixes[kind] for kind in used], numbers


def _names(sequences: list[tuple[int, ...]], spellings: list[str], unknown: int) -> tuple[list[str], np.ndarray]:
    """Return the distinct words of piece sequences, and the number of each word, int32 [sequences]; -1 for none."""
    spelt = [
        "" if unknown in sequence else "".join(spellings[piece] for piece in sequence).strip(_JOINERS + "_").lower()
        for sequence in sequences
    ]
    names = sorted(set(spelt) - {""})
    numbers = {name: number for number, name in enumerate(names)} | {"": -1}
    return names, np.array([numbers[name] for name in spelt], np.int32)
