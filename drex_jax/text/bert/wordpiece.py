"""The WordPiece tokenizer of a model folder (`tokenizer.json` or `vocab.txt`), run by the `tokenizers` library."""

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
CONTINUES = "##"  # prefix of a piece that continues a word
MAX_VOCABULARY_BYTES = 256 << 20
LONGEST_WORD = 100  # characters; a longer word is unknown
ENCODE_ROWS = 4096  # texts held as Python objects at once


class WordPiece:
    """The tokenizer of a model folder."""

    def __init__(self, tokenizer: Any, source: Path, vocabulary_size: int):
        """Use `read` instead. `source`: the file, for error messages."""
        ids = [tokenizer.token_to_id(name) for name in (START, END)]
        for name, number in zip((START, END), ids, strict=True):
            if number is None:
                raise UserError(f"{source}: has no piece {name}, which BERT needs to begin or end a text")
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
        """Return the tokenizer of a folder, and the files that it was read from.

        Raises:
          UserError: the tokenizer is missing, damaged, not a WordPiece tokenizer, or larger than the model's table, or
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
                raise UserError(f"{path}: has a regular expression; BERT's tokenizers have none, so it is not run")
            try:
                return cls(tokenizers.Tokenizer.from_file(str(path)), path, vocabulary_size), (path,)
            except Exception as error:  # the library has no narrower class
                if isinstance(error, UserError):
                    raise
                raise UserError(f"{path}: damaged ({error})") from None
        path, settings = folder / VOCABULARY, folder / SETTINGS
        if not path.exists():
            raise UserError(f"{folder}: has no tokenizer: neither {TOKENIZER} nor {VOCABULARY} is there")
        stated = weights.read_json(settings) if settings.exists() else {}
        used = (path, settings) if settings.exists() else (path,)
        return cls(from_words(_words(path), stated), path, vocabulary_size), used

    def pieces(self) -> list[str]:
        """Return the spelling of each id; unused ids have an empty spelling."""
        vocabulary = self._tokenizer.get_vocab(with_added_tokens=True)
        spelt = [""] * (max(vocabulary.values()) + 1)
        for piece, number in vocabulary.items():
            spelt[number] = piece
        return spelt

    def encode(self, texts: Strings, max_tokens: int) -> Tokens:
        """Split texts into pieces, with [CLS] and [SEP]; a text is cut to at most `max_tokens` pieces."""
        room = max_tokens - 2
        parts, lengths, cut = [np.zeros(0, np.int32)], [np.zeros(0, np.int64)], [np.zeros(0, bool)]
        for begin in range(0, len(texts), ENCODE_ROWS):
            batch = [texts[row] for row in range(begin, min(begin + ENCODE_ROWS, len(texts)))]
            encoded = [encoding.ids for encoding in self._tokenizer.encode_batch_fast(batch, add_special_tokens=False)]
            framed: Sequence[list[int]] = [[self._start, *ids[:room], self._end] for ids in encoded]
            kept = np.array([len(ids) for ids in framed], np.int64)
            parts.append(np.fromiter(itertools.chain.from_iterable(framed), np.int32, kept.sum()))
            lengths.append(kept)
            cut.append(np.array([len(ids) > room for ids in encoded]))
        offsets = np.zeros(len(texts) + 1, np.int64)
        np.cumsum(np.concatenate(lengths), out=offsets[1:])
        return Tokens(np.concatenate(parts), offsets, np.concatenate(cut))


def _has_key(value: Any, key: str) -> bool:
    """Return True if an object in a JSON value has a key; the words of a vocabulary are not searched."""
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
        raise UserError(f"{path}: has no piece {UNKNOWN} for unknown words; is it the file of a BERT?")
    return words


def from_words(words: dict[str, int], stated: dict[str, Any]) -> Any:
    """Return BERT's tokenizer for a vocabulary, with the settings of a `tokenizer_config.json`."""
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
