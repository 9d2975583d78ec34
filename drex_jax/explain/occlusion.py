"""Occlusion: the influence of single interactions on a score, by replaying the history without each of them.

The last interactions of a user (or an item) are replayed in several variants, all in one batch. Each variant has a copy
of the owner, which starts at the owner's row before the first interaction, and a copy of the partner for each kept
interaction, which starts at the partner's row just before it. So the owner's values are exact in every variant: state,
gaps, counters, running bias. Partner states are held at their recorded values, an approximation; `Influence.exact`
says where it makes no difference.

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
from drex_jax.explain.recording import RecordedSide, Recording
from drex_jax.models.drex.model import DReX
from drex_jax.models.drex.replay import Continuation

LAST = 20  # at most this many last interactions of an owner are explained
LEAST = 1024  # a batch is padded to this many interactions; a pair has at most 2 (LAST + 1) LAST = 840


class Variants(NamedTuple):
    """Variants of the last interactions of one user or item.

    Attributes:
      side: "user" or "item", the kind of the owner.
      rows: int64 [m], m > 0, interactions of the owner in the stream, in order; replay begins at the first one.
      kept: bool [V, m], the interactions that each variant keeps.
      texts: V m reviews that replace the recorded ones, variant by variant; None: the recorded reviews.
    """

    side: str
    rows: np.ndarray
    kept: np.ndarray
    texts: Tokens | None = None


class Influence(NamedTuple):
    """The influence of one interaction on a score.

    Attributes:
      row: the number of the interaction in the stream.
      change: the score minus the score without the interaction; above 0 it raises the score.
      exact: True if no partner state would have changed without this interaction.
    """

    row: int
    change: float
    exact: bool


class Influences(NamedTuple):
    """The influence of the last interactions of a user and of an item on the pair's score, largest change first.

    Attributes:
      score: the predicted rating, not clipped; for a model that only ranks, its score.
      user: influence of the user's last `LAST` interactions, with the item unchanged.
      item: influence of the item's last `LAST` interactions, with the user unchanged. An interaction of this user with
        this item is in both.
    """

    score: float
    user: list[Influence]
    item: list[Influence]


def each_left_out(m: int) -> np.ndarray:
    """Return variants that keep everything, then all but one interaction: bool [m + 1, m]."""
    return np.concatenate([np.ones((1, m), bool), ~np.eye(m, dtype=bool)])


class Occlusion:
    """Computes scores of a recorded stream without some of its interactions."""

    def __init__(self, model: DReX, params: dict[str, Any], events: Events):
        """Replay the stream once.

        Args:
          model: the run's model.
          params: parameters of the model.
          events: the whole stream, with the user and item numbers of the run.

        Raises:
          ValueError: the stream is empty.
        """
        if not len(events):
            raise ValueError("a stream without interactions explains nothing")
        self._params = params
        self._continuation = Continuation(model, params, LEAST)
        self._pairs = jax.jit(model.score)
        self.recording = Recording.of(self._continuation, params, events)

    def side(self, name: str) -> RecordedSide:
        """Return the recorded users ("user") or items ("item")."""
        return self.recording.user if name == "user" else self.recording.item

    def influences(self, user: int, item: int, moment: int | None = None) -> Influences:
        """Return the influence of past interactions on the score of a pair.

        Args:
          user: number of the user; -1 for a cold-start user without interactions.
          item: number of the item; -1 for a cold-start item without interactions.
          moment: time just before this interaction of the stream; None: after the last one.
        """
        moment = len(self.recording.events) if moment is None else moment
        pair: dict[str, int] = {"user": user, "item": item}
        now = {name: self.side(name).row(owner, moment)[None] for name, owner in pair.items()}
        last = {name: self.side(name).met(owner, moment)[-LAST:] for name, owner in pair.items()}
        variants = [Variants(name, rows, each_left_out(len(rows))) for name, rows in last.items() if len(rows)]
        answers: dict[str, list[Influence]] = {"user": [], "item": []}
        for variant, states in zip(variants, self.rows(variants), strict=True):
            scores = self.scores(**(now | {variant.side: states}))
            change = (scores[0] - scores[1:]).tolist()
            exact = [self._is_exact(variant.side, row, pair, moment) for row in variant.rows.tolist()]
            influences = map(Influence, variant.rows.tolist(), change, exact)
            answers[variant.side] = sorted(influences, key=lambda influence: -abs(influence.change))
        return Influences(float(self.scores(**now)[0]), **answers)

    def scores(self, user: np.ndarray, item: np.ndarray) -> np.ndarray:
        """Return predicted ratings (not clipped), or scores of a ranker, float32 [V], of rows [V, E] or [1, E]."""
        user, item = np.broadcast_arrays(user, item)
        padding = (0, power_of_two(max(len(user), LAST + 1)) - len(user)), (0, 0)  # few shapes to compile
        padded = (jnp.asarray(np.pad(rows, padding, mode="edge")) for rows in (user, item))
        return np.asarray(self._pairs(self._params, *padded))[: len(user)]

    def rows(self, variants: Sequence[Variants]) -> list[np.ndarray]:
        """Replay all variants in one batch, and return the final rows of each owner, float32 [V, E]."""
        if not variants:
            return []
        world = _World.of(variants)
        states, past = self.recording.past(*(np.concatenate(world.copies[name]) for name in ("user", "item")))
        source = np.concatenate(world.source)
        rows: dict[str, Any] = {"user": states.user, "item": states.item}
        if len(source):
            events = self.recording.events.take(source)
            events = dataclasses.replace(
                events,
                user=np.concatenate(world.number["user"]),
                item=np.concatenate(world.number["item"]),
                tokens=_texts(variants, events.tokens),
                num_users=len(states.user),
                num_items=len(states.item),
            )
            sizes = events.num_users, events.num_items
            rows = self._continuation.run(states, past, events, sizes).states._asdict()
        return [rows[variant.side][owners] for variant, owners in zip(variants, world.owners, strict=True)]

    def _is_exact(self, side: str, row: int, pair: dict[str, int], moment: int) -> bool:
        sides = ("user", "item") if side == "user" else ("item", "user")
        own, partner = (self.side(name).number for name in sides)
        owner, other = (pair[name] for name in sides)
        sizes = [len(self.side(name).now) for name in sides]
        return bool(_is_exact(own, partner, row, moment, owner, other, *sizes))


@numba.njit(cache=True)
def _is_exact(  # pragma: no cover - compiled
    own: np.ndarray, partner: np.ndarray, row: int, moment: int, owner: int, other: int, num_own: int, num_partner: int
) -> bool:
    """Return True if no state that the replay and the score read depends on interaction `row` of `owner`."""
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
    """The copies of users and items that variants are replayed with, and their interactions.

    Attributes:
      copies: for users and items, the interaction just before which each copy is taken, as a list of parts.
      source: the interaction of the stream that each replayed interaction copies, as a list of parts.
      number: for users and items, the copy that each replayed interaction belongs to, as a list of parts.
      owners: for each of the variants, the numbers of its owner's copies.
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
            variant, index = np.nonzero(kept)
            world.source.append(rows[index])
            world.owners.append(slice(sizes[side], sizes[side] + len(kept)))
            partner: str = "item" if side == "user" else "user"
            for name, copies, local in (
                (side, np.repeat(rows[0], len(kept)), variant),
                (partner, rows[index], np.arange(len(index))),
            ):
                world.number[name].append((sizes[name] + local).astype(np.int32))
                world.copies[name].append(copies)
                sizes[name] += len(copies)
        return world


def _texts(variants: Sequence[Variants], recorded: Tokens | None) -> Tokens | None:
    """Return the reviews of all kept interactions: the recorded ones, or those that a variant replaces them with."""
    if recorded is None:
        return None
    begin, parts = 0, []
    for variant in variants:
        kept = np.flatnonzero(variant.kept)
        part = recorded.part(begin, begin + len(kept)) if variant.texts is None else variant.texts.take(kept)
        parts.append(part)
        begin += len(kept)
    return Tokens.concatenate(parts)
