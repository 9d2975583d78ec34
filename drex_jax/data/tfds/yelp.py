"""TFDS builder of the Yelp Open Dataset."""

from __future__ import annotations

from typing import ClassVar

from drex_jax.data.readers import yelp
from drex_jax.data.tfds.builder import Reviews, ReviewsConfig


class YelpReviews(Reviews):
    """`yelp_reviews`: one example for each review, in the order of the file."""

    READER = yelp
    BUILDER_CONFIGS: ClassVar[list[ReviewsConfig]] = [
        ReviewsConfig("open_dataset", rating_range=yelp.RATING_RANGE, description="All reviews of a release.")
    ]
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "Put yelp_academic_dataset_review.json, plain or gzip, into manual_dir. It is part of the archive that "
        "https://business.yelp.com/data/resources/open-dataset/ gives to those who accept its terms."
    )
    DESCRIPTION = (
        "Reviews of businesses from the Yelp Open Dataset: who gave what how many stars, when, and with which "
        "words. Dates carry no zone and are taken as UTC."
    )
    HOMEPAGE = "https://business.yelp.com/data/resources/open-dataset/"
    CITATION = (
        "@misc{yelp_open_dataset,\n  title = {Yelp Open Dataset},\n  author = {{Yelp Inc.}},\n"
        "  howpublished = {https://business.yelp.com/data/resources/open-dataset/}\n}"
    )
