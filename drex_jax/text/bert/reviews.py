"""Reviews as a BERT reads them: made once, kept in the store and in the run, and made for new interactions."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from drex_jax.common.cache import Cache
from drex_jax.common.errors import UserError
from drex_jax.common.progress import progress_bar
from drex_jax.data.events import REVIEW
from drex_jax.data.interactions import Interactions
from drex_jax.data.strings import Strings
from drex_jax.devices.mesh import Devices
from drex_jax.text.bert import BertEncoder

ATTENTION = "attention"  # the pooling that is learned
PART = 4096  # texts an entry of the store: what an interruption loses, and enough of them to fill batches by length
VERSION = 1  # of what is kept


def encoder(config: Any) -> BertEncoder:
    """The encoder that a configuration asks for, on its devices.

    Raises:
      UserError: its folder holds no BERT, or the devices cannot be had.
    """
    bert = config.text.bert
    return BertEncoder.load(bert.folder, bert.dtype, Devices(config.devices.mapping, config.devices.count))


def with_vectors(
    interactions: Interactions, model: BertEncoder, config: Any, cache: Cache
) -> tuple[Interactions, list[str]]:
    """The table with a vector modality `REVIEW`, where a missing text is a missing vector; notices on what was cut.

    Raises:
      UserError: the model cannot read `text.max_tokens` tokens.
    """
    found, cut = vectors(interactions.text, model, config.text.bert.pooling, config.text.max_tokens, cache)
    notice = f"{cut:,} of {len(interactions):,} reviews were cut at {config.text.max_tokens} tokens"
    kept = dataclasses.replace(interactions, vectors=interactions.vectors | {REVIEW: found})
    return kept, [notice] if cut else []


def vectors(texts: Strings, model: BertEncoder, pooling: str, max_tokens: int, cache: Cache) -> tuple[np.ndarray, int]:
    """Vectors of length 1, float32 [n, D], rows of NaN for empty texts; and how many texts were cut.

    The texts are encoded part by part, in the order of the table: another run on these data finds them, and so does
    this one after it was interrupted.

    Args:
      texts: n of them.
      model: what encodes them.
      pooling: as of `BertEncoder.encode`.
      max_tokens: as there.
      cache: keeps each part.

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
    found, cut = np.full((len(texts), model.width), np.nan, np.float32), 0
    present = np.flatnonzero(texts.lengths)
    with progress_bar("encoding reviews", len(present), "texts") as bar:
        for begin in range(0, len(present), PART):
            rows = present[begin : begin + PART]
            part = texts.take(rows)

            def make(part: Strings = part) -> dict[str, np.ndarray]:
                pieces = model.pieces(part, max_tokens)
                return {"vectors": model.encode_pieces(pieces, pooling, True), "cut": np.array(pieces.cut.sum())}

            made = cache("bert", {"data": part.data, "offsets": part.offsets}, options, VERSION, make)
            found[rows] = made["vectors"]
            cut += int(made["cut"])
            bar.update(len(rows))
    return found, cut


def trained_on(config: Any, fingerprint: str | None) -> BertEncoder:
    """The encoder whose vectors a finished run was trained on; `fingerprint`: its.

    Raises:
      UserError: `text.bert.folder` does not hold it any more.
    """
    folder = config.text.bert.folder
    try:
        model = BertEncoder.load(folder, config.text.bert.dtype, Devices("none"))
    except UserError as error:
        raise UserError(f"its text cannot be read without text.bert.folder={folder}: {error}") from None
    if model.fingerprint != fingerprint:
        raise UserError(
            f"its text cannot be read: text.bert.folder={folder} holds another model than the run was trained on"
        )
    return model
