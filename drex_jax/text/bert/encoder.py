"""Texts to vectors by a BERT of a Hugging Face folder.

    encoder = BertEncoder.load("models/all-MiniLM-L6-v2")
    vectors = encoder.encode(["It holds its tune.", ""], pooling="mean", normalize=True, max_tokens=128)

Texts are sorted by length and cut into batches of a few static shapes, each of about one budget of tokens a device.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from drex_jax.data.strings import Strings
from drex_jax.data.tokens import Tokens
from drex_jax.errors import UserError
from drex_jax.models.axis import Axis
from drex_jax.parallel import Devices
from drex_jax.text.bert import weights
from drex_jax.text.bert.network import POOLINGS, Architecture, Bert, pool
from drex_jax.text.bert.wordpiece import WordPiece

DTYPES = ("float32", "bfloat16")
BUDGET = 16384  # tokens a batch and device, padding included
CPU_BUDGET = 1024  # there, what its caches hold: measured a tenth faster than 4096 tokens a batch
WAITING = 4  # batches under way on the device: enough to keep it busy, and memory that does not grow with the texts


class TokenFeatures(NamedTuple):
    """What the encoder says of every token.

    Attributes:
      pieces: the texts' tokens.
      features: float32 [total tokens, D].
    """

    pieces: Tokens
    features: np.ndarray


class BertEncoder:
    """A BERT on the devices there are. Letters: n texts, D width, R rows, T tokens.

    Attributes:
      architecture: its sizes.
      width: D.
      max_tokens: the most tokens of a text that the model can read.
      dtype: one of `DTYPES`.
      fingerprint: SHA-256 of the files it was read from.
    """

    def __init__(
        self,
        architecture: Architecture,
        params: weights.Params,
        tokenizer: WordPiece,
        fingerprint: str,
        dtype: str = "float32",
        devices: Devices | None = None,
    ):
        """Use `load`."""
        if dtype not in DTYPES:
            raise ValueError(f"dtype {dtype!r} should be one of {' '.join(DTYPES)}")
        self.architecture, self.width, self.max_tokens = architecture, architecture.width, architecture.positions
        self.dtype, self.fingerprint, self.tokenizer = dtype, fingerprint, tokenizer
        self._devices = devices or Devices("shard_map")
        self._network = Bert(architecture, jnp.dtype(dtype))
        layers = jax.tree.map(lambda leaf: _in_dtype(leaf, dtype), params["layers"])
        self._params = self._devices.place(params | {"layers": layers})
        self._programs: dict[tuple[str, bool], Callable[..., Any]] = {}

    @classmethod
    def load(cls, folder: str | Path, dtype: str = "float32", devices: Devices | None = None) -> BertEncoder:
        """The model in a Hugging Face folder: `config.json`, `tokenizer.json` or `vocab.txt`, `model.safetensors`.

        Args:
          folder: of model type bert; names of tensors may begin with `bert.`.
          dtype: of products, `float32` or `bfloat16`; weights may be stored as float32, float16 or bfloat16.
          devices: what it runs on; None: all there are.

        Raises:
          UserError: the folder is no BERT or not complete, a tensor is missing, of another shape or not finite, or the
            extra `bert` is not installed.
        """
        folder = Path(folder)
        architecture = weights.read_architecture(folder)
        tokenizer, files = WordPiece.read(folder, architecture.vocabulary_size)
        params = weights.read_params(folder, architecture)
        fingerprint = _fingerprint((folder / weights.CONFIG, *files, folder / weights.WEIGHTS))
        return cls(architecture, params, tokenizer, fingerprint, dtype, devices)

    def encode(
        self, texts: Sequence[str] | Strings, pooling: str = "mean", normalize: bool = True, max_tokens: int = 128
    ) -> np.ndarray:
        """A vector for each text: float32 [n, D].

        In float32 a text's vector is the same to 1e-5 whatever other texts come with it.

        Args:
          texts: an empty one is encoded as [CLS] [SEP].
          pooling: `mean` of a text's tokens, [CLS] and [SEP] among them, or `cls`: the first token's.
          normalize: to length 1.
          max_tokens: what is longer is cut; [CLS] and [SEP] count.

        Raises:
          UserError: `max_tokens` is not from 2 to what the model can read, or a text is no text.
          ValueError: `pooling` is no such thing.
        """
        _require_pooling(pooling)
        return self.encode_pieces(self.pieces(texts, max_tokens), pooling, normalize)

    def encode_pieces(self, pieces: Tokens, pooling: str, normalize: bool) -> np.ndarray:
        """The same of texts that `pieces` made tokens of."""
        _require_pooling(pooling)
        found = np.empty((len(pieces.cut), self.width), np.float32)
        for rows, values in self._encoded(pieces, pooling, normalize):
            found[rows] = values
        return found

    def encode_tokens(self, texts: Sequence[str] | Strings, max_tokens: int = 128) -> TokenFeatures:
        """The last layer's features of every token; arguments and errors as of `encode`."""
        pieces = self.pieces(texts, max_tokens)
        found = np.empty((len(pieces.ids), self.width), np.float32)
        for rows, values in self._encoded(pieces, "", False):
            within = np.arange(values.shape[1]) < pieces.lengths[rows, None]
            found[(pieces.offsets[rows, None] + np.arange(values.shape[1]))[within]] = values[within]
        return TokenFeatures(pieces, found)

    def pieces(self, texts: Sequence[str] | Strings, max_tokens: int = 128) -> Tokens:
        """The texts' tokens; arguments and errors as of `encode`."""
        if not 2 <= max_tokens <= self.max_tokens:
            raise UserError(
                f"max_tokens {max_tokens}; it should be from 2 to the {self.max_tokens} that the model reads"
            )
        return self.tokenizer.encode(texts if isinstance(texts, Strings) else _strings(texts), max_tokens)

    def _encoded(self, pieces: Tokens, pooling: str, normalize: bool) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(rows int64 [m], values of theirs), batch after batch: vectors [m, D], or features [m, T, D] unpooled."""
        program = self._program(pooling, normalize)
        waiting: list[tuple[np.ndarray, jax.Array]] = []

        def first() -> tuple[np.ndarray, np.ndarray]:
            rows, values = waiting.pop(0)
            return rows, np.asarray(values)[: len(rows)]

        budget = CPU_BUDGET if self._devices.kind == "cpu" else BUDGET
        for rows, ids, lengths in batches(pieces, self.max_tokens, len(self._devices), budget):
            waiting.append((rows, program(self._params, *self._devices.place((ids, lengths)))))
            if len(waiting) == WAITING:
                yield first()
        while waiting:
            yield first()

    def _program(self, pooling: str, normalize: bool) -> Callable[..., Any]:
        """(params, ids [R, T], lengths [R]) -> values [R, ...], the rows shared by the devices."""

        def program(axis: Axis, params: Any, ids: jax.Array, lengths: jax.Array) -> jax.Array:
            ids, lengths = axis.own(ids), axis.own(lengths)
            present = jnp.arange(ids.shape[1]) < lengths[:, None]
            features: Any = self._network.apply({"params": params}, ids, present)
            return axis.everyone(pool(features, present, pooling, normalize) if pooling else features)

        if (pooling, normalize) not in self._programs:
            self._programs[pooling, normalize] = self._devices.compile(program)
        return self._programs[pooling, normalize]


def batches(
    pieces: Tokens, longest: int, devices: int, budget: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Every text in one batch, the longest first: (rows int64 [m], ids int32 [R, T], lengths int32 [R]), m <= R.

    T is of `padded_length`; R is as many rows as the budget holds, but in the last batch, where it is the least power
    of two of them that is enough. Rows that nobody needs are of length 1. So a length has one shape to compile for, and
    the batches are full.

    Args:
      pieces: n texts.
      longest: the most tokens that the model can read, padding included.
      devices: R divides by it.
      budget: tokens a batch and device, padding included; a device has one row at least.
    """
    order = np.argsort(-pieces.lengths, kind="stable")
    begin = 0
    while begin < len(order):
        length = min(longest, padded_length(int(pieces.lengths[order[begin]])))
        each = max(1, budget // length)
        rows = order[begin : begin + each * devices]
        begin += len(rows)
        if len(rows) < each * devices:
            each = min(each, 1 << (-(-len(rows) // devices) - 1).bit_length())
        lengths = np.ones(each * devices, np.int32)
        lengths[: len(rows)] = pieces.lengths[rows]
        ids = np.zeros((each * devices, length), np.int32)
        within = np.arange(length) < lengths[: len(rows), None]
        ids[: len(rows)][within] = pieces.ids[(pieces.offsets[rows, None] + np.arange(length))[within]]
        yield rows, ids, lengths


def padded_length(tokens: int) -> int:
    """What a text of so many tokens is padded to: by steps of 8 up to 32, of 16 up to 128, then of an eighth."""
    step = 8 if tokens <= 32 else max(16, 1 << max(0, (tokens - 1).bit_length() - 3))
    return -(-tokens // step) * step


def _require_pooling(pooling: str) -> None:
    if pooling not in POOLINGS:
        raise ValueError(f"pooling {pooling!r} should be one of {' '.join(POOLINGS)}")


def _strings(texts: Sequence[str]) -> Strings:
    if isinstance(texts, str):
        raise ValueError("texts must be a list of strings, not one string")
    for place, text in enumerate(texts):
        if not isinstance(text, str):
            raise UserError(f"text {place} is {type(text).__name__}; it must be a string")
    try:
        return Strings.of(texts)
    except UnicodeEncodeError:
        raise UserError("a text holds a lone surrogate, which is no text") from None


def _in_dtype(leaf: np.ndarray, dtype: str) -> Any:
    """Weights of products in their dtype; `leaf` is float32."""
    return leaf if dtype == "float32" else jnp.asarray(leaf, dtype)


def _fingerprint(files: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            own = hashlib.file_digest(file, "sha256")
        digest.update(f"{path.name} {own.hexdigest()}\n".encode())
    return digest.hexdigest()
