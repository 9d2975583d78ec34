"""Registry entry of CRANE."""

from __future__ import annotations

from drex_jax.models.crane.settings import CraneSettings
from drex_jax.models.entry import ModelEntry, Updates
from drex_jax.models.settings import EVERY_RANKER, GRAPHS, RankerSettings

ENTRIES = (
    ModelEntry(
        name="crane",
        model="drex_jax.models.crane.model:Crane",
        groups={"ranker": RankerSettings, "crane": CraneSettings},
        reads=(*EVERY_RANKER, *GRAPHS, "crane"),
        settings={"ranker.layers": 3, "ranker.edge_dropout": 0.5},
        space=(
            "ranker.layers=2,3",
            "ranker.edge_dropout=0.3,0.5,0.8",
            "ranker.l2=1e-6..1e-2",
            "crane.rounds=0,1,2,3",
            "crane.contrastive_weight=1e-3..1e-1",
        ),
        rates=False,
        updates=Updates.PAIRS,
    ),
)
