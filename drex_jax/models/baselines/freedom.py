"""FREEDOM (Zhou and Shen, MM 2023, arXiv 2211.06924): a frozen graph of items and a denoised one of users and items.

The content of an item is one product of the graph of items with the embeddings of items. Besides the BPR loss on the
rows, each modality has a BPR loss between the user's row and the projected features of the modality. The features are
parameters that are initialised from the data set, as in the public implementation.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from drex_jax.devices.axis import Axis
from drex_jax.models import losses
from drex_jax.models.baselines.two_graphs import Constants, TwoGraphs, linear
from drex_jax.models.graph.propagation import propagate
from drex_jax.models.pairwise import Pairs
from drex_jax.models.protocol import Params


@dataclasses.dataclass(frozen=True)
class FREEDOM(TwoGraphs):
    """FREEDOM. `feature_weight` weights the loss on features; the other three settings are settings of the graphs."""

    called = "FREEDOM"

    def init_content(self, key: jax.Array) -> dict[str, Any]:
        """Return `project`, [F, D] by modality. A bias is not needed: it would cancel in every difference of scores."""
        keys = jax.random.split(key, len(self.widths))
        return {"project": [linear(k, width, self.settings.size) for k, width in zip(keys, self.widths, strict=True)]}

    def content(self, params: Params, constants: Constants) -> jax.Array:
        """Return the embeddings of each item's neighbours."""
        return propagate(constants.semantic, params["table"][self.sizes.users :])

    def own_loss(
        self, params: Params, constants: Constants, user: jax.Array, pairs: Pairs, axis: Axis
    ) -> dict[str, Any]:
        """Return the BPR loss on projected features, over the pairs whose two items both have the modality."""
        total: jax.Array | float = 0.0
        for values, weight, there in zip(params["features"], params["project"], constants.present, strict=True):
            counted = pairs.valid & there[pairs.item] & there[pairs.negative]
            projected = values[jnp.concatenate([pairs.item, pairs.negative])] @ weight
            scores = [(user * each).sum(1) for each in jnp.split(projected, 2)]
            total += losses.bpr(scores[0], scores[1][:, None], counted[:, None], axis)
        return {"loss": self.settings.feature_weight * total, "figures": {"feature_loss": total}}
