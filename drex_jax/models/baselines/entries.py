"""Registry entries of the baselines. docs/results.md says why some settings differ from the defaults."""

from __future__ import annotations

from typing import Any

from drex_jax.models.baselines.settings import NarreSettings
from drex_jax.models.entry import ModelEntry, Need, Updates
from drex_jax.models.settings import EVERY_RANKER, GRAPHS, RankerSettings

_HERE = "drex_jax.models.baselines"
_RATINGS = (Need.RATINGS,)
_FEATURES = (*GRAPHS, "ranker.first_modality")
_NO_MODEL: dict[str, Any] = {"configurable": False, "baseline": True}


def _ranker(name: str, model: str, *reads: str, **others: Any) -> ModelEntry:
    """Return the entry of a model trained on pairs; `reads`: the fields that it reads besides `EVERY_RANKER`."""
    groups = {"ranker": RankerSettings}
    return ModelEntry(name, f"{_HERE}.{model}", groups=groups, reads=(*EVERY_RANKER, *reads), rates=False, **others)


ENTRIES = (
    *(
        ModelEntry(name, f"{_HERE}.bias:{kind}", needs=_RATINGS, trained=False, **_NO_MODEL)
        for name, kind in (("global_mean", "GlobalMean"), ("bias", "Bias"), ("running_bias", "RunningBias"))
    ),
    ModelEntry(
        "matrix_factorisation",
        f"{_HERE}.matrix_factorisation:MatrixFactorisation",
        needs=_RATINGS,
        training={"epochs": 100, "learning_rate": 3e-3, "warmup_steps": 10, "weight_decay": 0.0, "patience": 5},
        penalty={"l2": (0.03, 0.1, 0.3, 1.0, 3.0)},
        **_NO_MODEL,
    ),
    ModelEntry(
        "narre",
        f"{_HERE}.narre:NARRE",
        builder=f"{_HERE}.narre_stream:stream_of",
        groups={"narre": NarreSettings},
        reads=("narre",),
        needs=(*_RATINGS, Need.TEXTS),
        texts=True,
        baseline=True,
    ),
    _ranker(
        "crane_released",
        "crane_released:Released",
        *_FEATURES,
        settings={
            "ranker.batch_size": 8192,  # the cost of a step is quadratic in the items, and independent of the batch
            "ranker.edge_dropout": 0.8,
            "ranker.l2": 0.0,
            "train.learning_rate": 5e-3,
            "train.epochs": 50,
        },
        space=("ranker.edge_dropout=0.5,0.8", "ranker.l2=1e-6..1e-2", "train.learning_rate=1e-3..1e-2"),
    ),
    _ranker(
        "crane_released_axis_fixed",
        "crane_released:ReleasedAxisFixed",
        *_FEATURES,
        settings={"ranker.edge_dropout": 0.8, "ranker.l2": 0.0},
        space=("ranker.edge_dropout=0.2,0.5,0.8", "ranker.l2=1e-6..1e-2"),
    ),
    _ranker(
        "lightgcn",
        "lightgcn:LightGCN",
        *("ranker.layers", "ranker.edge_dropout"),
        settings={"ranker.layers": 3},
        space=("ranker.layers=1,2,3,4", "ranker.l2=1e-6..1e-1"),
        updates=Updates.PAIRS,
    ),
    _ranker(
        "freedom",
        "freedom:FREEDOM",
        *(*_FEATURES, "ranker.feature_weight"),
        settings={"ranker.edge_dropout": 0.8},
        space=(
            *("ranker.layers=2,3", "ranker.edge_dropout=0.8,0.9"),
            *("ranker.feature_weight=1e-5..1e-2", "ranker.l2=1e-6..1e-2"),
        ),
    ),
    *(
        _ranker(
            name, model, settings={"ranker.l2": l2}, space=("ranker.l2=1e-4..1.0", "train.learning_rate=5e-4..5e-3")
        )
        for name, model, l2 in (("vbpr", "vbpr:VBPR", 0.1), ("bpr", "factors:BPR", 1e-2))
    ),
    ModelEntry(
        "popularity",
        f"{_HERE}.popularity:Popularity",
        rates=False,
        trained=False,
        baseline=True,
        updates=Updates.COUNTS,
    ),
)
