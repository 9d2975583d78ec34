"""TFDS builder of Amazon reviews, by release and category."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

from drex_jax.data.readers import amazon
from drex_jax.data.tfds.builder import Reviews, ReviewsConfig


class Release(NamedTuple):
    """One release.

    Attributes:
      files: patterns for the file name of a category.
      homepage: address of the release.
      citation: BibTeX entry that the release asks for.
      categories: categories as in the file names, separated by spaces.
    """

    files: tuple[str, ...]
    homepage: str
    citation: str
    categories: str


RELEASES = {
    "2014": Release(
        ("reviews_{}_5.json.gz", "reviews_{}_5.json"),
        "https://jmcauley.ucsd.edu/data/amazon/",
        "@inproceedings{he2016ups,\n  title = {Ups and Downs: Modeling the Visual Evolution of Fashion Trends with "
        "One-Class Collaborative Filtering},\n  author = {He, Ruining and McAuley, Julian},\n  booktitle = {WWW},\n"
        "  year = {2016}\n}",
        "Amazon_Instant_Video Apps_for_Android Automotive Baby Beauty Books CDs_and_Vinyl "
        "Cell_Phones_and_Accessories Clothing_Shoes_and_Jewelry Digital_Music Electronics Grocery_and_Gourmet_Food "
        "Health_and_Personal_Care Home_and_Kitchen Kindle_Store Movies_and_TV Musical_Instruments Office_Products "
        "Patio_Lawn_and_Garden Pet_Supplies Sports_and_Outdoors Tools_and_Home_Improvement Toys_and_Games "
        "Video_Games",
    ),
    "2018": Release(
        ("{}_5.json.gz", "{}_5.json"),
        "https://nijianmo.github.io/amazon/",
        "@inproceedings{ni2019justifying,\n  title = {Justifying Recommendations using Distantly-Labeled Reviews and "
        "Fine-Grained Aspects},\n  author = {Ni, Jianmo and Li, Jiacheng and McAuley, Julian},\n"
        "  booktitle = {EMNLP-IJCNLP},\n  year = {2019}\n}",
        "All_Beauty AMAZON_FASHION Appliances Arts_Crafts_and_Sewing Automotive Books CDs_and_Vinyl "
        "Cell_Phones_and_Accessories Clothing_Shoes_and_Jewelry Digital_Music Electronics Gift_Cards "
        "Grocery_and_Gourmet_Food Home_and_Kitchen Industrial_and_Scientific Kindle_Store Luxury_Beauty "
        "Magazine_Subscriptions Movies_and_TV Musical_Instruments Office_Products Patio_Lawn_and_Garden "
        "Pet_Supplies Prime_Pantry Software Sports_and_Outdoors Tools_and_Home_Improvement Toys_and_Games "
        "Video_Games",
    ),
    "2023": Release(
        ("{}.jsonl.gz", "{}.jsonl"),
        "https://amazon-reviews-2023.github.io/",
        "@article{hou2024bridging,\n  title = {Bridging Language and Items for Retrieval and Recommendation},\n"
        "  author = {Hou, Yupeng and Li, Jiacheng and He, Zhankui and Yan, An and Chen, Xiusi and McAuley, Julian},\n"
        "  journal = {arXiv preprint arXiv:2403.03952},\n  year = {2024}\n}",
        "All_Beauty Amazon_Fashion Appliances Arts_Crafts_and_Sewing Automotive Baby_Products "
        "Beauty_and_Personal_Care Books CDs_and_Vinyl Cell_Phones_and_Accessories Clothing_Shoes_and_Jewelry "
        "Digital_Music Electronics Gift_Cards Grocery_and_Gourmet_Food Handmade_Products Health_and_Household "
        "Health_and_Personal_Care Home_and_Kitchen Industrial_and_Scientific Kindle_Store Magazine_Subscriptions "
        "Movies_and_TV Musical_Instruments Office_Products Patio_Lawn_and_Garden Pet_Supplies Software "
        "Sports_and_Outdoors Subscription_Boxes Tools_and_Home_Improvement Toys_and_Games Unknown "
        "Video_Games",
    ),
}


def _config(year: str, category: str) -> ReviewsConfig:
    return ReviewsConfig(
        f"{year}_{category}",
        files=tuple(pattern.format(category) for pattern in RELEASES[year].files),
        rating_range=amazon.RATING_RANGE,
        description=f"{category.replace('_', ' ')} in the release of {year}.",
    )


class AmazonReviews(Reviews):
    """`amazon_reviews/2014_Musical_Instruments` and so on: one example for each review, in the order of the file.

    For 2014 and 2018 these are the "5-core" files. `amazon_reviews/any`, the default, is the only file of reviews in
    `manual_dir`, of any name, release and category.
    """

    READER = amazon
    BUILDER_CONFIGS: ClassVar[list[ReviewsConfig]] = [
        ReviewsConfig("any", rating_range=amazon.RATING_RANGE, description="The only file of reviews in manual_dir."),
        *(_config(year, category) for year, release in RELEASES.items() for category in release.categories.split()),
    ]
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "Put the category's file into manual_dir, plain or gzip: reviews_CATEGORY_5.json.gz of 2014 "
        f"({RELEASES['2014'].homepage}), CATEGORY_5.json.gz of 2018 ({RELEASES['2018'].homepage}) or CATEGORY.jsonl.gz "
        f"of 2023 ({RELEASES['2023'].homepage})."
    )
    DESCRIPTION = (
        "Reviews of Amazon's products, as the group of Julian McAuley publishes them: who gave what how many "
        "stars, when, and with which words. The text is the review's title, a line break and its body."
    )

    def about(self) -> dict[str, str]:
        release = RELEASES.get(self.builder_config.name.partition("_")[0])
        releases = [release] if release else list(RELEASES.values())
        citation = "\n".join(release.citation for release in releases)
        return {"description": self.DESCRIPTION, "homepage": releases[-1].homepage, "citation": citation}
