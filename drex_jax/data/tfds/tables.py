"""TFDS builders of tables with one review a row: TripAdvisor's hotels, and any other."""

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

    @classmethod
    def find(cls, path: str | Path | None) -> Path:
        return table.find(path)

    def chunks(self, path: Path, quarantine: Quarantine) -> Iterator[Chunk]:
        config = self.builder_config
        return table.read(path, config.columns, config.time_format, config.rating_range, quarantine)

    def about(self) -> dict[str, str]:
        return {"description": "Reviews from a table.", "homepage": "", "citation": ""}


class TripAdvisorReviews(ReviewTable):
    """`tripadvisor_reviews`: hotel reviews, in a dump with the columns of `experiments/tripadvisor.py`."""

    name = "tripadvisor_reviews"
    BUILDER_CONFIGS: ClassVar[list[ReviewsConfig]] = [
        ReviewsConfig(
            "hotels",
            columns={"user": "author", "item": "hotel_id", "rating": "rating", "timestamp": "date", "text": "text"},
            description="A table with the columns author hotel_id rating date text.",
        )
    ]
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "There is no official file. Put a table with one review a row and the columns author, hotel_id, rating (1 to "
        "5), date (such as 2012-08-31) and text into manual_dir: CSV or TSV with a header, JSON lines or Parquet."
    )

    def about(self) -> dict[str, str]:
        return {
            "description": "Reviews of hotels from TripAdvisor: who rated what how, when, and with which words.",
            "homepage": "https://www.cs.virginia.edu/~hw5x/Data/LARA/TripAdvisor/",
            "citation": "@inproceedings{wang2010latent,\n  title = {Latent Aspect Rating Analysis on Review Text Data: "
            "A Rating Regression Approach},\n  author = {Wang, Hongning and Lu, Yue and Zhai, Chengxiang},\n"
            "  booktitle = {KDD},\n  year = {2010}\n}",
        }
