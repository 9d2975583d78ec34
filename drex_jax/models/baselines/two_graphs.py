"""The base of FREEDOM and of CRANE's released code: a sampled graph of users and items, and a frozen graph of items.

Each user and item has an embedding, which is averaged over its propagations in the graph of users and items. The row of
an item is this average plus content that is propagated over the graph of items. Each epoch trains on a sample of the
interactions that favours rare users and rare items (Zhou and Shen, MM 2023, section 3.2); predictions use all
interactions.

Letters: U users, I items, N = U + I nodes, E train pairs, M modalities, F features of a modality, B pairs, D row size.
"""

from __future__ import annotations

import abc
import dataclasses
import math
from typing import Any, ClassVar, NamedTuple, Self

import jax
import jax.numpy as jnp

from drex_jax.devices.axis import Axis
from drex_jax.models.graph.item_item import feature_graph, item_features
from drex_jax.models.graph.propagation import Graph
from drex_jax.models.graph.user_item import Behaviour, BehaviourGraph, averaged, embeddings
from drex_jax.models.pairwise import Pairs, Pairwise, Rows, TableSizes, TrainPairs
from drex_jax.models.protocol import Params
from drex_jax.models.settings import RankerSettings


class Constants(NamedTuple):
    """The arrays that never change.

    Attributes:
      behaviour: the graph of users and items.
      semantic: the graph of items.
      present: bool [M, I], true where an item has a modality.
    """

    behaviour: Behaviour
    semantic: Graph
    present: Any


@dataclasses.dataclass(frozen=True)
class TwoGraphs(Pairwise):
    """The shared base class.

    The parameters are the embeddings `table` [N, D] (users first), `features` by modality, and those of `init_content`.

    Attributes:
      graph: the graph of users and items.
      widths: F of each modality.
      called: the name of the model in error messages.
    """

    settings: RankerSettings
    graph: BehaviourGraph
    widths: tuple[int, ...]

    called: ClassVar[str]  # in messages

    @classmethod
    def over(cls, pairs: TrainPairs, *groups: Any) -> tuple[Self, Constants]:
        """Return the model and both graphs. Raises `UserError` if the data have no item features."""
        (settings,) = groups
        features = item_features(pairs.features, cls.called)
        graph, behaviour = BehaviourGraph.over(pairs, settings.edge_dropout)
        semantic = feature_graph(features, settings.neighbours, settings.first_modality)
        widths = tuple(values.shape[1] for values in features.values)
        model = cls(settings, TableSizes.of(pairs), graph, widths)
        return model, Constants(behaviour, semantic, features.present)

    # Methods that subclasses implement

    @abc.abstractmethod
    def init_content(self, key: jax.Array) -> dict[str, Any]:
        """Return new parameters other than the embeddings and the features."""

    @abc.abstractmethod
    def content(self, params: Params, constants: Constants) -> jax.Array:
        """Return the content that is added to the rows of items, [I, D]."""

    def own_loss(
        self, params: Params, constants: Constants, user: jax.Array, pairs: Pairs, axis: Axis
    ) -> dict[str, Any]:
        """Return the model's additional `loss` and `figures` for `Rows`. `user` [B, D] is as in `Rows`."""
        return {}

    # Methods of `Pairwise`

    def init(self, key: jax.Array) -> Params:
        """Return new parameters; features are zeros, until `given` replaces them."""
        first, second = jax.random.split(key)
        table = embeddings(first, self.sizes.users, self.sizes.items, self.settings.size)
        features = [jnp.zeros((self.sizes.items, width)) for width in self.widths]
        return {"table": table, "features": features, **self.init_content(second)}

    def given(self, pairs: TrainPairs) -> dict[str, Any]:
        """Return the features of the data, which initialise the parameters `features`."""
        return {"features": [jnp.asarray(each) for each in item_features(pairs.features, self.called).values]}

    def carried(self, params: Params, constants: Constants, key: jax.Array) -> Any:
        """Return the graph of the epoch's sample of pairs."""
        return self.graph.of_epoch(constants.behaviour, key)

    def all_rows(self, params: Params, constants: Constants, carry: Any) -> tuple[jax.Array, jax.Array]:
        """Return the averaged embeddings; those of items with their content."""
        table = averaged(constants.behaviour, carry, params["table"], self.settings.layers)
        return table[: self.sizes.users], table[self.sizes.users :] + self.content(params, constants)

    def rows(self, params: Params, constants: Constants, carry: Any, pairs: Pairs, key: jax.Array, axis: Axis) -> Rows:
        """Return the rows of the batch. L2 is on embeddings before averaging, as in LightGCN; public code has no L2."""
        users, items = self.all_rows(params, constants, carry)
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
    """Return weights [rows, columns] initialised like a linear layer in PyTorch: uniform within 1 / sqrt(rows)."""
    bound = 1 / math.sqrt(rows)
    return jax.random.uniform(key, (rows, columns), minval=-bound, maxval=bound)
