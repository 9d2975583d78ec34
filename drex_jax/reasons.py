"""Why a finished run answers what it answers: words, past interactions, modalities, items that are alike.

What is said here is computed from the model itself; docs/results.md measures how faithful it is.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from drex_jax import explain
from drex_jax.explain import KeywordProfiles
from drex_jax.finished_run import FinishedRun
from drex_jax.live import Live, Refining, Regrowing
from drex_jax.models.drex.occlusion import LAST, Influence, Occlusion

SNIPPET = 160  # characters of a review
ALIKE = 5  # neighbours named
RECORDED = (
    "changes that are not exact (marked *) hold the states of partners met later as they were recorded, though without "
    "the interaction these would have come otherwise"
)


class Keyword(NamedTuple):
    """A word and its weight: of a profile, evidence beyond the corpus; of an overlap, the product of both shares."""

    word: str
    weight: float


class PastInteraction(NamedTuple):
    """One interaction of the user or of the item.

    Attributes:
      user, item: ids.
      timestamp: seconds since 1970.
      rating: None where missing.
      text: the beginning of the review; empty where missing.
      change: what it did to the pair's score: above 0 it speaks for the pair. None where there is no pair.
      exact: whether `change` is exact, and not with partners' states held as recorded.
    """

    user: str
    item: str
    timestamp: float
    rating: float | None
    text: str
    change: float | None = None
    exact: bool = True


class Explanation(NamedTuple):
    """Why, for a user, an item or both.

    Attributes:
      user, item: ids; None where not asked about.
      score: the pair's: the predicted rating before clipping, or the score of a model that only ranks; None: no pair.
      user_keywords, item_keywords: profiles, the heaviest word first; from train reviews.
      overlap: the words of both profiles, with the product of their shares of either profile's weight.
      user_interactions, item_interactions: the last ones, the greatest change first where there is a pair.
      modalities: how much of the item's content each modality makes up, of sum 1 (CRANE).
      neighbours: items alike and the cosine: by content (CRANE), else by the rows that scores are made of; for a pair,
        of those that the user has met.
      notes: what else has to be said.
    """

    user: str | None
    item: str | None
    score: float | None
    user_keywords: list[Keyword]
    item_keywords: list[Keyword]
    overlap: list[Keyword]
    user_interactions: list[PastInteraction]
    item_interactions: list[PastInteraction]
    modalities: dict[str, float]
    neighbours: list[Keyword]
    notes: list[str]


class Reasons:
    """Explains a run as it stands."""

    def __init__(self, run: FinishedRun, live: Live | None):
        """`live`: what moves the run on; None where nothing does."""
        self._run, self._live, self._journal = run, live, run.journal
        self._length = len(run.journal)

    @property
    def is_current(self) -> bool:
        """Whether nothing has happened since."""
        return len(self._journal) == self._length

    def of(self, user: str | None, item: str | None, rows: np.ndarray, score: float | None) -> Explanation:
        """Why, for ids that may be unknown.

        Args:
          user: None: of the item alone.
          item: None: of the user alone.
          rows: everyone's item rows now, [I, E].
          score: of the pair, where the model is not DReX.
        """
        journal, notes = self._journal, []
        numbers = [
            -1 if name is None else ids.number(name) for name, ids in ((user, journal.users), (item, journal.items))
        ]
        for side, name, number in zip(("user", "item"), (user, item), numbers, strict=True):
            if name is not None and number < 0:
                notes.append(f"the run has never met the {side} {name}: a newcomer, of whom nothing speaks")
        words = [self._keywords(side, number) for side, number in zip(("user", "item"), numbers, strict=True)]
        if self._profiles is None:
            notes.append("there are no keywords: the run has no texts, or its model weighs no words")
        pair = user is not None and item is not None
        lists = [self._last(own) for own in (journal.rows_of_user(numbers[0]), journal.rows_of_item(numbers[1]))]
        if pair and isinstance(self._live, Refining):
            found = self._occlusion.influences(*numbers)
            score = found.score
            lists = [[self._past(each.row, each) for each in side] for side in (found.user, found.item)]
            if any(not each.exact for each in (*found.user, *found.item)):
                notes.append(RECORDED)
        modalities, content = self._content(numbers[1])
        met = journal.item[journal.rows_of_user(numbers[0])] if user is not None else None
        return Explanation(
            user=user,
            item=item,
            score=score if pair else None,
            user_keywords=words[0],
            item_keywords=words[1],
            overlap=_overlap(*words) if pair else [],
            user_interactions=lists[0],
            item_interactions=lists[1],
            modalities=modalities,
            neighbours=self._neighbours(numbers[1], rows if content is None else content, met),
            notes=notes,
        )

    @functools.cached_property
    def _profiles(self) -> KeywordProfiles | None:
        folder = self._run.folder / explain.KEYWORDS
        return KeywordProfiles.load(folder) if folder.exists() else None

    @functools.cached_property
    def _names(self) -> list[str]:
        return [] if self._profiles is None else list(self._profiles.words)

    @functools.cached_property
    def _occlusion(self) -> Occlusion:
        assert isinstance(self._live, Refining)
        return Occlusion(self._live.refiner, self._run.params, self._live.events(self._journal))

    @functools.cached_property
    def _contents(self) -> tuple[tuple[str, ...], np.ndarray, np.ndarray] | None:
        return self._live.contents() if isinstance(self._live, Regrowing) else None

    def _keywords(self, side: str, number: int) -> list[Keyword]:
        if self._profiles is None:
            return []
        profiles = self._profiles.users if side == "user" else self._profiles.items
        if not 0 <= number < len(profiles.word):  # who came after training has no profile
            return []
        return [Keyword(*pair) for pair in profiles.keywords(number, self._names)]

    def _last(self, rows: np.ndarray) -> list[PastInteraction]:
        """The last interactions, the newest first."""
        return [self._past(row, None) for row in reversed(rows[-LAST:].tolist())]

    def _past(self, row: int, influence: Influence | None) -> PastInteraction:
        each = self._journal.row(row)
        text = " ".join(each.text.split())
        return PastInteraction(
            user=each.user,
            item=each.item,
            timestamp=each.timestamp,
            rating=None if math.isnan(each.rating) else each.rating,
            text=text if len(text) <= SNIPPET else f"{text[: SNIPPET - 1]}…",
            change=None if influence is None else influence.change,
            exact=influence is None or influence.exact,
        )

    def _content(self, item: int) -> tuple[dict[str, float], np.ndarray | None]:
        """The shares of modalities in an item's content, and everyone's content [I, D]; of a model without, none."""
        if self._contents is None:
            return {}, None
        names, shares, content = self._contents
        there = 0 <= item < len(content) and bool(content[item].any())
        return dict(zip(names, shares[:, item].tolist(), strict=True)) if there else {}, content

    def _neighbours(self, item: int, rows: np.ndarray, met: np.ndarray | None) -> list[Keyword]:
        """Of an item: those most alike, among `met` where given."""
        if item < 0:
            return []
        among = np.unique(met) if met is not None else np.arange(len(rows))
        among = among[among != item]
        norm = np.linalg.norm(rows[among], axis=1) * np.linalg.norm(rows[item])
        cosine = (rows[among] @ rows[item]) / np.maximum(norm, 1e-12)
        best = np.argsort(-cosine, kind="stable")[:ALIKE]
        return [Keyword(self._journal.items.name(int(among[place])), float(cosine[place])) for place in best]


def _overlap(user: Sequence[Keyword], item: Sequence[Keyword]) -> list[Keyword]:
    """Words of both profiles with the product of their shares, the greatest first."""
    total = [sum(each.weight for each in side) or 1.0 for side in (user, item)]
    of_item: dict[str, Any] = dict(item)
    shared = [
        Keyword(each.word, each.weight / total[0] * of_item[each.word] / total[1])
        for each in user
        if each.word in of_item
    ]
    return sorted(shared, key=lambda each: -each.weight)
