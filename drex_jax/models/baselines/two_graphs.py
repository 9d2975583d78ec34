"""What FREEDOM and CRANE's released code share: a sampled graph of users and items, and a frozen graph of items.

Everyone has an embedding, averaged over products with the graph of users and items; an item's row has content added
to it that comes over the graph of items. Each epoch trains on a sample of the interactions that favours those of rare
users and rare items (Zhou and Shen, MM 2023, section 3.2); predictions use all of them.

Letters: U users, I items, N = U + I nodes, E train pairs, M modalities, F features of a modality, B pairs, D row size.
"""

from __future__ import annotations

import abc
import math
from typing import Any, NamedTuple

import jax

from drex_jax.data.events import Events, train_pairs
from drex_jax.devices.axis import Axis
from drex_jax.models.graph.item_item import Features, feature_graph, item_features
from drex_jax.models.graph.propagation import Graph
from drex_jax.models.graph.user_item import Behaviour, BehaviourGraph, averaged, embeddings
from drex_jax.models.pairwise import Pairs, Pairwise, RankerOptions, Rows


class Constants(NamedTuple):
    """What never changes.

    Attributes:
      behaviour: the graph of users and items.
      semantic: the graph of items.
      present: bool [M, I], which items have which modality.
    """

    behaviour: Behaviour
    semantic: Graph
    present: Any


class TwoGraphs(Pairwise):
    """The shared part. Parameters: embeddings `table` [N, D], users first, and those of `init_content`."""

    def __init__(self, options: RankerOptions, events: Events, sizes: tuple[int, int, int], devices: int, name: str):
        """Builds both graphs. Raises `UserError` where the data have no item features; `name` is the model's."""
        self.features: Features = item_features(events, name)
        pairs = train_pairs(events, sizes)
        self._graph = BehaviourGraph(*pairs, events.num_users, events.num_items, options.edge_dropout)
        semantic = feature_graph(self.features, options.neighbours, options.first_modality)
        constants = Constants(self._graph.constants, semantic, self.features.present)
        super().__init__(options, events, sizes, constants, devices)

    # What a model adds

    @abc.abstractmethod
    def init_content(self, key: jax.Array) -> dict[str, Any]:
        """Parameters beside the embeddings."""

    @abc.abstractmethod
    def content(self, params: dict[str, Any], constants: Constants) -> jax.Array:
        """What is added to the rows of items: [I, D]."""

    def own_loss(
        self, params: dict[str, Any], constants: Constants, user: jax.Array, pairs: Pairs, axis: Axis
    ) -> dict[str, Any]:
        """`loss` and `figures` of a batch's `Rows`, of the model's own. `user` [B, D] is as in `Rows`."""
        return {}

    # What `Pairwise` asks for

    def init(self, key: jax.Array) -> dict[str, Any]:
        """New parameters."""
        first, second = jax.random.split(key)
        table = embeddings(first, self.num_users, self.num_items, self.options.size)
        return {"table": table, **self.init_content(second)}

    def carried(self, params: dict[str, Any], constants: Constants, key: jax.Array) -> Any:
        """The graph of the epoch's sample of pairs."""
        return self._graph.of_epoch(constants.behaviour, key)

    def everyone(self, params: dict[str, Any], constants: Constants, carry: Any) -> tuple[jax.Array, jax.Array]:
        """Averaged embeddings, those of items with their content."""
        table = averaged(constants.behaviour, carry, params["table"], self.options.layers)
        return table[: self.num_users], table[self.num_users :] + self.content(params, constants)

    def rows(
        self, params: dict[str, Any], constants: Constants, carry: Any, pairs: Pairs, key: jax.Array, axis: Axis
    ) -> Rows:
        """Those of the batch. L2 is on the embeddings themselves, as LightGCN's; the public code has none."""
        users, items = self.everyone(params, constants, carry)
        nodes = self.nodes(pairs)
        user = users[pairs.user]
        return Rows(
            user,
            items[pairs.item],
            items[pairs.negative],
            penalised=[params["table"][node] for node in nodes],
            **self.own_loss(params, constants, user, pairs, axis),
        )


def linear(key: jax.Array, rows: int, columns: int) -> jax.Array:
    """Weights [rows, columns] as PyTorch starts a linear layer: uniform within 1 / sqrt(rows)."""
    bound = 1 / math.sqrt(rows)
    return jax.random.uniform(key, (rows, columns), minval=-bound, maxval=bound)
