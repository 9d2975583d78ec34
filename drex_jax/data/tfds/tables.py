"""TFDS builders of tables with one review in each row: hotels of TripAdvisor, and any other table."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from drex_jax.data.readers import table
from drex_jax.data.readers.chunk import Chunk
from drex_jax.data.readers.quarantine import Quarantine
from drex_jax.data.tfds.builder import Reviews, ReviewsConfig


class ReviewTable(Reviews):
    """`review_table`: any CSV, TSV, JSON lines or Parquet file, with the columns that the config names."""

    READER = table
    BUILDER_CONFIGS: ClassVar[list[ReviewsConfig]] = [
        ReviewsConfig(
            "plain",
            columns={name: name for name in table.KNOWN if name != "split"},
            description="A table with the columns user item rating timestamp text.",
        )
    ]
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "Put the table into manual_dir: CSV or TSV with a header, JSON lines or Parquet; text may be gzip."
    )

    DESCRIPTION = "Reviews from a table."

    def chunks(self, path: Path, quarantine: Quarantine) -> Iterator[Chunk]:
        config = self.builder_config
        return table.read(path, config.columns, config.time_format, config.rating_range, quarantine)


class TripAdvisorReviews(ReviewTable):
    """`tripadvisor_reviews`: hotel reviews in a table with the columns of `experiments/tripadvisor.py`."""

    name = "tripadvisor_reviews"
    BUILDER_CONFIGS: ClassVar[list[ReviewsConfig]] = [
        ReviewsConfig(
            "hotels",
            columns={"user": "author", "item": "hotel_id", "rating": "rating", "timestamp": "date", "text": "text"},
            description="A table with the columns author hotel_id rating date text.",
        )
    ]
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "There is no official file. Put a table with one review in each row and the columns author, hotel_id, rating "
        "(1 to 5), date (such as 2012-08-31) and text into manual_dir: CSV or TSV with a header, JSON lines or Parquet."
    )
    DESCRIPTION = "Reviews of hotels from TripAdvisor: who rated what how, when, and with which words."
    HOMEPAGE = "https://www.cs.virginia.edu/~hw5x/Data/LARA/TripAdvisor/"
    CITATION = (
        "@inproceedings{wang2010latent,\n  title = {Latent Aspect Rating Analysis on Review Text Data: A Rating "
        "Regression Approach},\n  author = {Wang, Hongning and Lu, Yue and Zhai, Chengxiang},\n"
        "  booktitle = {KDD},\n  year = {2010}\n}"
    )
