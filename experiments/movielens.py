"""DReX on MovieLens: ratings only, by default of the "latest-small" set.

Under a global time split nearly everybody in the test part is new, so that what counts is how fast a state learns.
Hardly any rating has a tag, so texts are off; with --config.text.enabled=true the tags of a rating are its text.

Command:  python -m drex_jax.main --config=experiments/movielens.py
Data:     `ratings.csv` (and `tags.csv`), plain or gzip, or `u.data`, from https://grouplens.org/datasets/movielens/
          in `$DREX_JAX_DATA/movielens_latest_small/`, or in `data/movielens_latest_small/` where DREX_JAX_DATA is not
          set; another set: --config.data.path=FOLDER --config.data.name="MovieLens 25M"
Expected: latest-small, mean of 3 seeds (--config.replicas=3): prequential test MSE 0.553, MAE 0.541; 1 to 2 minutes a
          seed on 2 CPU cores (docs/results.md)
"""

import os
import pathlib

from ml_collections import ConfigDict

from drex_jax.training.settings import base


def get_config() -> ConfigDict:
    """Ratings and times, without texts and without the running-bias residual."""
    config = base()
    config.data.format = "movielens"
    config.data.name = "MovieLens latest-small"
    config.data.path = str(pathlib.Path(os.environ.get("DREX_JAX_DATA", "data"), "movielens_latest_small"))
    config.text.enabled = False
    config.model.state_size = 32
    config.model.feature_size = 32
    config.model.dropout = 0.2
    config.model.residual = False
    config.model.ranking_weight = 0.1
    config.train.epochs = 25
    config.train.patience = 6
    config.train.bptt_windows = 32
    config.train.learning_rate = 1e-2
    config.train.weight_decay = 1e-4
    return config
