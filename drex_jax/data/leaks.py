"""What of validation and test is shown too early, told from the rows in the order in which a model reads them."""

from __future__ import annotations

import collections

import numpy as np

from drex_jax.data.interactions import Interactions


def future(kind: str, time: np.ndarray, sizes: tuple[int, int, int]) -> list[str]:
    """A sentence for each part that does not follow in time what is before it.

    Args:
      kind: of split, for the sentences.
      time: float64 [n], of train, validation and test.
      sizes: how many of each there are.
    """
    sentences = []
    train, seen, everything = np.cumsum(sizes)
    for early, border, late, end in (
        ("train", train, "validation", seen),
        ("train and validation", seen, "test", everything),
    ):
        overlap = np.count_nonzero(time[:border] >= time[border:end].min())
        if overlap:
            sentences.append(
                f"split {kind} leaks the future: {overlap / border:.1%} of the {early} interactions are not "
                f"earlier than the first {late} interaction"
            )
    return sentences


def copies(interactions: Interactions, sizes: tuple[int, int, int]) -> list[str]:
    """A sentence if a user's review stands on both sides of a boundary: with the same item, or with another one.

    Args:
      interactions: from `modalities.in_learning_order`.
      sizes: how many train, validation and test interactions it holds.
    """
    part = np.repeat(np.arange(3), sizes)
    seen: dict[tuple[int, bytes], dict[int, set[int]]] = collections.defaultdict(lambda: collections.defaultdict(set))
    for row in _repeated(interactions).tolist():  # the parts in which a user said something, by item
        said = int(interactions.user[row]), interactions.text.bytes_at(row)
        seen[said][int(interactions.item[row])].add(int(part[row]))
    same = sum(len(parts) > 1 for items in seen.values() for parts in items.values())
    other = sum(len(items) > 1 and len(set().union(*items.values())) > 1 for items in seen.values())
    sentences = [f"{same:,} reviews stand on both sides of a boundary: same user, item and text"] if same else []
    if other:
        sentences.append(f"{other:,} texts stand on both sides of a boundary: same user, different items")
    return sentences


def _repeated(interactions: Interactions) -> np.ndarray:
    """Rows whose user says the very same in another row, and perhaps a few more."""
    rows = np.flatnonzero(interactions.has_text)
    users, text = interactions.user[rows].tolist(), interactions.text
    said = (hash((user, text.bytes_at(row))) for user, row in zip(users, rows.tolist(), strict=True))
    _, which, counts = np.unique(np.fromiter(said, np.int64, len(rows)), return_inverse=True, return_counts=True)
    return rows[counts[which] > 1]


def core(k: int) -> list[str]:
    """A sentence for a k-core: who stays in it depends on what comes later."""
    return [f"data.k_core={k}: who is in the data at all depends on validation and test interactions too"] * (k > 1)


def unborn(item: np.ndarray, lists: dict[str, np.ndarray], num_train: int) -> int:
    """How many relevant items of lists were ranked though they, or so many candidates, were not there yet.

    Args:
      item: int [n], of every interaction in the order of learning, numbered by first appearance in it.
      lists: as `drex_jax.evaluate.Tested.lists` has them: each at its `interaction`, or else at the end of train.
      num_train: the number of train interactions.
    """
    met = np.concatenate([[0], np.maximum.accumulate(item) + 1])  # items there are before each interaction
    if "interaction" in lists:
        moment = lists["interaction"][lists["lists"]]
        relevant = item[moment]
    else:
        moment, relevant = np.full(len(lists["ranks"]), num_train), lists["item"]
    ranks = lists["ranks"]
    return int(np.count_nonzero((ranks > 0) & ((relevant >= met[moment]) | (ranks > met[moment]))))
