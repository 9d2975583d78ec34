"""Features of items as models take them, and the frozen graph of the items that are most alike by them.

Letters: I items, M modalities, F features of a modality, k neighbours of an item.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from drex_jax.common.errors import UserError
from drex_jax.data.events import Events
from drex_jax.models.graph.neighbours import nearest
from drex_jax.models.graph.propagation import Graph, directed

FIRST = "image"  # the modality that `first_modality` weighs, where the data have it


class Features(NamedTuple):
    """Features of items as the data set has them, not standardised, in the order of the modalities' names.

    Attributes:
      names: [M].
      values: by modality float32 [I, F]; zeros where an item lacks it.
      present: bool [M, I].
    """

    names: tuple[str, ...]
    values: tuple[np.ndarray, ...]
    present: np.ndarray


def item_features(events: Events, model: str) -> Features:
    """The features of the data set's items.

    Args:
      events: the data set.
      model: who asks, for the message.

    Raises:
      UserError: there are none.
    """
    if not events.item_vectors:
        raise UserError(f"{model} needs features of items, and these data have none: see data.item_features")
    names = tuple(sorted(events.item_vectors))
    raw = [np.asarray(events.item_vectors[name], np.float32) for name in names]
    present = np.stack([~np.isnan(values).any(1) for values in raw])
    values = tuple(np.where(there[:, None], values, 0) for values, there in zip(raw, present, strict=True))
    return Features(names, values, present)


def modality_weights(names: tuple[str, ...], first: float) -> np.ndarray:
    """Weights of the modalities' graphs, float32 [M], of sum 1.

    `first` is that of images where the data have them, as in the published setting (0.1 image + 0.9 text), and
    otherwise of the first modality by name; the others share the rest equally; a single one has weight 1.
    """
    if len(names) == 1:
        return np.ones(1, np.float32)
    weights = np.full(len(names), (1 - first) / (len(names) - 1), np.float32)
    weights[names.index(FIRST) if FIRST in names else 0] = first
    return weights


def feature_graph(features: Features, neighbours: int, first: float) -> Graph:
    """The weighted sum over modalities of graphs in which an item's k nearest by cosine count 1/k each.

    As the public implementation of FREEDOM (Zhou and Shen, MM 2023) builds it, an item itself among its neighbours. Our
    choice where an item lacks modalities: it is nobody's neighbour by them, and the weights of those that it has are
    scaled to sum 1; an item without any has a row of zeros.

    Args:
      features: of the items.
      neighbours: k; a modality that fewer items have gives what there are, with a sum of 1 all the same.
      first: see `modality_weights`.
    """
    present = features.present
    base = modality_weights(features.names, first)[:, None] * present
    total = base.sum(0)
    weights = (base / np.where(total > 0, total, 1)).astype(np.float32)  # [M, I]

    @jax.jit
    def build(values: tuple, present: jax.Array, weights: jax.Array) -> Graph:
        columns = []
        for content, there, weight in zip(values, present, weights, strict=True):
            neighbour, similarity = nearest(content, neighbours, valid=there, include_self=True)
            found = jnp.isfinite(similarity)
            share = weight[:, None] / jnp.maximum(found.sum(1, keepdims=True), 1)
            columns.append((neighbour, jnp.where(found, share, 0.0)))
        return directed(*(jnp.concatenate(each, axis=1) for each in zip(*columns, strict=True)))

    return build(features.values, present, weights)
