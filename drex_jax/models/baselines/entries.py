"""Registry entries of the baselines. docs/results.md says why settings are others than the defaults."""

from __future__ import annotations

from drex_jax.models.baselines.settings import NarreSettings
from drex_jax.models.entry import ModelEntry, Need, Updates
from drex_jax.models.settings import EVERY_RANKER, GRAPHS, RankerSettings

_HERE = "drex_jax.models.baselines"
_RANKER = {"ranker": RankerSettings}
ENTRIES = (
    *(
        ModelEntry(
            name, f"{_HERE}.bias:{kind}", needs=(Need.RATINGS,), trained=False, configurable=False, baseline=True
        )
        for name, kind in (("global_mean", "GlobalMean"), ("bias", "Bias"), ("running_bias", "RunningBias"))
    ),
    ModelEntry(
        name="matrix_factorisation",
        model=f"{_HERE}.matrix_factorisation:MatrixFactorisation",
        needs=(Need.RATINGS,),
        configurable=False,
        baseline=True,
        training={"epochs": 100, "learning_rate": 3e-3, "warmup_steps": 10, "weight_decay": 0.0, "patience": 5},
        penalty={"l2": (0.03, 0.1, 0.3, 1.0, 3.0)},
    ),
    ModelEntry(
        name="narre",
        model=f"{_HERE}.narre:NARRE",
        builder=f"{_HERE}.narre_stream:stream_of",
        groups={"narre": NarreSettings},
        reads=("narre",),
        needs=(Need.RATINGS, Need.TEXTS),
        texts=True,
        baseline=True,
    ),
    ModelEntry(
        name="crane_released",
        model=f"{_HERE}.crane_released:Released",
        groups=_RANKER,
        reads=(*EVERY_RANKER, *GRAPHS, "ranker.first_modality"),
        settings={
            "ranker.batch_size": 8192,  # a step costs the square of the items, whatever the batch
            "ranker.edge_dropout": 0.8,
            "ranker.l2": 0.0,
            "train.learning_rate": 5e-3,
            "train.epochs": 50,
        },
        space=("ranker.edge_dropout=0.5,0.8", "ranker.l2=1e-6..1e-2", "train.learning_rate=1e-3..1e-2"),
        rates=False,
    ),
    ModelEntry(
        name="crane_released_axis_fixed",
        model=f"{_HERE}.crane_released:ReleasedAxisFixed",
        groups=_RANKER,
        reads=(*EVERY_RANKER, *GRAPHS, "ranker.first_modality"),
        settings={"ranker.edge_dropout": 0.8, "ranker.l2": 0.0},
        space=("ranker.edge_dropout=0.2,0.5,0.8", "ranker.l2=1e-6..1e-2"),
        rates=False,
    ),
    ModelEntry(
        name="lightgcn",
        model=f"{_HERE}.lightgcn:LightGCN",
        groups=_RANKER,
        reads=(*EVERY_RANKER, "ranker.layers", "ranker.edge_dropout"),
        settings={"ranker.layers": 3},
        space=("ranker.layers=1,2,3,4", "ranker.l2=1e-6..1e-1"),
        rates=False,
        updates=Updates.PAIRS,
    ),
    ModelEntry(
        name="freedom",
        model=f"{_HERE}.freedom:FREEDOM",
        groups=_RANKER,
        reads=(*EVERY_RANKER, *GRAPHS, "ranker.first_modality", "ranker.feature_weight"),
        settings={"ranker.edge_dropout": 0.8},
        space=(
            *("ranker.layers=2,3", "ranker.edge_dropout=0.8,0.9"),
            *("ranker.feature_weight=1e-5..1e-2", "ranker.l2=1e-6..1e-2"),
        ),
        rates=False,
    ),
    ModelEntry(
        name="vbpr",
        model=f"{_HERE}.vbpr:VBPR",
        groups=_RANKER,
        reads=EVERY_RANKER,
        settings={"ranker.l2": 0.1},
        space=("ranker.l2=1e-4..1.0", "train.learning_rate=5e-4..5e-3"),
        rates=False,
    ),
    ModelEntry(
        name="bpr",
        model=f"{_HERE}.factors:BPR",
        groups=_RANKER,
        reads=EVERY_RANKER,
        settings={"ranker.l2": 1e-2},
        space=("ranker.l2=1e-4..1.0", "train.learning_rate=5e-4..5e-3"),
        rates=False,
    ),
    ModelEntry(
        name="popularity",
        model=f"{_HERE}.popularity:Popularity",
        rates=False,
        trained=False,
        baseline=True,
        updates=Updates.COUNTS,
    ),
)
