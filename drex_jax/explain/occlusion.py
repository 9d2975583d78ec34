"""What a score owes to single interactions: each is left out, and its owner's later ones are replayed without it.

A user's (or an item's) last interactions are replayed in as many variants as there are questions, all in one batch of
copies: a copy of the owner a variant, begun at its row before the first of them, and a copy of the partner for each
interaction kept, begun at the partner's row just before it. So what is the owner's own is exact in every variant:
state, gaps, counters, running bias. What the partners brought is held as it was recorded, though without the
interaction left out they too might have come otherwise; `Influence.exact` says where that cannot matter.

Letters: V variants, m interactions of the owner, E row size.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numba
import numpy as np

from drex_jax.common.padding import power_of_two
from drex_jax.data.events import Events
from drex_jax.data.tokens import Tokens
from drex_jax.explain.recording import Recording, Side
from drex_jax.models.drex.core import Refiner
from drex_jax.models.drex.replay import Continuation

LAST = 20  # interactions of an owner that are explained, at the most
LEAST = 1024  # interactions that a batch is padded to: a pair has 2 (LAST + 1) LAST = 840 at the most


class Variants(NamedTuple):
    """What might have been of one user or item.

    Attributes:
      side: whether its owner is a user or an item.
      rows: int64 [m], m > 0: interactions of the stream, all of one owner, in order; the first is where replay begins.
      kept: bool [V, m], which of them each variant has.
      texts: V m reviews in place of the recorded ones, variant by variant; None: those recorded.
    """

    side: str
    rows: np.ndarray
    kept: np.ndarray
    texts: Tokens | None = None


class Influence(NamedTuple):
    """What one interaction did to a score.

    Attributes:
      row: its number in the stream.
      change: the score as it is less the score without it: above 0 it speaks for the pair.
      exact: nobody's state that was held as recorded would have been another one without it.
    """

    row: int
    change: float
    exact: bool


class Influences(NamedTuple):
    """What the last interactions of a user and of an item did to the pair's score, the greatest change first.

    Attributes:
      score: predicted rating, not clipped; of a model that only ranks, its score.
      user: of the user's last `LAST` interactions, while the item is as it is.
      item: of the item's, while the user is as it is. An interaction of the two with each other is in both.
    """

    score: float
    user: list[Influence]
    item: list[Influence]


def each_left_out(m: int) -> np.ndarray:
    """Bool [m + 1, m]: everything kept, then all but one."""
    return np.concatenate([np.ones((1, m), bool), ~np.eye(m, dtype=bool)])


class Occlusion:
    """Answers about a stream what its scores would be without some of it."""

    def __init__(self, refiner: Refiner, params: dict[str, Any], events: Events):
        """Replays the stream once.

        Args:
          refiner: of the run's model.
          params: its parameters.
          events: the whole stream, numbered as the run's rows are.

        Raises:
          ValueError: the stream is empty.
        """
        if not len(events):
            raise ValueError("a stream without interactions explains nothing")
        self._params = params
        self._continuation = Continuation(refiner, params, LEAST)
        self._pairs = jax.jit(refiner.pairs)
        self.recording = Recording.of(self._continuation, params, events)

    def side(self, name: str) -> Side:
        """The recorded users or items."""
        return self.recording.user if name == "user" else self.recording.item

    def influences(self, user: int, item: int, moment: int | None = None) -> Influences:
        """What moved a pair's score most.

        Args:
          user: its number; of somebody never met -1, who has no interactions.
          item: likewise.
          moment: before this interaction of the stream; None: after the last.
        """
        moment = len(self.recording.events) if moment is None else moment
        pair: dict[str, int] = {"user": user, "item": item}
        now = {name: self.side(name).row(owner, moment)[None] for name, owner in pair.items()}
        last = {name: self.side(name).met(owner, moment)[-LAST:] for name, owner in pair.items()}
        variants = [Variants(name, rows, each_left_out(len(rows))) for name, rows in last.items() if len(rows)]
        answers: dict[str, list[Influence]] = {"user": [], "item": []}
        for each, found in zip(variants, self.rows(variants), strict=True):
            scores = self.scores(**(now | {each.side: found}))
            change = (scores[0] - scores[1:]).tolist()
            exact = [self._is_exact(each.side, row, pair, moment) for row in each.rows.tolist()]
            influences = map(Influence, each.rows.tolist(), change, exact)
            answers[each.side] = sorted(influences, key=lambda influence: -abs(influence.change))
        return Influences(float(self.scores(**now)[0]), **answers)

    def scores(self, user: np.ndarray, item: np.ndarray) -> np.ndarray:
        """float32 [V] of rows [V, E] (or [1, E], for all): predicted ratings, not clipped, or scores of a ranker."""
        user, item = np.broadcast_arrays(user, item)
        padding = (0, power_of_two(max(len(user), LAST + 1)) - len(user)), (0, 0)  # few shapes to compile for
        padded = (jnp.asarray(np.pad(rows, padding, mode="edge")) for rows in (user, item))
        return np.asarray(self._pairs(self._params, *padded))[: len(user)]

    def rows(self, variants: Sequence[Variants]) -> list[np.ndarray]:
        """The owners' rows after all: float32 [V, E] for each of `variants`, replayed in one batch."""
        if not variants:
            return []
        world = _World.of(variants)
        carry, past = self.recording.past(*(np.concatenate(world.copies[name]) for name in ("user", "item")))
        source = np.concatenate(world.source)
        rows: dict[str, Any] = {"user": carry.user, "item": carry.item}
        if len(source):
            events = self.recording.events.take(source)
            events = dataclasses.replace(
                events,
                user=np.concatenate(world.number["user"]),
                item=np.concatenate(world.number["item"]),
                tokens=_texts(variants, events.tokens),
                num_users=len(carry.user),
                num_items=len(carry.item),
            )
            sizes = events.num_users, events.num_items
            rows = self._continuation.run(carry, past, events, sizes).carry._asdict()
        return [rows[each.side][owners] for each, owners in zip(variants, world.owners, strict=True)]

    def _is_exact(self, side: str, row: int, pair: dict[str, int], moment: int) -> bool:
        sides = ("user", "item") if side == "user" else ("item", "user")
        own, partner = (self.side(name).number for name in sides)
        owner, other = (pair[name] for name in sides)
        sizes = [len(self.side(name).now) for name in sides]
        return bool(_is_exact(own, partner, row, moment, owner, other, *sizes))


@numba.njit(cache=True)
def _is_exact(own, partner, row, moment, owner, other, num_own, num_partner):  # pragma: no cover - compiled
    """Whether leaving out interaction `row` of `owner` moves nobody whose state its replay and the score read."""
    moved_own, moved_partner = np.zeros(num_own, np.bool_), np.zeros(num_partner, np.bool_)
    moved_partner[partner[row]] = True
    for k in range(row + 1, moment):
        if own[k] == owner:
            if moved_partner[partner[k]]:
                return False
            moved_partner[partner[k]] = True
        elif moved_own[own[k]] or moved_partner[partner[k]]:
            moved_own[own[k]] = moved_partner[partner[k]] = True
    return not (0 <= other < num_partner and moved_partner[other])


@dataclasses.dataclass
class _World:
    """The copies that variants are replayed with, and their interactions.

    Attributes:
      copies: of each side, the interactions just before which they are taken, in parts.
      source: of which interaction of the stream each one is a copy, in parts.
      number: of each side, whom each of them is of, in parts.
      owners: for each of the variants, the numbers of its owners' copies.
    """

    copies: dict[str, list[np.ndarray]]
    source: list[np.ndarray]
    number: dict[str, list[np.ndarray]]
    owners: list[slice]

    @classmethod
    def of(cls, variants: Sequence[Variants]) -> _World:
        nothing = np.zeros(0, np.int64)
        world = cls({"user": [nothing], "item": [nothing]}, [], {"user": [], "item": []}, [])
        sizes: dict[str, int] = {"user": 0, "item": 0}
        for side, rows, kept, _ in variants:
            variant, place = np.nonzero(kept)
            world.source.append(rows[place])
            world.owners.append(slice(sizes[side], sizes[side] + len(kept)))
            partner: str = "item" if side == "user" else "user"
            for name, copies, local in (
                (side, np.repeat(rows[0], len(kept)), variant),
                (partner, rows[place], np.arange(len(place))),
            ):
                world.number[name].append((sizes[name] + local).astype(np.int32))
                world.copies[name].append(copies)
                sizes[name] += len(copies)
        return world


def _texts(variants: Sequence[Variants], recorded: Tokens | None) -> Tokens | None:
    """The reviews of all interactions kept: the `recorded` ones, or what a variant has in their place."""
    if recorded is None:
        return None
    begin, parts = 0, []
    for each in variants:
        place = np.flatnonzero(each.kept)
        own = recorded.part(begin, begin + len(place)) if each.texts is None else each.texts.take(place)
        parts.append(own)
        begin += len(place)
    return Tokens.concatenate(parts)
