"""Matrix factorisation trained to rank (BPR-MF: Rendle et al., UAI 2009)."""

from __future__ import annotations

from typing import Any

import jax

from drex_jax.data.events import Events
from drex_jax.devices.axis import Axis
from drex_jax.models.pairwise import Pairs, Pairwise, RankerOptions, Rows, xavier


class BPR(Pairwise):
    """Scores are products of a user's and an item's embeddings."""

    def __init__(self, options: RankerOptions, events: Events, sizes: tuple[int, int, int], devices: int = 1):
        super().__init__(options, events, sizes, (), devices)

    def init(self, key: jax.Array) -> dict[str, jax.Array]:
        """Embeddings: `user` [U, D], `item` [I, D]."""
        user, item = jax.random.split(key)
        size = self.options.size
        return {"user": xavier(user, self.num_users, size), "item": xavier(item, self.num_items, size)}

    def everyone(self, params: dict[str, jax.Array], constants: Any, carry: Any) -> tuple[jax.Array, jax.Array]:
        """The embeddings."""
        return params["user"], params["item"]

    def rows(
        self, params: dict[str, jax.Array], constants: Any, carry: Any, pairs: Pairs, key: jax.Array, axis: Axis
    ) -> Rows:
        """The embeddings of the batch."""
        own = params["user"][pairs.user], params["item"][pairs.item], params["item"][pairs.negative]
        return Rows(*own, penalised=own)
