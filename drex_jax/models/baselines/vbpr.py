"""VBPR (He and McAuley, AAAI 2016), as in libraries of multimodal recommenders.

The row of an item is its embedding, concatenated with its projected features: the features of all modalities,
concatenated and multiplied by a learned matrix. The row of a user is twice as long as an embedding. The item biases of
the paper are left out, as in those libraries.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np

from drex_jax.devices.axis import Axis
from drex_jax.models.graph.item_item import item_features
from drex_jax.models.pairwise import Pairs, Pairwise, Rows, TableSizes, TrainPairs, xavier
from drex_jax.models.protocol import Params
from drex_jax.models.settings import RankerSettings


@dataclasses.dataclass(frozen=True)
class VBPR(Pairwise):
    """VBPR. Its constants are the features of the data set, float32 [I, F]; zeros where an item lacks a modality."""

    settings: RankerSettings
    width: int

    @classmethod
    def over(cls, pairs: TrainPairs, *groups: Any) -> tuple[Self, np.ndarray]:
        """Return the model and the features. Raises `UserError` if the data have no features."""
        features = np.concatenate(item_features(pairs.features, "VBPR").values, axis=1)
        return cls(groups[0], TableSizes.of(pairs), features.shape[1]), features

    def init(self, key: jax.Array) -> Params:
        """Return `user` [U, 2D], `item` [I, D], `project` [F, D] (without a bias: it would be equal for all items)."""
        keys, size = jax.random.split(key, 3), self.settings.size
        return {
            "user": xavier(keys[0], self.sizes.users, 2 * size),
            "item": xavier(keys[1], self.sizes.items, size),
            "project": xavier(keys[2], self.width, size),
        }

    def all_rows(self, params: Params, constants: Any, carry: Any) -> tuple[jax.Array, jax.Array]:
        """Return the rows of all users [U, 2D] and items [I, 2D]."""
        return params["user"], jnp.concatenate([params["item"], constants @ params["project"]], axis=1)

    def rows(self, params: Params, constants: Any, carry: Any, pairs: Pairs, key: jax.Array, axis: Axis) -> Rows:
        """Return the rows of the batch; only the features of its items are projected. The L2 penalty is on the rows."""
        user = params["user"][pairs.user]
        item, negative = (
            jnp.concatenate([params["item"][number], constants[number] @ params["project"]], axis=1)
            for number in (pairs.item, pairs.negative)
        )
        return Rows(user, item, negative, penalised=(user, item, negative))
