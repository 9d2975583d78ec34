"""Settings that all rankers trained on pairs share: `ranker`."""

from __future__ import annotations

import dataclasses

from drex_jax.common.settings import number, setting, share, whole

EVERY_RANKER = ("ranker.size", "ranker.batch_size", "ranker.l2")  # read by all models that are trained on pairs
GRAPHS = ("ranker.layers", "ranker.neighbours", "ranker.edge_dropout")  # read by models with both graphs


@dataclasses.dataclass(frozen=True)
class RankerSettings:
    """`ranker`: settings of models that only rank. A model reads the fields that its registry entry names."""

    size: int = setting(64, whole(1), "entries of an embedding")
    batch_size: int = setting(2048, whole(1), "pairs of a batch")
    l2: float = setting(1e-4, number(0.0), "weight of the squared embeddings of a batch's users and items")
    layers: int = setting(2, whole(0), "propagation layers of the user-item graph")
    neighbours: int = setting(10, whole(1), "nearest items of an item in the item-item graph")
    edge_dropout: float = setting(
        0.0, number(0.0, below=1.0), "share of interactions that an epoch's user-item graph leaves out"
    )
    feature_weight: float = setting(1e-3, number(0.0), "freedom: weight of the loss on features alone")
    first_modality: float = setting(
        0.1, share(), "freedom, crane_released*: weight of the image graph, or of the first modality by name"
    )
