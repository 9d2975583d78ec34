"""TFDS builder of the Yelp Open Dataset's reviews."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from drex_jax.data.readers import json_reviews, yelp
from drex_jax.data.readers.chunk import Chunk
from drex_jax.data.readers.quarantine import Quarantine
from drex_jax.data.tfds.builder import Reviews, ReviewsConfig


class YelpReviews(Reviews):
    """`yelp_reviews`: one example a review, in the order of the file."""

    BUILDER_CONFIGS: ClassVar[list[ReviewsConfig]] = [
        ReviewsConfig("open_dataset", rating_range=yelp.RATING_RANGE, description="All reviews of a release.")
    ]
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "Put yelp_academic_dataset_review.json, plain or gzip, into manual_dir. It is part of the archive that "
        "https://business.yelp.com/data/resources/open-dataset/ gives to those who accept its terms."
    )

    @classmethod
    def find(cls, path: str | Path | None) -> Path:
        return yelp.find(path)

    def chunks(self, path: Path, quarantine: Quarantine) -> Iterator[Chunk]:
        assert self.builder_config.rating_range is not None
        return json_reviews.read(path, yelp.FORMAT, self.builder_config.rating_range, quarantine)

    def about(self) -> dict[str, str]:
        return {
            "description": (
                "Reviews of businesses from the Yelp Open Dataset: who gave what how many stars, when, and with which "
                "words. Dates carry no zone and are taken as UTC."
            ),
            "homepage": "https://business.yelp.com/data/resources/open-dataset/",
            "citation": "@misc{yelp_open_dataset,\n  title = {Yelp Open Dataset},\n  author = {{Yelp Inc.}},\n"
            "  howpublished = {https://business.yelp.com/data/resources/open-dataset/}\n}",
        }
