"""LightGCN (He et al., SIGIR 2020): embeddings averaged over products with the graph of users and items."""

from __future__ import annotations

from typing import Any

import jax

from drex_jax.data.events import Events, train_pairs
from drex_jax.devices.axis import Axis
from drex_jax.models.graph.user_item import Behaviour, BehaviourGraph, averaged, embeddings
from drex_jax.models.pairwise import Pairs, Pairwise, RankerOptions, Rows


class LightGCN(Pairwise):
    """Scores are products of averaged embeddings; L2 is on the embeddings themselves.

    With `edge_dropout` each epoch trains on a sample of the graph; the original has none.
    """

    def __init__(self, options: RankerOptions, events: Events, sizes: tuple[int, int, int], devices: int = 1):
        pairs = train_pairs(events, sizes)
        self._graph = BehaviourGraph(*pairs, events.num_users, events.num_items, options.edge_dropout)
        super().__init__(options, events, sizes, self._graph.constants, devices)

    def init(self, key: jax.Array) -> dict[str, jax.Array]:
        """Embeddings: `table` [N, D], users first."""
        return {"table": embeddings(key, self.num_users, self.num_items, self.options.size)}

    def carried(self, params: dict[str, jax.Array], constants: Behaviour, key: jax.Array) -> Any:
        """The epoch's graph."""
        return self._graph.of_epoch(constants, key)

    def everyone(self, params: dict[str, jax.Array], constants: Behaviour, carry: Any) -> tuple[jax.Array, jax.Array]:
        """Averaged embeddings."""
        table = averaged(constants, carry, params["table"], self.options.layers)
        return table[: self.num_users], table[self.num_users :]

    def rows(
        self, params: dict[str, jax.Array], constants: Behaviour, carry: Any, pairs: Pairs, key: jax.Array, axis: Axis
    ) -> Rows:
        """Averaged embeddings of the batch."""
        table = averaged(constants, carry, params["table"], self.options.layers)
        nodes = self.nodes(pairs)
        return Rows(*(table[node] for node in nodes), penalised=[params["table"][node] for node in nodes])
