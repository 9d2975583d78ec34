"""List all targets of fuzzing by name."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Mapping

from tools.robustness.fuzzing import folders, readers
from tools.robustness.fuzzing.target import Target

TARGETS: Mapping[str, tuple[Callable[[pathlib.Path], Target], int]] = {  # with the number of inputs in the full suite
    "amazon": (readers.amazon, 40_000),
    "yelp": (readers.yelp, 40_000),
    "amazon_ratings": (readers.amazon_ratings_only, 150_000),
    "movielens": (readers.movielens, 40_000),
    "movielens_tags": (readers.movielens_tags, 40_000),
    "movielens_100k": (readers.movielens_100k, 40_000),
    "table_separated": (readers.table_separated, 40_000),
    "table_real": (readers.table_real, 40_000),
    "table_json": (readers.table_json, 40_000),
    "table_vectors": (readers.table_vectors, 40_000),
    "table_parquet": (readers.table_parquet, 40_000),
    "mmrec_inter": (readers.mmrec_inter, 40_000),
    "metadata": (readers.metadata, 150_000),
    "features": (folders.features, 150_000),
    "columns": (folders.columns, 100_000),
    "lists": (folders.lists, 60_000),
    "words": (folders.words, 20_000),
    "run": (folders.run, 10_000),
    "update": (folders.update, 20_000),
    "bert": (folders.bert, 40_000),
    "model": (folders.model, 1_000),
}
