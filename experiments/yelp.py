"""DReX on the Yelp Open Dataset.

Command:  python -m drex_jax.main --config=experiments/yelp.py
          On the first 100,000 reviews: add --config.data.max_interactions=100000
Data:     `yelp_academic_dataset_review.json`, plain or gzip, from https://business.yelp.com/data/resources/open-dataset/
          in `$DREX_JAX_DATA/yelp/`, or in `data/yelp/` where DREX_JAX_DATA is not set; `--config.data.path=FILE` names
          any other place; `--config.data.tfds_dir=DIR` prepares it by TFDS (docs/data.md). The CSV of the Kaggle
          competition of 2013 is read as a table:
          --config.data.format=table --config.data.path=yelp.csv --config.data.rating_min=1 --config.data.rating_max=5
          --config.data.columns.user=user_id --config.data.columns.item=business_id --config.data.columns.rating=stars
          --config.data.columns.timestamp=date
Expected: on the first 3,610 reviews of the file, where nearly every user has one review, no model beats the running
          bias: prequential test MSE 2.18 against 2.17; under 2 minutes on 2 CPU cores (docs/results.md)
"""

import os
import pathlib

from ml_collections import ConfigDict

from drex_jax.training.settings import base


def get_config() -> ConfigDict:
    """Ratings, review texts and times; many users with one review each, so a small state over the running bias."""
    config = base()
    config.data.format = "yelp"
    config.data.name = "Yelp"
    config.data.path = str(pathlib.Path(os.environ.get("DREX_JAX_DATA", "data"), "yelp"))
    return config
