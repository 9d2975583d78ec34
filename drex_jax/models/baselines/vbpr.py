"""VBPR (He and McAuley, AAAI 2016), in the form that multimodal libraries give it.

An item's row is its embedding beside its features, those of all modalities one after the other, times a learned
matrix; a user's row is twice as long as an embedding. The paper's biases of items are left out, as those libraries do.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from drex_jax.data.events import Events
from drex_jax.devices.axis import Axis
from drex_jax.models.graph.item_item import item_features
from drex_jax.models.pairwise import Pairs, Pairwise, RankerOptions, Rows, xavier


class VBPR(Pairwise):
    """`constants` are features float32 [I, F] as the data set has them; zeros where an item lacks a modality."""

    def __init__(self, options: RankerOptions, events: Events, sizes: tuple[int, int, int], devices: int = 1):
        """Raises `UserError` where the data have no item features."""
        features = np.concatenate(item_features(events, "VBPR").values, axis=1)
        self._width = features.shape[1]
        super().__init__(options, events, sizes, features, devices)

    def init(self, key: jax.Array) -> dict[str, jax.Array]:
        """`user` [U, 2D], `item` [I, D], `project` [F, D]. (A bias would be the same for all items.)"""
        keys, size = jax.random.split(key, 3), self.options.size
        return {
            "user": xavier(keys[0], self.num_users, 2 * size),
            "item": xavier(keys[1], self.num_items, size),
            "project": xavier(keys[2], self._width, size),
        }

    def everyone(self, params: dict[str, jax.Array], constants: Any, carry: Any) -> tuple[jax.Array, jax.Array]:
        """The rows, of items [I, 2D]."""
        return params["user"], jnp.concatenate([params["item"], constants @ params["project"]], axis=1)

    def rows(
        self, params: dict[str, jax.Array], constants: Any, carry: Any, pairs: Pairs, key: jax.Array, axis: Axis
    ) -> Rows:
        """The rows of the batch, whose items alone are projected; L2 is on them."""
        user = params["user"][pairs.user]
        item, negative = (
            jnp.concatenate([params["item"][number], constants[number] @ params["project"]], axis=1)
            for number in (pairs.item, pairs.negative)
        )
        return Rows(user, item, negative, penalised=(user, item, negative))
