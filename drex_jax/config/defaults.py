"""Which settings of `ranker` each model that only ranks reads, and its defaults and search space."""

from __future__ import annotations

from typing import Any

_EACH = ("size", "batch_size", "l2")
_GRAPHS = ("layers", "neighbours", "edge_dropout")
RANKER_FIELDS: dict[str, tuple[str, ...]] = {  # which fields of `ranker` a model reads
    "crane": (*_EACH, *_GRAPHS),
    "crane_released": (*_EACH, *_GRAPHS, "first_modality"),
    "crane_released_axis_fixed": (*_EACH, *_GRAPHS, "first_modality"),
    "lightgcn": (*_EACH, "layers", "edge_dropout"),
    "freedom": (*_EACH, *_GRAPHS, "first_modality", "feature_weight"),
    "vbpr": _EACH,
    "bpr": _EACH,
    "popularity": (),
}
RANKERS = tuple(RANKER_FIELDS)
RANKER_SETTINGS: dict[str, dict[str, Any]] = {  # where a model has others than the defaults; docs/results.md has why
    "crane": {"ranker.layers": 3, "ranker.edge_dropout": 0.5},
    "crane_released": {
        "ranker.batch_size": 8192,  # a step costs the square of the items, whatever the batch
        "ranker.edge_dropout": 0.8,
        "ranker.l2": 0.0,
        "train.learning_rate": 5e-3,
        "train.epochs": 50,
    },
    "crane_released_axis_fixed": {"ranker.edge_dropout": 0.8, "ranker.l2": 0.0},
    "lightgcn": {"ranker.layers": 3},
    "freedom": {"ranker.edge_dropout": 0.8},
    "vbpr": {"ranker.l2": 0.1},
    "bpr": {"ranker.l2": 1e-2},
}
RANKER_SPACES: dict[str, tuple[str, ...]] = {  # what drex tune tries
    "crane": (
        "ranker.layers=2,3",
        "ranker.edge_dropout=0.3,0.5,0.8",
        "ranker.l2=1e-6..1e-2",
        "crane.rounds=0,1,2,3",
        "crane.contrastive_weight=1e-3..1e-1",
    ),
    "crane_released": ("ranker.edge_dropout=0.5,0.8", "ranker.l2=1e-6..1e-2", "train.learning_rate=1e-3..1e-2"),
    "crane_released_axis_fixed": ("ranker.edge_dropout=0.2,0.5,0.8", "ranker.l2=1e-6..1e-2"),
    "lightgcn": ("ranker.layers=1,2,3,4", "ranker.l2=1e-6..1e-1"),
    "freedom": (
        "ranker.layers=2,3",
        "ranker.edge_dropout=0.8,0.9",
        "ranker.feature_weight=1e-5..1e-2",
        "ranker.l2=1e-6..1e-2",
    ),
    "vbpr": ("ranker.l2=1e-4..1.0", "train.learning_rate=5e-4..5e-3"),
    "bpr": ("ranker.l2=1e-4..1.0", "train.learning_rate=5e-4..5e-3"),
}
