"""Review vectors from a BERT, cached and saved in the run, for training data and new interactions."""

from __future__ import annotations

import dataclasses

import numpy as np

from drex_jax.common.cache import Cache
from drex_jax.common.errors import UserError
from drex_jax.common.progress import progress_bar
from drex_jax.data.events import REVIEW
from drex_jax.data.interactions import Interactions
from drex_jax.data.strings import Strings
from drex_jax.devices.mesh import Devices
from drex_jax.text.bert import BertEncoder
from drex_jax.text.settings import BertSettings, TextSettings

ATTENTION = "attention"  # the pooling that is learned
PART = 4096  # texts of a cache entry: an interruption loses at most one, and batches by length are well filled
VERSION = 1  # raise it when the cached values change


def encoder(bert: BertSettings, devices: Devices) -> BertEncoder:
    """Return the encoder of the settings on `devices`.

    Raises:
      UserError: the folder holds no BERT.
    """
    return BertEncoder.load(bert.folder or "", bert.dtype, devices)


def with_vectors(
    interactions: Interactions, model: BertEncoder, text: TextSettings, cache: Cache
) -> tuple[Interactions, list[str]]:
    """Return the table with a vector modality `REVIEW` (missing texts have no vector), and notices on cut reviews.

    Raises:
      UserError: the model cannot read `text.max_tokens` tokens.
    """
    encoded, cut = vectors(interactions.text, model, text.bert.pooling, text.max_tokens, cache)
    notice = f"{cut:,} of {len(interactions):,} reviews were cut at {text.max_tokens} tokens"
    kept = dataclasses.replace(interactions, vectors=interactions.vectors | {REVIEW: encoded})
    return kept, [notice] if cut else []


def vectors(texts: Strings, model: BertEncoder, pooling: str, max_tokens: int, cache: Cache) -> tuple[np.ndarray, int]:
    """Return vectors of length 1, float32 [n, D] (NaN for empty texts), and the number of texts that were cut.

    Texts are encoded part by part in the order of the table, so that other runs on these data, and a restart of this
    run, find the parts in the cache.

    Args:
      texts: n texts.
      model: the encoder.
      pooling: pooling of `BertEncoder.encode`.
      max_tokens: longer texts are cut.
      cache: cache of the vectors of each part.

    Raises:
      UserError: the model cannot read `max_tokens` tokens.
    """
    options = {
        "model": model.fingerprint,
        "dtype": model.dtype,
        "pooling": pooling,
        "normalize": True,
        "max_tokens": max_tokens,
    }
    encoded, cut = np.full((len(texts), model.width), np.nan, np.float32), 0
    present = np.flatnonzero(texts.lengths)
    with progress_bar("encoding reviews", len(present), "texts") as bar:
        for begin in range(0, len(present), PART):
            rows = present[begin : begin + PART]
            part = texts.take(rows)

            def make(part: Strings = part) -> dict[str, np.ndarray]:
                pieces = model.pieces(part, max_tokens)
                return {"vectors": model.encode_pieces(pieces, pooling, True), "cut": np.array(pieces.cut.sum())}

            made = cache("bert", {"data": part.data, "offsets": part.offsets}, options, VERSION, make)
            encoded[rows] = made["vectors"]
            cut += int(made["cut"])
            bar.update(len(rows))
    return encoded, cut


def trained_on(bert: BertSettings, fingerprint: str | None) -> BertEncoder:
    """Return the encoder that a finished run was trained with. `fingerprint`: the fingerprint of that encoder.

    Raises:
      UserError: `text.bert.folder` does not hold it any more.
    """
    folder = bert.folder
    try:
        model = encoder(bert, Devices("none"))
    except UserError as error:
        raise UserError(f"its text cannot be read without text.bert.folder={folder}: {error}") from None
    if model.fingerprint != fingerprint:
        raise UserError(
            f"its text cannot be read: text.bert.folder={folder} holds another model than the run was trained on"
        )
    return model
