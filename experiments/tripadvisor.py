"""DReX on hotel reviews from TripAdvisor, read as a table.

There is no official file. The columns below are those of a dump with one review a line; a dump with other names needs
only other names here or on the command line, such as --config.data.columns.user=reviewer. An empty name means that the
table lacks the column: without times rows count as simultaneous, and only split.kind=random or given makes sense.

Command:  python -m drex_jax.main --config=experiments/tripadvisor.py
Data:     `reviews.csv` (also .tsv, .jsonl or .parquet, named by --config.data.path) with the columns `author`,
          `hotel_id`, `rating` (1 to 5), `date` (such as 2012-08-31) and `text`, in `$DREX_JAX_DATA/tripadvisor/`, or in
          `data/tripadvisor/` where DREX_JAX_DATA is not set. Dates of another form: --config.data.time_format=%d.%m.%Y
          `--config.data.tfds_dir=DIR` prepares it by TFDS (docs/data.md).
Expected: not measured: the package was tested on tables of this form, but not on this data set.
"""

import os
import pathlib

from ml_collections import ConfigDict

from drex_jax.training.settings import base


def get_config() -> ConfigDict:
    """Ratings, review texts and dates from a table; relevant for ranking are ratings of 4 and 5."""
    config = base()
    config.data.format = "table"
    config.data.name = "TripAdvisor"
    config.data.path = str(pathlib.Path(os.environ.get("DREX_JAX_DATA", "data"), "tripadvisor", "reviews.csv"))
    config.data.columns.user = "author"
    config.data.columns.item = "hotel_id"
    config.data.columns.rating = "rating"
    config.data.columns.timestamp = "date"
    config.data.columns.text = "text"
    config.data.rating_min = 1.0
    config.data.rating_max = 5.0
    config.evaluate.threshold = 4.0
    return config
