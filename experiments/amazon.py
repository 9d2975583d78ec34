"""DReX on one category of the Amazon reviews; the argument is the category's name as its file has it.

Command:  python -m drex_jax.main --config=experiments/amazon.py:Musical_Instruments
Data:     the "5-core" file of 2014 (`reviews_CATEGORY_5.json.gz`) or 2018 (`CATEGORY_5.json.gz`), or the file of 2023
          (`CATEGORY.jsonl` or `CATEGORY.jsonl.gz`), in `$DREX_JAX_DATA/amazon_CATEGORY/` in lower case, such as
          `amazon_musical_instruments/`, or in `data/amazon_CATEGORY/` where DREX_JAX_DATA is not set;
          `--config.data.path=FILE` names any other place;
          `--config.data.tfds_dir=DIR` prepares it by TFDS (docs/data.md).
Expected: Musical Instruments, mean of 3 seeds (--config.replicas=3): prequential test MSE 0.836, MAE 0.676, NDCG@10
          0.051; 1 to 2 minutes for one seed with all baselines on 2 CPU cores (docs/results.md)
"""

import os
import pathlib

from ml_collections import ConfigDict

from drex_jax.common.errors import UserError
from drex_jax.training.settings import base

FILES = ("reviews_{}_5.json.gz", "{}_5.json.gz", "{}.jsonl.gz", "{}.jsonl")


def get_config(category: str = "") -> ConfigDict:
    """One category's reviews: ratings, texts and times, with the defaults, which were found on Musical Instruments."""
    if not category:
        raise UserError("name the category: --config=experiments/amazon.py:Musical_Instruments")
    folder = pathlib.Path(os.environ.get("DREX_JAX_DATA", "data"), f"amazon_{category.lower()}")
    files = [folder / name.format(category) for name in FILES]
    config = base()
    config.data.format = "amazon"
    config.data.name = f"Amazon {category.replace('_', ' ')}"
    config.data.path = str(next((file for file in files if file.is_file()), files[0]))
    config.text.vocabulary_size = 4000
    return config
