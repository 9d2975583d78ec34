"""Texts as word pieces, by the `tokenizers` library, from a model folder's `tokenizer.json` or `vocab.txt`."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from drex_jax.common.errors import UserError
from drex_jax.data.strings import Strings
from drex_jax.data.tokens import Tokens
from drex_jax.text.bert import weights

TOKENIZER, VOCABULARY, SETTINGS = "tokenizer.json", "vocab.txt", "tokenizer_config.json"
START, END, UNKNOWN = "[CLS]", "[SEP]", "[UNK]"
CONTINUES = "##"  # what a piece inside a word begins with
MAX_VOCABULARY_BYTES = 256 << 20
LONGEST_WORD = 100  # characters; a longer word is unknown
ENCODE_ROWS = 4096  # texts held as Python objects at once


class WordPiece:
    """The tokenizer of a model folder."""

    def __init__(self, tokenizer: Any, source: Path, vocabulary_size: int):
        """Use `read`. `source`: the file, for messages."""
        ids = [tokenizer.token_to_id(name) for name in (START, END)]
        for name, number in zip((START, END), ids, strict=True):
            if number is None:
                raise UserError(f"{source}: has no piece {name}, with which BERT begins or ends a text")
        highest = max(tokenizer.get_vocab(with_added_tokens=True).values())
        if highest >= vocabulary_size:
            raise UserError(
                f"{source}: has a piece {highest}, from 0, and {weights.CONFIG} says a vocab_size of {vocabulary_size}"
            )
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer, (self._start, self._end) = tokenizer, ids

    @classmethod
    def read(cls, folder: Path, vocabulary_size: int) -> tuple[WordPiece, tuple[Path, ...]]:
        """The tokenizer, and the files that it was made of.

        Raises:
          UserError: no file of a tokenizer is there, or it is damaged, no WordPiece, or larger than the model's table;
            the extra `bert` is not installed.
        """
        try:
            import tokenizers
        except ImportError:
            raise UserError("BERT needs the library tokenizers: pip install -e '.[bert]'") from None
        path = folder / TOKENIZER
        if path.exists():
            stated = weights.read_json(path)
            model = stated.get("model")
            kind = model.get("type") if isinstance(model, dict) else None
            if kind != "WordPiece":
                raise UserError(f"{path}: the tokenizer is {kind}; BERT's is WordPiece")
            if _has_key(stated, "Regex"):
                raise UserError(f"{path}: has a regular expression, which BERT's tokenizers do without, and is not run")
            try:
                return cls(tokenizers.Tokenizer.from_file(str(path)), path, vocabulary_size), (path,)
            except Exception as error:  # the library raises nothing narrower
                if isinstance(error, UserError):
                    raise
                raise UserError(f"{path}: damaged ({error})") from None
        path, settings = folder / VOCABULARY, folder / SETTINGS
        if not path.exists():
            raise UserError(f"{folder}: has no tokenizer: neither {TOKENIZER} nor {VOCABULARY} is there")
        stated = weights.read_json(settings) if settings.exists() else {}
        used = (path, settings) if settings.exists() else (path,)
        return cls(_from_words(_words(path), stated), path, vocabulary_size), used

    def pieces(self) -> list[str]:
        """What each id spells; an id that the vocabulary leaves out spells nothing."""
        known = self._tokenizer.get_vocab(with_added_tokens=True)
        spelt = [""] * (max(known.values()) + 1)
        for piece, number in known.items():
            spelt[number] = piece
        return spelt

    def encode(self, texts: Strings, max_tokens: int) -> Tokens:
        """The texts as pieces, each cut so that it has at most `max_tokens`, [CLS] and [SEP] among them."""
        room = max_tokens - 2
        parts, lengths, cut = [np.zeros(0, np.int32)], [np.zeros(0, np.int64)], [np.zeros(0, bool)]
        for begin in range(0, len(texts), ENCODE_ROWS):
            batch = [texts[row] for row in range(begin, min(begin + ENCODE_ROWS, len(texts)))]
            encoded = [each.ids for each in self._tokenizer.encode_batch_fast(batch, add_special_tokens=False)]
            framed: Sequence[list[int]] = [[self._start, *ids[:room], self._end] for ids in encoded]
            kept = np.array([len(ids) for ids in framed], np.int64)
            parts.append(np.fromiter(itertools.chain.from_iterable(framed), np.int32, kept.sum()))
            lengths.append(kept)
            cut.append(np.array([len(ids) > room for ids in encoded]))
        offsets = np.zeros(len(texts) + 1, np.int64)
        np.cumsum(np.concatenate(lengths), out=offsets[1:])
        return Tokens(np.concatenate(parts), offsets, np.concatenate(cut))


def _has_key(value: Any, key: str) -> bool:
    """Whether an object in a JSON value, the words of a vocabulary left out, has a key."""
    if isinstance(value, dict):
        return key in value or any(_has_key(inner, key) for name, inner in value.items() if name != "vocab")
    return isinstance(value, list) and any(_has_key(inner, key) for inner in value)


def _words(path: Path) -> dict[str, int]:
    try:
        if path.stat().st_size > MAX_VOCABULARY_BYTES:
            raise UserError(f"{path}: {path.stat().st_size:,} bytes; at most {MAX_VOCABULARY_BYTES:,} are read")
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error}); it should have a word piece a line") from None
    if lines[-1] == "":
        lines.pop()
    words = {line.rstrip("\r"): number for number, line in enumerate(lines)}
    if UNKNOWN not in words:
        raise UserError(f"{path}: has no piece {UNKNOWN}, which stands for what has none; is it the file of a BERT?")
    return words


def _from_words(words: dict[str, int], stated: dict[str, Any]) -> Any:
    """BERT's own tokenizer over a vocabulary, with the settings of a `tokenizer_config.json`."""
    import tokenizers

    model: Any = tokenizers.models.WordPiece  # pyright: ignore[reportAttributeAccessIssue] (a compiled module's)
    tokenizer = tokenizers.Tokenizer(model(words, unk_token=UNKNOWN, max_input_chars_per_word=LONGEST_WORD))
    tokenizer.normalizer = tokenizers.normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=bool(stated.get("tokenize_chinese_chars", True)),
        strip_accents=stated.get("strip_accents"),
        lowercase=bool(stated.get("do_lower_case", True)),
    )
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens([name for name in ("[PAD]", UNKNOWN, START, END, "[MASK]") if name in words])
    return tokenizer
