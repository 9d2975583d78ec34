"""CRANE, its released variants or a baseline on TikTok in MMRec's layout; the argument is the model (default: crane).

Command:  python -m drex_jax.main --config=experiments/crane_tiktok.py:crane
          (crane crane_released crane_released_axis_fixed lightgcn freedom vbpr bpr popularity)
Data:     `tiktok.inter`, `image_feat.npy` and `audio_feat.npy` in `$DREX_JAX_DATA/tiktok/`, or in `data/tiktok/` where
          DREX_JAX_DATA is not set; --config.data.path=FOLDER names any other place
Expected: docs/results.md has test figures and times of every model
"""

from typing import Any

from ml_collections import ConfigDict

from drex_jax.training.settings import ranking

TUNED: dict[str, dict[str, Any]] = {  # by drex tune, on validation; docs/results.md has the trials
    "crane": {
        "ranker.layers": 2,
        "ranker.edge_dropout": 0.3,
        "ranker.l2": 2.21e-05,
        "crane.rounds": 0,
        "crane.contrastive_weight": 0.001998,
    },
    "lightgcn": {"ranker.layers": 4, "ranker.l2": 0.002677},
    "freedom": {
        "ranker.layers": 3,
        "ranker.edge_dropout": 0.9,
        "ranker.feature_weight": 0.0001468,
        "ranker.l2": 3.47e-06,
    },
    "vbpr": {"ranker.l2": 0.0267, "train.learning_rate": 0.002682},
    "bpr": {"ranker.l2": 0.1791, "train.learning_rate": 0.00409},
}


def get_config(model: str = "crane") -> ConfigDict:
    """Full ranking, protocol=mmrec, with the settings that validation on these data chose."""
    config = ranking(model, "tiktok", "TikTok")
    config.update_from_flattened_dict(TUNED.get(model, {}))
    return config
