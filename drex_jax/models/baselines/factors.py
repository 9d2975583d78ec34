"""Matrix factorisation trained to rank (BPR-MF: Rendle et al., UAI 2009)."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax

from drex_jax.devices.axis import Axis
from drex_jax.models.pairwise import Pairs, Pairwise, Rows, xavier
from drex_jax.models.protocol import Params
from drex_jax.models.settings import RankerSettings


@dataclasses.dataclass(frozen=True)
class BPR(Pairwise):
    """Scores are inner products of a user's and an item's embedding."""

    settings: RankerSettings

    def init(self, key: jax.Array) -> Params:
        """Return embeddings: `user` [U, D], `item` [I, D]."""
        user, item = jax.random.split(key)
        size = self.settings.size
        return {"user": xavier(user, self.sizes.users, size), "item": xavier(item, self.sizes.items, size)}

    def all_rows(self, params: Params, constants: Any, carry: Any) -> tuple[jax.Array, jax.Array]:
        """Return the embeddings."""
        return params["user"], params["item"]

    def rows(self, params: Params, constants: Any, carry: Any, pairs: Pairs, key: jax.Array, axis: Axis) -> Rows:
        """Return the embeddings of the batch."""
        own = params["user"][pairs.user], params["item"][pairs.item], params["item"][pairs.negative]
        return Rows(*own, penalised=own)
