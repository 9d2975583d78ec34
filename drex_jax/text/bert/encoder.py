"""Text embeddings from a BERT in a Hugging Face folder.

    encoder = BertEncoder.load("models/all-MiniLM-L6-v2")
    vectors = encoder.encode(["It holds its tune.", ""], pooling="mean", normalize=True, max_tokens=128)

Texts are packed into batches of a few static shapes (`packing`), with about `BUDGET` tokens for each device.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from drex_jax.common.cores import available_cores
from drex_jax.common.digest import sha256_of
from drex_jax.common.errors import UserError
from drex_jax.data.strings import Strings
from drex_jax.data.tokens import Tokens
from drex_jax.devices.axis import Axis
from drex_jax.devices.mesh import Devices
from drex_jax.text.bert import weights
from drex_jax.text.bert.network import POOLINGS, Architecture, Bert, pool
from drex_jax.text.bert.packing import Batch, batches, room
from drex_jax.text.bert.wordpiece import WordPiece

DTYPES = ("float32", "bfloat16")
BUDGET = 16384  # tokens of a batch for each device, with padding
CPU_BUDGET = 1024  # the same for a CPU: they fit its caches, and are a tenth faster than 4096
WAITING = 4  # batches in the queue: enough to keep the device busy, with bounded memory


class TokenFeatures(NamedTuple):
    """The features of every token.

    Attributes:
      pieces: the tokens of the texts.
      features: float32 [total tokens, D], the features of the last layer.
    """

    pieces: Tokens
    features: np.ndarray


class BertEncoder:
    """A BERT on the devices of the run.

    Letters: n texts, D width, R rows of a batch, T tokens of a row, S texts that fit into a row.

    Attributes:
      architecture: the sizes of the model.
      width: D.
      max_tokens: the largest number of tokens of a text.
      dtype: one of `DTYPES`.
      fingerprint: SHA-256 of the model's files.
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
        """Use `BertEncoder.load` instead."""
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
        """Read the model in a Hugging Face folder: `config.json`, `tokenizer.json` or `vocab.txt`, `model.safetensors`.

        Args:
          folder: the folder; the model type must be bert, and names of tensors may begin with `bert.`.
          dtype: dtype of matrix products, `float32` or `bfloat16`; stored weights may be float32, float16 or bfloat16.
          devices: devices to run on; None: all.

        Raises:
          UserError: the folder holds no complete BERT, a tensor is missing, of another shape or not finite, or the
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
        """Return a vector for each text, float32 [n, D].

        In float32, the other texts change the vector of a text by less than 1e-5.

        Args:
          texts: the texts; an empty text is encoded as `[CLS] [SEP]`.
          pooling: `mean` over all tokens with `[CLS]` and `[SEP]`, or `cls`: the first token.
          normalize: true scales vectors to length 1.
          max_tokens: longer texts are cut; `[CLS]` and `[SEP]` count.

        Raises:
          UserError: `max_tokens` is not from 2 to the limit of the model, or a text is not a string.
          ValueError: `pooling` is unknown.
        """
        _require_pooling(pooling)
        return self.encode_pieces(self.pieces(texts, max_tokens), pooling, normalize)

    def encode_pieces(self, pieces: Tokens, pooling: str, normalize: bool) -> np.ndarray:
        """Return a vector for each text from the result of `pieces`; see `encode`."""
        _require_pooling(pooling)
        vectors = np.empty((len(pieces.cut), self.width), np.float32)
        for batch, values in self._encoded(pieces, pooling, normalize):
            vectors[batch.texts] = values.reshape(-1, self.width)[batch.places]
        return vectors

    def encode_tokens(self, texts: Sequence[str] | Strings, max_tokens: int = 128) -> TokenFeatures:
        """Return the features of the last layer for every token. Arguments and errors are those of `encode`."""
        pieces = self.pieces(texts, max_tokens)
        features = np.empty((len(pieces.ids), self.width), np.float32)
        for batch, values in self._encoded(pieces, "", False):
            within = batch.source >= 0
            features[batch.source[within]] = values[within]
        return TokenFeatures(pieces, features)

    def pieces(self, texts: Sequence[str] | Strings, max_tokens: int = 128) -> Tokens:
        """Return the tokens of texts. Arguments and errors are those of `encode`."""
        if not 2 <= max_tokens <= self.max_tokens:
            raise UserError(
                f"max_tokens {max_tokens}; it should be from 2 to the {self.max_tokens} that the model reads"
            )
        return self.tokenizer.encode(texts if isinstance(texts, Strings) else _strings(texts), max_tokens)

    def _encoded(self, pieces: Tokens, pooling: str, normalize: bool) -> Iterator[tuple[Batch, np.ndarray]]:
        """Yield each batch with its vectors [R, S, D]; without pooling, with its features [R, T, D].

        JAX runs small programs on one core, so on a CPU each core has its own batch: 1.2 times as fast on two cores.
        Other devices run one batch after the other, in the same order on all devices.
        """
        program, kind = self._program(pooling, normalize), self._devices.kind
        at_once = available_cores() if kind == "cpu" and len(self._devices) == 1 else 1
        waiting: list[tuple[Batch, Future[jax.Array]]] = []

        def run(batch: Batch) -> jax.Array:
            values = program(self._params, *self._devices.place((batch.ids, batch.segments)))
            return values.block_until_ready() if at_once > 1 else values

        def next_result() -> tuple[Batch, np.ndarray]:
            batch, values = waiting.pop(0)
            return batch, np.asarray(values.result())

        with ThreadPoolExecutor(at_once) as threads:
            for batch in batches(pieces, len(self._devices), CPU_BUDGET if kind == "cpu" else BUDGET):
                waiting.append((batch, threads.submit(run, batch)))
                if len(waiting) == at_once + WAITING:
                    yield next_result()
            while waiting:
                yield next_result()

    def _program(self, pooling: str, normalize: bool) -> Callable[..., Any]:
        """Return a compiled function (params, ids [R, T], segments [R, T]) -> values [R, ...]; devices share rows."""

        def program(axis: Axis, params: Any, ids: jax.Array, segments: jax.Array) -> jax.Array:
            ids, segments = axis.shard(ids), axis.shard(segments)
            features: Any = self._network.apply({"params": params}, ids, segments)
            if pooling:
                features = pool(features, segments, room(ids.shape[1]), pooling, normalize)
            return axis.all_gather(features)

        if (pooling, normalize) not in self._programs:
            self._programs[pooling, normalize] = self._devices.compile(program)
        return self._programs[pooling, normalize]


def _require_pooling(pooling: str) -> None:
    if pooling not in POOLINGS:
        raise ValueError(f"pooling {pooling!r} should be one of {' '.join(POOLINGS)}")


def _strings(texts: Sequence[Any]) -> Strings:
    if isinstance(texts, str):
        raise ValueError("texts must be a list of strings, not one string")
    for number, text in enumerate(texts):
        if not isinstance(text, str):
            raise UserError(f"text {number} is {type(text).__name__}; it must be a string")
    try:
        return Strings.of(texts)
    except UnicodeEncodeError:
        raise UserError("a text holds a lone surrogate, which is not valid text") from None


def _in_dtype(leaf: np.ndarray, dtype: str) -> Any:
    """Return float32 weights of matrix products in their dtype."""
    return leaf if dtype == "float32" else jnp.asarray(leaf, dtype)


def _fingerprint(files: Sequence[Path]) -> str:
    def line(path: Path) -> str:
        with path.open("rb") as file:
            return f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n"

    return sha256_of(map(line, files))
