"""LightGCN (He et al., SIGIR 2020): embeddings averaged over products with the graph of users and items."""

from __future__ import annotations

import dataclasses
from typing import Any, Self

import jax

from drex_jax.devices.axis import Axis
from drex_jax.models.graph.user_item import Behaviour, BehaviourGraph, averaged, embeddings, grown_table
from drex_jax.models.pairwise import Pairs, Pairwise, Rows, TableSizes, TrainPairs
from drex_jax.models.protocol import Params
from drex_jax.models.settings import RankerSettings


@dataclasses.dataclass(frozen=True)
class LightGCN(Pairwise):
    """Scores are inner products of averaged embeddings; the L2 penalty is on the embeddings before averaging.

    With `edge_dropout` each epoch trains on a sample of the graph; the original has no such sampling.
    """

    settings: RankerSettings
    graph: BehaviourGraph

    @classmethod
    def over(cls, pairs: TrainPairs, *groups: Any) -> tuple[Self, Behaviour]:
        """Return the model and the graph of users and items."""
        graph, behaviour = BehaviourGraph.over(pairs, groups[0].edge_dropout)
        return cls(groups[0], TableSizes.of(pairs), graph), behaviour

    def init(self, key: jax.Array) -> Params:
        """Return embeddings: `table` [N, D], users first."""
        return {"table": embeddings(key, self.sizes.users, self.sizes.items, self.settings.size)}

    def grown(self, params: Params, known: TableSizes) -> Params:
        """Return the embeddings, zeros for new users and items: their rows come from neighbours alone (our choice)."""
        return params | {"table": grown_table(params["table"], known, self.sizes)}

    def carried(self, params: Params, constants: Behaviour, key: jax.Array) -> Any:
        """Return the graph of an epoch."""
        return self.graph.of_epoch(constants, key)

    def all_rows(self, params: Params, constants: Behaviour, carry: Any) -> tuple[jax.Array, jax.Array]:
        """Return the averaged embeddings of all users and items."""
        table = averaged(constants, carry, params["table"], self.settings.layers)
        return table[: self.sizes.users], table[self.sizes.users :]

    def rows(self, params: Params, constants: Behaviour, carry: Any, pairs: Pairs, key: jax.Array, axis: Axis) -> Rows:
        """Return the averaged embeddings of the batch."""
        table = averaged(constants, carry, params["table"], self.settings.layers)
        nodes = self.nodes(pairs)
        return Rows(*(table[node] for node in nodes), penalised=[params["table"][node] for node in nodes])
