"""The features of items, and the fixed graph of the most similar items.

Letters: I items, M modalities, F features of a modality, k neighbours of an item.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from drex_jax.common.errors import UserError
from drex_jax.models.graph.neighbours import nearest
from drex_jax.models.graph.propagation import Graph, directed

FIRST = "image"  # the modality that gets the weight `first`, if the data have it


class Features(NamedTuple):
    """The features of items, not standardised, sorted by the names of the modalities.

    Attributes:
      names: [M], names of the modalities.
      values: for each modality, float32 [I, F]; zeros for items without it.
      present: bool [M, I], false where an item lacks a modality.
    """

    names: tuple[str, ...]
    values: tuple[np.ndarray, ...]
    present: np.ndarray


def item_features(vectors: Mapping[str, np.ndarray], model: str) -> Features:
    """Return the features of the items of a data set.

    Args:
      vectors: by modality float32 [I, F]; a row of NaN is missing.
      model: name of the model, for the error message.

    Raises:
      UserError: the data have no features of items.
    """
    if not vectors:
        raise UserError(f"{model} needs features of items, and these data have none: see data.item_features")
    names = tuple(sorted(vectors))
    raw = [np.asarray(vectors[name], np.float32) for name in names]
    present = np.stack([~np.isnan(values).any(1) for values in raw])
    values = tuple(np.where(there[:, None], values, 0) for values, there in zip(raw, present, strict=True))
    return Features(names, values, present)


def modality_weights(names: tuple[str, ...], first: float) -> np.ndarray:
    """Return the weights of the modalities' graphs, float32 [M], of sum 1.

    `first` is the weight of images if the data have them, as in the published setting (0.1 image + 0.9 text), else of
    the first modality by name. The others share the rest equally. A single modality has weight 1.
    """
    if len(names) == 1:
        return np.ones(1, np.float32)
    weights = np.full(len(names), (1 - first) / (len(names) - 1), np.float32)
    weights[names.index(FIRST) if FIRST in names else 0] = first
    return weights


def feature_graph(features: Features, neighbours: int, first: float) -> Graph:
    """Return the weighted sum over modalities of graphs in which each of an item's k nearest items has weight 1/k.

    Neighbours are the nearest items by cosine. The item itself is one of them, as in the public implementation of
    FREEDOM (Zhou and Shen, MM 2023). Our choice for an item without some modalities: it has no neighbours by them, and
    the weights of its other modalities are scaled to sum 1; an item without any modality has a row of zeros.

    Args:
      features: features of the items.
      neighbours: k; if fewer items have a modality, all of them are neighbours, and their weights still sum to 1.
      first: weight of the first modality; see `modality_weights`.
    """
    present = features.present
    base = modality_weights(features.names, first)[:, None] * present
    total = base.sum(0)
    weights = (base / np.where(total > 0, total, 1)).astype(np.float32)  # [M, I]

    @jax.jit
    def build(values: tuple[jax.Array, ...], present: jax.Array, weights: jax.Array) -> Graph:
        columns = []
        for content, there, weight in zip(values, present, weights, strict=True):
            neighbour, similarity = nearest(content, neighbours, valid=there, include_self=True)
            found = jnp.isfinite(similarity)
            share = weight[:, None] / jnp.maximum(found.sum(1, keepdims=True), 1)
            columns.append((neighbour, jnp.where(found, share, 0.0)))
        return directed(*(jnp.concatenate(each, axis=1) for each in zip(*columns, strict=True)))

    return build(features.values, present, weights)
