"""Why a finished run answers what it answers: words, past interactions, modalities, items that are alike.

What is said here is computed from the model itself; docs/results.md measures how faithful it is.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from drex_jax.common.side import Side
from drex_jax.explain.occlusion import LAST, Influence, Occlusion
from drex_jax.explain.profiles import KeywordProfiles, ReviewAttention
from drex_jax.models import scoring
from drex_jax.runs.layout import RunLayout
from drex_jax.serving.finished_run import FinishedRun
from drex_jax.serving.updaters import Updater

SNIPPET = 160  # characters of a review
ALIKE = 5  # neighbours named
SAMPLE = 2000  # reviews of train, evenly spaced, on which words are counted
COMMON = 0.25  # the share of reviews from which on a word is too common to explain (our choice)
RECORDED = (
    "A change marked * is close, not exact: without that interaction, others would have come out slightly differently, "
    "and they are taken as they are."
)
OF_WORDS = (
    "Keywords come from the reviews of train. They name what a user writes about and what an item is known "
    "for; as measured, they do not explain a predicted rating (docs/results.md)."
)
TWICE = (
    "The interaction of the two with each other stands in both lists: it moved the user's state and the item's, and "
    "each list says what one of them owes to it."
)


class Keyword(NamedTuple):
    """A word and its weight: of a profile, evidence beyond the corpus; of an overlap, the product of both shares."""

    word: str
    weight: float


class Neighbour(NamedTuple):
    """An item that is alike, and the cosine."""

    item: str
    cosine: float


class PastInteraction(NamedTuple):
    """One interaction of the user or of the item.

    Attributes:
      user, item: ids.
      timestamp: seconds since 1970.
      rating: None where missing.
      text: the beginning of the review; empty where missing.
      change: what it did to the pair: above 0 it speaks for it; `Explanation.change_of` says of what. None where there
        is no pair, or the model cannot tell.
      via: `user` or `item`: whose state it did that through, while the other's is as it is; None as for `change`.
      exact: whether `change` is exact, and not with partners' states held as recorded.
      attention: the share of its review in what the reviews of that user or item say (NARRE); None where it is not
        read.
    """

    user: str
    item: str
    timestamp: float
    rating: float | None
    text: str
    change: float | None = None
    via: str | None = None
    exact: bool = True
    attention: float | None = None


class Explanation(NamedTuple):
    """Why, for a user, an item or both.

    Attributes:
      user, item: ids; None where not asked about.
      score: the pair's ranking score, as `Recommender.recommend` gives it; None: no pair.
      rank: the item's place for this user among all items of the catalogue, those that the user has met and a list
        leaves out included; 1 is the first. An item that the run has never met counts as one more.
      num_items: how many items that is of.
      rating: predicted, within `rating_range`, as `Recommender.predict` gives it; None: no pair, or a model that only
        ranks.
      rating_range: the scale of ratings; None as for `rating`.
      change_of: what the interactions' `change` is of: `rating` (the predicted one, before it is clipped), or `score`
        where the model only ranks; None: no change is known.
      user_keywords, item_keywords: profiles, the heaviest word first; from train reviews.
      overlap: the words of both profiles, with the product of their shares of either profile's weight; without those
        that more than a quarter of the reviews have.
      user_interactions, item_interactions: the last ones: where there is a change the greatest first, of NARRE the
        greatest attention first, else the newest.
      modalities: how much of the item's content each modality makes up, of sum 1 (CRANE).
      neighbours: items alike, the most alike first: by content (CRANE), else as `Recommender.similar_items` compares
        them; for a pair, of those that the user has met.
      notes: what else has to be said.
    """

    user: str | None
    item: str | None
    score: float | None
    rank: int | None
    num_items: int
    rating: float | None
    rating_range: tuple[float, float] | None
    change_of: str | None
    user_keywords: list[Keyword]
    item_keywords: list[Keyword]
    overlap: list[Keyword]
    user_interactions: list[PastInteraction]
    item_interactions: list[PastInteraction]
    modalities: dict[str, float]
    neighbours: list[Neighbour]
    notes: list[str]


class Explainer:
    """Explains a run as it stands."""

    def __init__(self, run: FinishedRun, updater: Updater | None):
        """`updater`: what moves the run on; None where nothing does."""
        self._run, self._updater, self._log = run, updater, run.log
        self._length = len(run.log)

    @property
    def is_current(self) -> bool:
        """Whether nothing has happened since."""
        return len(self._log) == self._length

    def of(
        self,
        user: str | None,
        item: str | None,
        rows: Callable[[np.ndarray, Side], jax.Array],
        items: jax.Array,
        excluded: np.ndarray,
    ) -> Explanation:
        """Explain a user, an item or a pair; ids may be unknown.

        Args:
          user: None: of the item alone.
          item: None: of the user alone.
          rows: the rows [n, E] of users or items by number; the cold-start row for number -1.
          items: the rows of all items now, [I, E].
          excluded: bool [I]: items that may not be recommended to anybody.
        """
        log, model, params, notes = self._log, self._run.model, self._run.params, []
        numbers = [-1 if name is None else ids.number(name) for name, ids in ((user, log.users), (item, log.items))]
        for side, name, number in zip(Side, (user, item), numbers, strict=True):
            if name is not None and number < 0:
                notes.append(
                    f"the {side} {name} is unknown to the run: only what holds for every new {side} can be said"
                )
        words = [self._keywords(side, number) for side, number in zip(Side, numbers, strict=True)]
        if self._profiles is None:
            notes.append("there are no keywords: the run has no texts, or its model weighs no words")
        elif any(words):
            notes.append(OF_WORDS)
        pair, score_and_rank, rating, change_of = user is not None and item is not None, None, None, None
        one_more = numbers[1] < 0 or bool(excluded[numbers[1]])
        rating_range = log.base.rating_range if model.rates else None
        if pair:
            own = [rows(np.array([number]), side) for side, number in zip(Side, numbers, strict=True)]
            score_and_rank = scoring.score_and_rank(model, params, *own, items, excluded, numbers[1])
            if rating_range is not None:
                rating = float(np.clip(scoring.scores(model, params, *own)[0], *rating_range))
        histories = (log.rows_of_user(numbers[0]), log.rows_of_item(numbers[1]))
        lists = [
            self._last(own, {} if self._attention is None else self._attention.of(side, number))
            for own, side, number in zip(histories, Side, numbers, strict=True)
        ]
        if pair and self._occlusion is not None:
            found, change_of = self._occlusion.influences(*numbers), "rating" if model.rates else "score"
            sides = ((Side.USER, found.user), (Side.ITEM, found.item))
            lists = [[self._past(each.row, each, via) for each in side] for via, side in sides]
            if any(not each.exact for each in (*found.user, *found.item)):
                notes.append(RECORDED)
            if {each.row for each in found.user} & {each.row for each in found.item}:
                notes.append(TWICE)
        modalities, content = self._content(numbers[1])
        met = log.item[log.rows_of_user(numbers[0])] if user is not None else None
        return Explanation(
            user=user,
            item=item,
            score=None if score_and_rank is None else float(score_and_rank[0]),
            rank=None if score_and_rank is None else int(score_and_rank[1]),
            num_items=int((~excluded).sum()) + (pair and one_more),
            rating=rating,
            rating_range=rating_range if pair else None,
            change_of=change_of,
            user_keywords=words[0],
            item_keywords=words[1],
            overlap=[each for each in _overlap(*words) if each.word not in self._common] if pair else [],
            user_interactions=lists[0],
            item_interactions=lists[1],
            modalities=modalities,
            neighbours=self._neighbours(numbers[1], self._directions(items) if content is None else content, met),
            notes=notes,
        )

    @functools.cached_property
    def _profiles(self) -> KeywordProfiles | None:
        folder = RunLayout(self._run.folder).keywords
        return KeywordProfiles.load(folder) if folder.exists() else None

    @functools.cached_property
    def _attention(self) -> ReviewAttention | None:
        folder = RunLayout(self._run.folder).attention
        return ReviewAttention.load(folder, self._log.num_train) if folder.exists() else None

    @functools.cached_property
    def _names(self) -> list[str]:
        return [] if self._profiles is None else list(self._profiles.words)

    @functools.cached_property
    def _occlusion(self) -> Occlusion | None:
        return None if self._updater is None else self._updater.occlusion()

    @functools.cached_property
    def _common(self) -> set[str]:
        """Words that a great part of the reviews of train have: two profiles are not alike for sharing one."""
        if self._updater is None or self._occlusion is None or self._updater.vocabulary is None:
            return set()
        tokens = self._occlusion.recording.events.tokens
        assert tokens is not None
        train = np.flatnonzero(tokens.lengths[: self._log.num_train])
        sample = tokens.take(train[np.linspace(0, len(train) - 1, min(SAMPLE, len(train))).astype(np.int64)])
        words = self._updater.vocabulary.words(sample)
        review = np.repeat(np.arange(len(sample.lengths)), sample.lengths)[words.first]
        pairs = np.unique(np.stack([review, words.word[words.first]]), axis=1)
        count = np.bincount(pairs[1], minlength=len(words.names))
        return {words.names[number] for number in np.flatnonzero(count > COMMON * len(sample.lengths)).tolist()}

    def _directions(self, items: jax.Array) -> np.ndarray:
        return np.asarray(self._run.model.directions(items))

    @functools.cached_property
    def _contents(self) -> tuple[tuple[str, ...], np.ndarray, np.ndarray] | None:
        return None if self._updater is None else self._updater.contents()

    def _keywords(self, side: Side, number: int) -> list[Keyword]:
        if self._profiles is None:
            return []
        profiles = self._profiles.users if side is Side.USER else self._profiles.items
        if not 0 <= number < len(profiles.word):  # who came after training has no profile
            return []
        return [Keyword(*pair) for pair in profiles.keywords(number, self._names)]

    def _last(self, rows: np.ndarray, attention: dict[int, float]) -> list[PastInteraction]:
        """Return the last interactions, the newest first; by attention (of a row) if there is any."""
        newest = reversed(rows[-LAST:].tolist())
        ordered = sorted(newest, key=lambda row: -attention.get(row, 0.0))
        return [self._past(row)._replace(attention=attention.get(row)) for row in ordered]

    def _past(self, row: int, influence: Influence | None = None, via: str | None = None) -> PastInteraction:
        each = self._log.row(row)
        text = " ".join(each.text.split())
        return PastInteraction(
            user=each.user,
            item=each.item,
            timestamp=each.timestamp,
            rating=None if math.isnan(each.rating) else each.rating,
            text=text if len(text) <= SNIPPET else f"{text[: SNIPPET - 1]}…",
            change=None if influence is None else influence.change,
            via=via,
            exact=influence is None or influence.exact,
        )

    def _content(self, item: int) -> tuple[dict[str, float], np.ndarray | None]:
        """Return the shares of modalities in an item's content, and all contents [I, D]; None if the model has none."""
        if self._contents is None:
            return {}, None
        names, shares, content = self._contents
        there = 0 <= item < len(content) and bool(content[item].any())
        return dict(zip(names, shares[:, item].tolist(), strict=True)) if there else {}, content

    def _neighbours(self, item: int, rows: np.ndarray, met: np.ndarray | None) -> list[Neighbour]:
        """Return the items most similar to an item, among `met` if given."""
        if item < 0:
            return []
        among = np.unique(met) if met is not None else np.arange(len(rows))
        among = among[among != item]
        norm = np.linalg.norm(rows[among], axis=1) * np.linalg.norm(rows[item])
        cosine = (rows[among] @ rows[item]) / np.maximum(norm, 1e-12)
        best = np.argsort(-cosine, kind="stable")[:ALIKE]
        return [Neighbour(self._log.items.name(int(among[place])), float(cosine[place])) for place in best]


def _overlap(user: Sequence[Keyword], item: Sequence[Keyword]) -> list[Keyword]:
    """Return the words of both profiles with the product of their shares, the greatest first."""
    total = [sum(each.weight for each in side) or 1.0 for side in (user, item)]
    of_item: dict[str, Any] = dict(item)
    shared = [
        Keyword(each.word, each.weight / total[0] * of_item[each.word] / total[1])
        for each in user
        if each.word in of_item
    ]
    return sorted(shared, key=lambda each: -each.weight)
