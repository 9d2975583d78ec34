"""The graph of users and items, with an optional new sample of its edges in each epoch, and its averaged embeddings.

A sample favours pairs of rare users and rare items (FREEDOM: Zhou and Shen, MM 2023, section 3.2), and uses the node
degrees of the sample. Training uses the sample of the epoch; predictions use the whole graph.

Letters: U users, I items, N = U + I nodes, item i being node U + i, E train pairs, D row size.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from drex_jax.models.graph.propagation import Graph, count_chunks, propagate, symmetric
from drex_jax.models.graph.sampling import keep_edges
from drex_jax.models.pairwise import xavier


class Behaviour(NamedTuple):
    """The constants of the graph.

    Attributes:
      whole: the graph of all train pairs.
      user, item: int32 [E], the train pairs.
      weight: float32 [E], sampling weight of each pair: 1 / sqrt(pairs of the user x pairs of the item).
    """

    whole: Graph
    user: Any
    item: Any
    weight: Any


class BehaviourGraph:
    """Builds `Behaviour`, and the graph of each epoch."""

    def __init__(self, user: np.ndarray, item: np.ndarray, num_users: int, num_items: int, dropout: float):
        """Take the distinct train pairs `user` and `item`, int32 [E]; `dropout` is the share left out in an epoch."""
        self._nodes = num_users, num_items
        self._num_kept = max(1, int(len(user) * (1 - dropout)))
        self._num_chunks = count_chunks(user, item, num_users, num_items)  # enough for every sample
        self._samples = dropout > 0
        build = jax.jit(symmetric, static_argnums=(2, 3, 5))
        weight = 1 / np.sqrt(np.bincount(user)[user] * np.bincount(item)[item].astype(np.float32))
        whole = build(user, item, num_users, num_items, None, self._num_chunks)
        self.constants = Behaviour(whole, user, item, weight.astype(np.float32))

    def of_epoch(self, behaviour: Behaviour, key: jax.Array) -> Graph | tuple[()]:
        """Return the graph of a new sample; () if the whole graph is used."""
        if not self._samples:
            return ()
        kept = keep_edges(key, behaviour.weight, self._num_kept)
        return symmetric(behaviour.user[kept], behaviour.item[kept], *self._nodes, num_chunks=self._num_chunks)


def averaged(behaviour: Behaviour, sample: Graph | tuple[()], table: jax.Array, layers: int) -> jax.Array:
    """Return LightGCN's embeddings (He et al., SIGIR 2020): the mean of a table [N, D] and of its propagated layers.

    `sample` is the result of `of_epoch`; () uses the whole graph.
    """
    graph = sample if isinstance(sample, Graph) else behaviour.whole
    total = table
    for _ in range(layers):
        table = propagate(graph, table)
        total = total + table
    return total / (layers + 1)


def embeddings(key: jax.Array, num_users: int, num_items: int, size: int) -> jax.Array:
    """Return new embeddings of users and items, [N, D]; users and items are initialised separately."""
    user, item = jax.random.split(key)
    return jnp.concatenate([xavier(user, num_users, size), xavier(item, num_items, size)])
