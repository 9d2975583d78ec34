"""Do explanations name what moves the model? Deletion and insertion curves, each against chance.

Deletion takes the k parts away that an explanation names first: the score (or the owner's state) should move further
than where k other parts go. Insertion gives nothing but those k: what is missing to the score as it is should be less.
Parts are the last interactions of a user or an item, or the words of its reviews in them. A pair is that of a test
interaction, at the moment just before it. Partner states are held as recorded (`drex_jax.explain.profiles.occlusion`).

Letters: N pairs, m interactions or words, K steps, V variants, E row size.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from drex_jax.data.tokens import Tokens
from drex_jax.explain.occlusion import LAST, Occlusion, Variants, each_left_out
from drex_jax.metrics.significance import paired_bootstrap
from drex_jax.models.drex.network import AUXILIARY

STEPS = (0, 1, 2, 3, 5, 10)  # parts taken away, or given
WAYS = ("deletion", "insertion")
DRAWS = 3  # random orders a pair, whose mean is one value
LEAST_INTERACTIONS = 5  # that the user and the item of a pair have behind them
LEAST_KEYWORDS = 3  # of a profile that the reviews of an owner's last interactions use
AT_ONCE = 100  # pairs replayed in one batch


class Pair(NamedTuple):
    """A user and an item just before interaction `moment` of the stream, their own."""

    moment: int
    user: int
    item: int


class Question(NamedTuple):
    """What to measure of one side of a pair.

    Attributes:
      pair: the pair.
      names: of the orders in which parts are taken; chance has several of one name.
      variants: as it is, then by order, way and step: V = 1 + orders * 2 K.
      removed: int [orders], tokens (or interactions) that the last step of deletion takes.
    """

    pair: Pair
    names: tuple[str, ...]
    variants: Variants
    removed: np.ndarray


class Effects(NamedTuple):
    """How far from what is, by order.

    Attributes:
      score: float64 [N, 2, K], how far the score is.
      change: float64 [N, 2, K], the score less what it is.
      state: float64 [N, 2, K], how far the owner's state is, as a share of its length.
      removed: tokens (or interactions) that the last step of deletion takes, the mean over pairs.
    """

    score: dict[str, np.ndarray]
    change: dict[str, np.ndarray]
    state: dict[str, np.ndarray]
    removed: dict[str, float]


def choose_pairs(occlusion: Occlusion, begin: int, count: int, rng: np.random.Generator) -> list[Pair]:
    """At most `count` of the interactions from `begin` on whose user and item have `LEAST_INTERACTIONS` behind them."""
    events = occlusion.recording.events
    eligible = []
    for moment in range(begin, len(events)):
        pair = Pair(moment, int(events.user[moment]), int(events.item[moment]))
        if min(len(_met(occlusion, pair, side)) for side in ("user", "item")) >= LEAST_INTERACTIONS:
            eligible.append(pair)
    chosen = rng.permutation(len(eligible))[:count]
    return [eligible[number] for number in np.sort(chosen)]


def interaction_questions(
    occlusion: Occlusion, pairs: Sequence[Pair], side: str, rng: np.random.Generator
) -> Iterator[Question]:
    """What the last interactions of each pair's `side` did, by their influence and at random.

    `most` takes the greatest influence first, whatever its sign, and `least` the smallest; `for` takes what speaks most
    for the pair, `against` what speaks most against it.
    """
    for some in _batches(pairs):
        variants = [_each(side, _met(occlusion, pair, side)) for pair in some]
        for pair, (_, rows, *_), found in zip(some, variants, occlusion.rows(variants), strict=True):
            scores = _scores(occlusion, pair, side, found)
            most = np.argsort(-np.abs(scores[1:] - scores[0]), kind="stable")
            speaks = np.argsort(scores[1:], kind="stable")  # without what speaks for the pair the score is low
            orders = [("most", most), ("least", most[::-1]), ("for", speaks), ("against", speaks[::-1])]
            orders += [("random", rng.permutation(len(rows))) for _ in range(DRAWS)]
            kept = np.concatenate([[np.ones(len(rows), bool)], *(_sets(order, len(rows)) for _, order in orders)])
            removed = np.full(len(orders), min(STEPS[-1], len(rows)))
            yield Question(pair, tuple(name for name, _ in orders), Variants(side, rows, kept), removed)


def keyword_questions(
    occlusion: Occlusion,
    pairs: Sequence[Pair],
    side: str,
    words: Tokens,
    profiles: Sequence[Sequence[int]],
    pools: Mapping[str, Sequence[Sequence[int]]],
    rng: np.random.Generator,
) -> Iterator[Question]:
    """What the words of a profile do in the reviews of the last interactions of each pair's `side`.

    Against each word of the profile there is another one of the same reviews, with as many occurrences as can be had,
    that the profile does not name: `random`; and one of each pool that it does not name either.

    Args:
      occlusion: of a model that reads texts.
      pairs: those whose reviews use fewer than `LEAST_KEYWORDS` of the profile are left out.
      side: user or item.
      words: the stream's reviews as word numbers, token by token; -1 where there is no word.
      profiles: by owner, the numbers of its words, best first.
      pools: by name and owner, words to draw from besides.
      rng: the source of the draws.
    """
    tokens = occlusion.recording.events.tokens
    assert tokens is not None
    for pair in pairs:
        rows, owner = _met(occlusion, pair, side), getattr(pair, side)
        local, word = np.unique(np.append(-1, words.take(rows).ids), return_inverse=True)
        word = word[1:]  # 0: no word
        count = np.bincount(word, minlength=len(local))
        place = {int(name): number for number, name in enumerate(local) if name >= 0}
        profile = np.array([place[name] for name in profiles[owner] if name in place][: STEPS[-1]], np.int64)
        if len(profile) < LEAST_KEYWORDS:
            continue
        others = np.setdiff1d(np.arange(1, len(local)), profile)
        drawn = {"random": others}
        for name, members in pools.items():
            drawn[name] = np.intersect1d(others, [place[member] for member in members[owner] if member in place])
        orders = [("keywords", profile)]
        orders += [(name, matched(count, profile, pool, rng)) for name, pool in drawn.items() for _ in range(DRAWS)]
        kept = np.concatenate([[np.ones(len(local), bool)], *(_sets(order, len(local)) for _, order in orders)])
        left = kept[:, word].ravel()  # [V T]: which tokens each variant has
        texts = tokens.take(np.tile(rows, len(kept))).keep(left)
        removed = np.array([count[order].sum() for _, order in orders])
        everything = np.ones((len(kept), len(rows)), bool)
        yield Question(pair, tuple(name for name, _ in orders), Variants(side, rows, everything, texts), removed)


def matched(count: np.ndarray, like: np.ndarray, pool: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Words of `pool`, none twice, while there are any: for each of `like` one of the nearest `count`, at random."""
    left, drawn = rng.permutation(pool), []
    for word in like:
        if not len(left):
            break
        nearest = int(np.argmin(np.abs(count[left] - count[word])))
        drawn.append(left[nearest])
        left = np.delete(left, nearest)
    return np.array(drawn, np.int64)


def measure(occlusion: Occlusion, questions: Iterator[Question]) -> Effects | None:
    """Replays all variants; None where there is no question."""
    changes, states, removed, names = [], [], [], ()
    for some in _batches(questions):
        for question, rows in zip(some, occlusion.rows([each.variants for each in some]), strict=True):
            names = question.names
            scores = _scores(occlusion, question.pair, question.variants.side, rows).astype(np.float64)
            state = rows[:, :-AUXILIARY].astype(np.float64)
            far = np.linalg.norm(state - state[0], axis=1) / np.linalg.norm(state[0])
            shape = len(names), len(WAYS), len(STEPS)
            changes.append((scores - scores[0])[1:].reshape(shape))
            states.append(far[1:].reshape(shape))
            removed.append(question.removed)
    if not changes:
        return None
    change, state = np.stack(changes), np.stack(states)  # [N, orders, 2, K]

    def by_order(values: np.ndarray) -> dict[str, np.ndarray]:
        return {name: values[:, [other == name for other in names]].mean(1) for name in names}

    counts = {name: float(values.mean()) for name, values in by_order(np.stack(removed)).items()}
    return Effects(by_order(np.abs(change)), by_order(change), by_order(state), counts)


def area(curves: np.ndarray) -> np.ndarray:
    """The mean height [...] of curves [..., K] from the first step to the last."""
    return np.trapezoid(curves, STEPS, axis=-1) / STEPS[-1]


def figures(effects: Effects) -> dict[str, Any]:
    """Means over pairs with 95% bootstrap intervals, as JSON can hold them.

    Returns:
      `pairs`, `removed`, and for `score`, `change` and `state` {way: {order: its mean `curve`, its `area` [mean, low,
      high], and, `against_random`, the area less that of random orders, likewise}}.
    """
    found: dict[str, Any] = {"pairs": len(effects.score["random"]), "removed": effects.removed}
    for name in ("score", "change", "state"):
        by_order = getattr(effects, name)
        areas = {order: area(values) for order, values in by_order.items()}  # [N, 2]
        found[name] = {
            way: {
                order: {
                    "curve": by_order[order][:, number].mean(0).tolist(),
                    "area": _interval(areas[order][:, number], np.zeros(found["pairs"])),
                    "against_random": _interval(areas[order][:, number], areas["random"][:, number]),
                }
                for order in by_order
            }
            for number, way in enumerate(WAYS)
        }
    return found


def _interval(first: np.ndarray, second: np.ndarray) -> list[float]:
    interval = paired_bootstrap(first, second)
    return [interval.difference, interval.low, interval.high]


def _batches(several: Any) -> Iterator[list[Any]]:
    several = iter(several)
    while some := list(itertools.islice(several, AT_ONCE)):
        yield some


def _met(occlusion: Occlusion, pair: Pair, side: str) -> np.ndarray:
    return occlusion.side(side).met(getattr(pair, side), pair.moment)[-LAST:]


def _each(side: str, rows: np.ndarray) -> Variants:
    return Variants(side, rows, each_left_out(len(rows)))


def _scores(occlusion: Occlusion, pair: Pair, side: str, rows: np.ndarray) -> np.ndarray:
    """float32 [V]: of the pair, with rows [V, E] of its `side` and the other one's as it is."""
    both = {name: occlusion.side(name).row(getattr(pair, name), pair.moment)[None] for name in ("user", "item")}
    return occlusion.scores(**(both | {side: rows}))


def _sets(order: np.ndarray, m: int) -> np.ndarray:
    """Bool [2 K, m]: what deletion leaves of m parts, then what insertion gives, the first of `order` first."""
    chosen = np.zeros((len(STEPS), m), bool)
    for number, k in enumerate(STEPS):
        chosen[number, order[:k]] = True
    return np.concatenate([~chosen, chosen])
