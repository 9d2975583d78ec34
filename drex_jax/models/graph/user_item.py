"""The graph of users and items, with an optional new sample of its edges in each epoch, and its averaged embeddings.

A sample favours pairs of rare users and rare items (FREEDOM: Zhou and Shen, MM 2023, section 3.2), and uses the node
degrees of the sample. Training uses the sample of the epoch; predictions use the whole graph.

Letters: U users, I items, N = U + I nodes, item i being node U + i, E train pairs, D row size.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np

from drex_jax.models.graph.propagation import Graph, count_chunks, propagate, symmetric
from drex_jax.models.graph.sampling import keep_edges
from drex_jax.models.pairwise import TableSizes, TrainPairs, xavier


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


@dataclasses.dataclass(frozen=True)
class BehaviourGraph:
    """The sizes of the graph, and each epoch's sample of it.

    Attributes:
      sizes: the sizes of the tables.
      num_kept: the number of pairs in a sample.
      num_chunks: enough further chunks for every sample; see `propagation.symmetric`.
      samples: true if each epoch has a sample; otherwise epochs use the whole graph.
    """

    sizes: TableSizes
    num_kept: int
    num_chunks: int
    samples: bool

    @classmethod
    def over(cls, pairs: TrainPairs, dropout: float) -> tuple[Self, Behaviour]:
        """Return the sizes and the graph of train pairs; each epoch leaves out the share `dropout` of the pairs."""
        user, item, counts = pairs.user, pairs.item, (pairs.num_users, pairs.num_items)
        num_chunks = count_chunks(user, item, *counts)
        build = jax.jit(symmetric, static_argnums=(2, 3, 5))
        weight = 1 / np.sqrt(np.bincount(user)[user] * np.bincount(item)[item].astype(np.float32))
        whole = build(user, item, *counts, None, num_chunks)
        graph = cls(TableSizes.of(pairs), max(1, int(len(user) * (1 - dropout))), num_chunks, dropout > 0)
        return graph, Behaviour(whole, user, item, weight.astype(np.float32))

    def of_epoch(self, behaviour: Behaviour, key: jax.Array) -> Graph | tuple[()]:
        """Return the graph of a new sample; () if the whole graph is used."""
        if not self.samples:
            return ()
        kept = keep_edges(key, behaviour.weight, self.num_kept)
        user, item = behaviour.user[kept], behaviour.item[kept]
        return symmetric(user, item, self.sizes.users, self.sizes.items, num_chunks=self.num_chunks)


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


def grown_table(table: jax.Array, known: TableSizes, sizes: TableSizes) -> jax.Array:
    """Return the embeddings of `known` users and items, with rows of zeros for new ones up to `sizes`."""
    of_users, of_items = np.split(np.asarray(table), [known.users])
    more = sizes.users - known.users, sizes.items - known.items
    return jnp.concatenate(
        [np.pad(rows, ((0, count), (0, 0))) for rows, count in zip((of_users, of_items), more, strict=True)]
    )
