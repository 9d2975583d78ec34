"""Write synthetic reviews in the format and with the proportions of the Yelp Open Dataset, of any size."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from drex_jax.common.files import replacing
from drex_jax.common.progress import progress_bar
from drex_jax.data.synthetic.text import Lexicon

REVIEWS, USERS, ITEMS = 7_000_000, 2_000_000, 150_000  # about the sizes of the real data set
USER_SKEW, ITEM_SKEW = 0.6, 0.7  # exponents of Zipf's law
MEDIAN_WORDS, LENGTH_SPREAD, MAX_WORDS = 81, 0.85, 1000  # words of a review: log-normal, like real ones
BLOCK = 50_000  # reviews written at once
CORPUS_WORDS = 4_000_000  # words of the one long text from which reviews are cut
BEGIN, END = 1_108_000_000, 1_640_000_000  # seconds since 1970: 2005 to 2021
_LINE = (
    b'{"review_id":"%022d","user_id":"u%021d","business_id":"b%021d","stars":%d.0,"useful":0,"funny":0,"cool":0,'
    b'"text":"%s","date":"%s"}\n'
)


def write(path: Path, reviews: int, users: int, items: int, seed: int = 0) -> None:
    """Write a file of JSON lines atomically; the same arguments give the same bytes.

    Users and items are drawn by Zipf's law; times are drawn uniformly and are not in order. The stars of a review
    depend on its user and its item, which drift slowly, and on noise. Texts are independent of the stars: the files
    serve to measure speed, not quality.

    Args:
      path: the file.
      reviews: number of reviews.
      users: largest number of users.
      items: largest number of items.
      seed: seed of all draws.
    """
    with replacing(path) as file, progress_bar(f"writing {path.name}", reviews, "reviews") as bar:
        for block in _blocks(reviews, users, items, seed):
            file.write(b"".join(block))
            bar.update(len(block))


def _blocks(reviews: int, users: int, items: int, seed: int) -> Iterator[list[bytes]]:
    rng = np.random.default_rng(seed)
    corpus, begins = _corpus(rng)
    of_user, of_item = (_shares(size, skew) for size, skew in ((users, USER_SKEW), (items, ITEM_SKEW)))
    taste, quality = rng.normal(0, 0.7, users), rng.normal(0, 0.7, items)
    drift = rng.normal(0, 0.5, items)
    for first in range(0, reviews, BLOCK):
        n = min(BLOCK, reviews - first)
        user, item = (np.searchsorted(shares, rng.random(n)) for shares in (of_user, of_item))
        moment = rng.integers(BEGIN, END, n)
        mean = 3.8 + taste[user] + quality[item] + drift[item] * (2 * (moment - BEGIN) / (END - BEGIN) - 1)
        stars = np.clip(np.rint(mean + rng.normal(0, 0.9, n)), 1, 5).astype(int)
        words = np.clip(MEDIAN_WORDS * np.exp(LENGTH_SPREAD * rng.standard_normal(n)), 1, MAX_WORDS).astype(int)
        start = rng.integers(0, len(begins) - MAX_WORDS - 1, n)
        dates = np.datetime_as_string(moment.astype("datetime64[s]")).astype("S19")
        columns = (user, item, stars, begins[start], begins[start + words] - 1)
        rows = zip(range(first, first + n), *(column.tolist() for column in columns), dates.tolist(), strict=True)
        yield [
            _LINE % (number, user, item, stars, corpus[begin:end], date.replace(b"T", b" "))
            for number, user, item, stars, begin, end, date in rows
        ]


def _corpus(rng: np.random.Generator) -> tuple[bytes, np.ndarray]:
    """Return one long text, and the offset of each of its words, int64 [words + 1]."""
    lexicon = Lexicon.create(rng, 20)
    n = CORPUS_WORDS // 30
    texts = lexicon.write(rng, rng.integers(0, 20, (n, 2)), rng.random((n, 2)), np.ones(n, bool))
    corpus = b" ".join(texts.bytes_at(row) for row in range(n)) + b" "
    spaces = np.flatnonzero(np.frombuffer(corpus, np.uint8) == ord(" "))
    return corpus, np.concatenate([[0], spaces + 1])


def _shares(count: int, skew: float) -> np.ndarray:
    """Return the cumulative shares of Zipf's law, float64 [count]."""
    weights = np.cumsum(np.arange(1, count + 1) ** -skew)
    return weights / weights[-1]
