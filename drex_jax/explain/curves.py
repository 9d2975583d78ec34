"""Deletion and insertion curves: do explanations name the parts that move the model, compared with random parts?

Deletion removes the k parts that an explanation ranks first: the score (or the owner's state) should change more than
without k other parts. Insertion keeps only these k parts: the score should be closer to the full score. Parts are the
last interactions of a user or an item, or the words in the reviews of these interactions. A pair is the user and the
item of a test interaction, just before it. Partner states are held at their recorded values
(`drex_jax.explain.occlusion`).

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

STEPS = (0, 1, 2, 3, 5, 10)  # numbers of parts that are removed or kept
WAYS = ("deletion", "insertion")
DRAWS = 3  # random orders of a pair; their mean is one value
LEAST_INTERACTIONS = 5  # earlier interactions that the user and the item of a pair must have
LEAST_KEYWORDS = 3  # keywords of a profile that must occur in the reviews of the last interactions
AT_ONCE = 100  # pairs replayed in one batch


class Pair(NamedTuple):
    """The user and the item of interaction `moment` of the stream, just before it."""

    moment: int
    user: int
    item: int


class Question(NamedTuple):
    """The variants to measure for the user or the item of a pair.

    Attributes:
      pair: the pair.
      names: names of the orders in which parts are removed; random orders share a name.
      variants: the full history, then one variant by order, way and step: V = 1 + orders * 2 K.
      removed: int [orders], tokens (or interactions) that the last step of deletion removes.
    """

    pair: Pair
    names: tuple[str, ...]
    variants: Variants
    removed: np.ndarray


class Effects(NamedTuple):
    """The distances from the full score and state, by order.

    Attributes:
      score: float64 [N, 2, K], absolute difference from the full score.
      change: float64 [N, 2, K], score minus the full score.
      state: float64 [N, 2, K], distance from the owner's full state, relative to its norm.
      removed: mean number of tokens (or interactions) that the last step of deletion removes.
    """

    score: dict[str, np.ndarray]
    change: dict[str, np.ndarray]
    state: dict[str, np.ndarray]
    removed: dict[str, float]


def choose_pairs(occlusion: Occlusion, begin: int, count: int, rng: np.random.Generator) -> list[Pair]:
    """Draw at most `count` interactions from `begin` on whose user and item have enough earlier interactions."""
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
    """Yield questions about the last interactions of each pair's user or item (`side`).

    The order `most` starts with the greatest influence of any sign, `least` with the smallest, `for` with the
    interaction that raises the score most, `against` with the one that lowers it most; `random` is random.
    """
    for some in _batches(pairs):
        variants = [_each(side, _met(occlusion, pair, side)) for pair in some]
        for pair, (_, rows, *_), states in zip(some, variants, occlusion.rows(variants), strict=True):
            scores = _scores(occlusion, pair, side, states)
            most = np.argsort(-np.abs(scores[1:] - scores[0]), kind="stable")
            raises = np.argsort(scores[1:], kind="stable")  # the score is lowest without what raises it most
            orders = [("most", most), ("least", most[::-1]), ("for", raises), ("against", raises[::-1])]
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
    """Yield questions about the profile words in the reviews of the last interactions of each pair's `side`.

    Each profile word is compared with another word of the same reviews that is not in the profile and occurs about as
    often (`random`), and with such a word from each pool.

    Args:
      occlusion: the replay of a model that reads texts.
      pairs: the pairs; those with fewer than `LEAST_KEYWORDS` profile words in the reviews are left out.
      side: user or item.
      words: the reviews of the stream as word numbers, token by token; -1 for no word.
      profiles: for each owner, the numbers of its profile words, best first.
      pools: further words to draw from, by name of the pool and owner.
      rng: random generator.
    """
    tokens = occlusion.recording.events.tokens
    assert tokens is not None
    for pair in pairs:
        rows, owner = _met(occlusion, pair, side), getattr(pair, side)
        local, word = np.unique(np.append(-1, words.take(rows).ids), return_inverse=True)
        word = word[1:]  # 0: no word
        count = np.bincount(word, minlength=len(local))
        index = {int(name): number for number, name in enumerate(local) if name >= 0}
        profile = np.array([index[name] for name in profiles[owner] if name in index][: STEPS[-1]], np.int64)
        if len(profile) < LEAST_KEYWORDS:
            continue
        others = np.setdiff1d(np.arange(1, len(local)), profile)
        drawn = {"random": others}
        for name, members in pools.items():
            drawn[name] = np.intersect1d(others, [index[member] for member in members[owner] if member in index])
        orders = [("keywords", profile)]
        orders += [(name, matched(count, profile, pool, rng)) for name, pool in drawn.items() for _ in range(DRAWS)]
        kept = np.concatenate([[np.ones(len(local), bool)], *(_sets(order, len(local)) for _, order in orders)])
        left = kept[:, word].ravel()  # [V T]: the tokens of each variant
        texts = tokens.take(np.tile(rows, len(kept))).keep(left)
        removed = np.array([count[order].sum() for _, order in orders])
        everything = np.ones((len(kept), len(rows)), bool)
        yield Question(pair, tuple(name for name, _ in orders), Variants(side, rows, everything, texts), removed)


def matched(count: np.ndarray, like: np.ndarray, pool: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw for each word of `like` an unused word of `pool` with the nearest count; fewer if the pool is too small."""
    left, drawn = rng.permutation(pool), []
    for word in like:
        if not len(left):
            break
        nearest = int(np.argmin(np.abs(count[left] - count[word])))
        drawn.append(left[nearest])
        left = np.delete(left, nearest)
    return np.array(drawn, np.int64)


def measure(occlusion: Occlusion, questions: Iterator[Question]) -> Effects | None:
    """Replay all variants, and return their effects; None without questions."""
    changes, states, removed, names = [], [], [], ()
    for some in _batches(questions):
        for question, rows in zip(some, occlusion.rows([question.variants for question in some]), strict=True):
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
    """Return the mean height [...] of curves [..., K] from the first step to the last."""
    return np.trapezoid(curves, STEPS, axis=-1) / STEPS[-1]


def figures(effects: Effects) -> dict[str, Any]:
    """Return means over pairs with 95% bootstrap intervals, as values for JSON.

    Returns:
      `pairs`, `removed`, and for each of `score`, `change` and `state` {way: {order: {`curve`: mean,
      `area`: [mean, low, high], `against_random`: the area minus that of random orders, [mean, low, high]}}}.
    """
    result: dict[str, Any] = {"pairs": len(effects.score["random"]), "removed": effects.removed}
    for name in ("score", "change", "state"):
        by_order = getattr(effects, name)
        areas = {order: area(values) for order, values in by_order.items()}  # [N, 2]
        result[name] = {
            way: {
                order: {
                    "curve": by_order[order][:, number].mean(0).tolist(),
                    "area": _interval(areas[order][:, number], np.zeros(result["pairs"])),
                    "against_random": _interval(areas[order][:, number], areas["random"][:, number]),
                }
                for order in by_order
            }
            for number, way in enumerate(WAYS)
        }
    return result


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
    """Return the scores of the pair, float32 [V], with rows [V, E] of its `side` and the recorded row of the other."""
    both = {name: occlusion.side(name).row(getattr(pair, name), pair.moment)[None] for name in ("user", "item")}
    return occlusion.scores(**(both | {side: rows}))


def _sets(order: np.ndarray, m: int) -> np.ndarray:
    """Return the parts that each step of deletion, then of insertion, keeps, bool [2 K, m]."""
    chosen = np.zeros((len(STEPS), m), bool)
    for number, k in enumerate(STEPS):
        chosen[number, order[:k]] = True
    return np.concatenate([~chosen, chosen])
