"""A synthetic "review world" with known truth: the built-in data set, and the ground truth of tests.

No text is from a person. The steps of the simulation, in order:

* 20 aspects in 4 themes of 5. An item has a quality in each aspect, similar within a theme. It is known for its 3
  strongest aspects, good or bad. A user cares about 4 aspects, 2 in each of two themes.
* The weight of a user moves between the two themes, and the mood of the user up and down, in a random walk over the
  years.
* A user comes in bursty sessions, wants one of the 4 aspects by current weight, and mostly picks an item known for it,
  popular items more often.
* Truth = middle + appeal of the item + mood + strength x weighted mean of the qualities that the user cares about. The
  rating is the truth plus normal noise, clipped to 1..5 and rounded to half steps.
* The review names the wanted aspect with some of its 10 words. A word of praise or blame, in agreement with the quality
  of the item, often follows. The rest are 5,000 background words of Zipfian frequency. 30% of the reviews also name an
  aspect that the user does not care about.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from drex_jax.data.readers.chunk import Chunk
from drex_jax.data.strings import Strings
from drex_jax.data.synthetic.text import Lexicon

NUM_ASPECTS = 20
NUM_THEMES = 4
ASPECTS_PER_THEME = NUM_ASPECTS // NUM_THEMES
CARED_PER_THEME = 2  # aspects of each of the two themes of a user
STRONG_ASPECTS = 3  # aspects that an item is known for
KNOTS = 9  # of the random walks of weight and mood over time

RATING_RANGE = (1.0, 5.0)
RATING_STEP = 0.5
MIDDLE = 3.3
APPEAL_SD = 0.3  # of items, in ratings
MOOD_SD = 0.35  # of users at the start
MOOD_STEP = 0.15  # standard deviation of a step of the walk, from knot to knot
WEIGHT_STEP = 1.0  # the same for the log odds of the weight
STRENGTH = 0.85  # ratings for each unit of quality
THEME_SHARE = 0.8  # share of the standard deviation of a quality explained by its theme

USER_SKEW = 0.4  # Zipf exponents
ITEM_SKEW = 0.8
BY_ASPECT = 0.8  # share of choices made for the wanted aspect; the others only by popularity
OFF_ASPECT = 0.3  # share of reviews that also name an aspect the user does not care about
PRAISE_SLOPE = 2.0  # log odds of praise over blame for each unit of quality
SESSION_SIZE = 4.0  # mean interactions
SESSION_GAP = 90.0  # mean seconds inside a session
REDRAWS = 6  # of items the user already has, by aspect and popularity; then as many from all items

START = 1_420_070_400.0  # 2015-01-01
SPAN = 8 * 365 * 86_400.0
CHUNK_ROWS = 8_192  # reviews written in one block


@dataclasses.dataclass(frozen=True)
class World:
    """N interactions in time order, and the truth behind them.

    Attributes:
      user, item: numbers in `user_ids` and `item_ids`, int32 [N].
      timestamp: whole seconds, float64 [N], non-decreasing, ties included.
      rating: half steps of 1..5, float32 [N]; NaN where missing.
      truth: the rating without noise and rounding, clipped to 1..5, float32 [N].
      aspect: the aspect that the user wanted and the review names, int8 [N].
      off_aspect: another aspect that the review names and the user does not care about, int8 [N]; -1 for none.
      has_text: True where there is a review, bool [N].
      user_ids, item_ids: the ids.
      user_aspects: the aspects each user cares about, int64 [users, 4].
      item_aspects: the aspects each item is known for, the strongest first, int64 [items, 3].
      item_quality: quality of each item in each aspect, above 0 is good, float32 [items, 20].
      aspect_words: 20 lists of 10 words.
      noise_floor: mean squared error of `truth` over the present ratings; NaN without ratings. Only the clipping at the
        ends of the scale allows a smaller error, by some thousandths; in a part of the data, chance changes it by some
        hundredths.
      seed: seed of every draw.
    """

    user: np.ndarray
    item: np.ndarray
    timestamp: np.ndarray
    rating: np.ndarray
    truth: np.ndarray
    aspect: np.ndarray
    off_aspect: np.ndarray
    has_text: np.ndarray
    user_ids: Strings
    item_ids: Strings
    user_aspects: np.ndarray
    item_aspects: np.ndarray
    item_quality: np.ndarray
    aspect_words: list[list[str]]
    noise_floor: float
    seed: int

    def __len__(self) -> int:
        return len(self.user)

    def chunks(self) -> Iterator[Chunk]:
        """Yield the interactions like a reader, writing the reviews block by block; the same every time."""
        lexicon = Lexicon.create(np.random.default_rng((self.seed, 1)), NUM_ASPECTS)
        for number, begin in enumerate(range(0, len(self), CHUNK_ROWS)):
            rows = slice(begin, begin + CHUNK_ROWS)
            aspects = np.stack([self.aspect[rows], self.off_aspect[rows]], axis=1).astype(np.int64)
            aspects[:, 1] = np.where(aspects[:, 1] < 0, aspects[:, 0], aspects[:, 1])
            quality = self.item_quality[self.item[rows, None], aspects]
            praise = 1 / (1 + np.exp(-PRAISE_SLOPE * quality))
            rng = np.random.default_rng((self.seed, 2, number))
            yield Chunk(
                user=self.user_ids.take(self.user[rows]),
                item=self.item_ids.take(self.item[rows]),
                timestamp=self.timestamp[rows],
                rating=self.rating[rows],
                text=lexicon.write(rng, aspects, praise, self.has_text[rows]),
            )


def generate_world(
    interactions: int,
    users: int,
    items: int,
    missing_text: float,
    missing_rating: float,
    noise: float,
    seed: int,
) -> World:
    """Draw a world. Equal arguments give equal worlds (of one NumPy version); memory is linear in its size.

    Args:
      interactions: number of interactions, at least 1.
      users: number of users, at least 1; if it is large, inactive users may have no interaction.
      items: number of items, at least 1.
      missing_text: probability that an interaction has no review.
      missing_rating: probability that an interaction has no rating.
      noise: standard deviation of the noise of ratings, before clipping and rounding.
      seed: seed of every draw.
    """
    rng = np.random.default_rng((seed, 0))
    themes = rng.random((users, NUM_THEMES), np.float32).argsort(axis=1)[:, :2]  # two for each user
    inside = rng.random((users, 2, ASPECTS_PER_THEME), np.float32).argsort(axis=2)[:, :, :CARED_PER_THEME]
    user_aspects = (themes[:, :, None] * ASPECTS_PER_THEME + inside).reshape(users, 2 * CARED_PER_THEME)
    weight = _walk(rng, users, 1.0, WEIGHT_STEP)
    mood = _walk(rng, users, MOOD_SD, MOOD_STEP)

    theme = rng.standard_normal((items, NUM_THEMES), np.float32)
    single = rng.standard_normal((items, NUM_ASPECTS), np.float32)
    quality = THEME_SHARE * theme.repeat(ASPECTS_PER_THEME, axis=1) + (1 - THEME_SHARE**2) ** 0.5 * single
    item_aspects = np.argsort(-np.abs(quality), axis=1, kind="stable")[:, :STRONG_ASPECTS]
    appeal = APPEAL_SD * rng.standard_normal(items, np.float32)

    user = np.sort(_zipf(rng, users, USER_SKEW, interactions)).astype(np.int32)
    timestamp = _sessions(rng, user, users)
    order = np.argsort(timestamp, kind="stable")
    user, timestamp = user[order], timestamp[order]

    when = (timestamp - START) / SPAN  # in 0..1
    first = 1 / (1 + np.exp(-_at(weight, user, when)))  # weight of the first theme of the user
    wanted_theme = (rng.random(interactions) >= first).astype(np.int64)
    wanted = user_aspects[user, CARED_PER_THEME * wanted_theme + rng.integers(0, CARED_PER_THEME, interactions)]
    item = _choose_items(rng, user, wanted, item_aspects)

    liking = np.zeros(interactions, np.float32)
    for column in range(2 * CARED_PER_THEME):
        share = (first if column < CARED_PER_THEME else 1 - first) / CARED_PER_THEME
        liking += share.astype(np.float32) * quality[item, user_aspects[user, column]]
    truth = MIDDLE + appeal[item] + _at(mood, user, when) + STRENGTH * liking
    rating = truth + noise * rng.standard_normal(interactions)
    rating = (np.round(np.clip(rating, *RATING_RANGE) / RATING_STEP) * RATING_STEP).astype(np.float32)
    rating[rng.random(interactions) < missing_rating] = np.nan
    truth = np.clip(truth, *RATING_RANGE).astype(np.float32)

    rated = ~np.isnan(rating)
    lexicon = Lexicon.create(np.random.default_rng((seed, 1)), NUM_ASPECTS)
    return World(
        user=user,
        item=item,
        timestamp=timestamp,
        rating=rating,
        truth=truth,
        aspect=wanted.astype(np.int8),
        off_aspect=_off_aspects(rng, user, item, user_aspects, item_aspects),
        has_text=rng.random(interactions) >= missing_text,
        user_ids=_ids("user", users),
        item_ids=_ids("item", items),
        user_aspects=user_aspects,
        item_aspects=item_aspects,
        item_quality=quality,
        aspect_words=lexicon.aspect_words,
        noise_floor=float(np.mean((rating - truth)[rated] ** 2, dtype=np.float64)) if rated.any() else float("nan"),
        seed=seed,
    )


def _walk(rng: np.random.Generator, users: int, start_sd: float, step_sd: float) -> np.ndarray:
    """Return random walks at the knots, float32 [users, KNOTS]."""
    steps = rng.standard_normal((users, KNOTS), np.float32) * np.float32(step_sd)
    steps[:, 0] *= np.float32(start_sd / step_sd)
    return np.cumsum(steps, axis=1)


def _at(walk: np.ndarray, user: np.ndarray, when: np.ndarray) -> np.ndarray:
    """Return the walks of users at times in 0..1, linear between the knots, float64 [n]."""
    position = np.clip(when, 0, 1) * (KNOTS - 1)
    knot = np.minimum(position.astype(np.int64), KNOTS - 2)
    part = position - knot
    return (1 - part) * walk[user, knot] + part * walk[user, knot + 1]


def _zipf(rng: np.random.Generator, n: int, exponent: float, draws: int) -> np.ndarray:
    """Draw numbers below n with frequency 1 / (rank ** exponent), ranks in random order, int64 [draws]."""
    chances = rng.permutation(np.arange(1, n + 1) ** -exponent)
    return _draw(rng, np.cumsum(chances), draws)


def _draw(rng: np.random.Generator, cumulative: np.ndarray, draws: int) -> np.ndarray:
    return np.searchsorted(cumulative, rng.random(draws) * cumulative[-1], side="right")


def _sessions(rng: np.random.Generator, user: np.ndarray, users: int) -> np.ndarray:
    """Draw times of interactions sorted by user: sessions at random times in the active years of the user."""
    n = len(user)
    arrival = rng.random(users) * 0.7
    leaving = arrival + (1 - arrival) * (0.3 + 0.7 * rng.random(users))
    breaks = rng.random(n) < 1 / SESSION_SIZE
    breaks[0] = True
    breaks[1:] |= user[1:] != user[:-1]
    session = np.cumsum(breaks) - 1
    owner = user[breaks]
    starts = arrival[owner] + (leaving - arrival)[owner] * rng.random(len(owner))
    gaps = np.floor(rng.exponential(SESSION_GAP, n) * (rng.random(n) < 0.95))  # one in 20 shares its second
    since = np.cumsum(gaps)
    return START + np.floor(starts * SPAN)[session] + since - since[breaks][session]


def _choose_items(
    rng: np.random.Generator, user: np.ndarray, wanted: np.ndarray, item_aspects: np.ndarray
) -> np.ndarray:
    """Draw an item for every interaction, for the wanted aspect or by popularity; repeats of a user are drawn again."""
    items, n = len(item_aspects), len(user)
    popularity = rng.permutation(np.arange(1, items + 1) ** -ITEM_SKEW)
    everything = np.cumsum(popularity)
    known_for = [np.flatnonzero((item_aspects == aspect).any(axis=1)) for aspect in range(NUM_ASPECTS)]
    item = np.empty(n, np.int64)
    rows = np.arange(n)
    for attempt in range(2 * REDRAWS):
        if attempt < REDRAWS:
            item[rows] = _draw(rng, everything, len(rows))
            by_aspect = rows[rng.random(len(rows)) < BY_ASPECT]
            for aspect, candidates in enumerate(known_for):
                these = by_aspect[wanted[by_aspect] == aspect]
                if len(candidates):
                    item[these] = candidates[_draw(rng, np.cumsum(popularity[candidates]), len(these))]
        else:  # the user has the popular items already: any item
            item[rows] = rng.integers(0, items, len(rows))
        rows = _repeats(user, item, items)
        if not len(rows):
            break
    return item.astype(np.int32)


def _repeats(user: np.ndarray, item: np.ndarray, items: int) -> np.ndarray:
    """Return the interactions whose user had the item before."""
    pair = user.astype(np.int64) * items + item
    order = np.argsort(pair, kind="stable")
    pair = pair[order]
    return np.sort(order[1:][pair[1:] == pair[:-1]])


def _off_aspects(
    rng: np.random.Generator, user: np.ndarray, item: np.ndarray, user_aspects: np.ndarray, item_aspects: np.ndarray
) -> np.ndarray:
    """Draw an aspect that the user does not care about for a share OFF_ASPECT of the reviews, int8 [n]; else -1.

    It is one that the item is known for or, if the user cares about all of those, any.
    """
    off = np.flatnonzero(rng.random(len(user)) < OFF_ASPECT)
    strong = rng.permuted(item_aspects[item[off]], axis=1)
    others = rng.permuted(np.tile(np.arange(NUM_ASPECTS), (len(off), 1)), axis=1)[:, : 2 * CARED_PER_THEME + 1]
    candidates = np.concatenate([strong, others], axis=1)  # at least one of the others is not cared about
    cares = np.zeros(candidates.shape, bool)
    for column in user_aspects[user[off]].T:
        cares |= candidates == column[:, None]
    named = np.full(len(user), -1, np.int8)
    named[off] = candidates[np.arange(len(off)), np.argmin(cares, axis=1)]
    return named


def _ids(kind: str, n: int) -> Strings:
    width = len(str(n - 1))
    return Strings.of(f"{kind}{number:0{width}d}" for number in range(n))
