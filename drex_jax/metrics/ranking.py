"""Ranking metrics from the ranks of the relevant items.

A *list* is one ranking that is evaluated: of a user (frozen evaluation), of an interaction (prequential), or of the
items that a user rated in test. Metrics need only the ranks of its relevant items. Lists therefore come in ragged
form: `ranks` [m], and `lists` [m], the list of each rank.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np


def ranking_per_list(
    ranks: np.ndarray, lists: np.ndarray, num_lists: int, cutoffs: Sequence[int]
) -> dict[str, np.ndarray]:
    """Compute the metrics of every list, for means and for paired tests.

    >>> values = ranking_per_list(np.array([1, 3, 0]), np.array([0, 0, 1]), num_lists=2, cutoffs=[2])
    >>> values["recall@2"].tolist(), values["mrr@2"].tolist()
    ([0.5, 0.0], [1.0, 0.0])

    With R the relevant items of a list and H those of them ranked at or above cutoff K:
    `recall@K` = |H| / |R|; `precision@K` = |H| / K, however few candidates there are; `f1@K` = their harmonic mean
    (0 where both are 0); `ndcg@K` = sum over H of 1 / log2(rank + 1), over the same sum of an ideal list with
    min(|R|, K) hits; `map@K` = sum over H of precision at that rank, over min(|R|, K); `hr@K` = 1 if H is not empty;
    `mrr@K` = 1 / (best rank), 0 beyond K.

    Args:
      ranks: int [m], the 1-based rank of every relevant item among the candidates of its list; 0 if it is no candidate,
        which is a miss.
      lists: int [m], the list of each rank, in 0 .. num_lists - 1, in any order.
      num_lists: number of lists; each must have a relevant item.
      cutoffs: the values of K.

    Returns:
      `recall@K` and so on for every K: float64 [num_lists].

    Raises:
      ValueError: arrays of different lengths, a negative rank, a list without a relevant item, a cutoff below 1, or
        two items of a list at one rank.
    """
    ranks, lists = np.asarray(ranks, np.int64), np.asarray(lists, np.int64)
    if ranks.shape != lists.shape or ranks.ndim != 1:
        raise ValueError(f"ranks {ranks.shape} and lists {lists.shape} must be two vectors of one length")
    if len(ranks) and ranks.min() < 0:
        raise ValueError(f"rank {ranks.min()}: ranks start at 1, and 0 is a miss")
    if any(cutoff < 1 for cutoff in cutoffs):
        raise ValueError(f"cutoffs {tuple(cutoffs)} must be at least 1")
    relevant = np.bincount(lists, minlength=num_lists)  # [num_lists]
    if len(relevant) > num_lists or (relevant == 0).any():
        raise ValueError(f"each of the {num_lists} lists must have a relevant item, and no others may")

    ranks, lists = ranks[ranks > 0], lists[ranks > 0]
    order = np.lexsort((ranks, lists))
    ranks, lists = ranks[order], lists[order]
    begins = np.searchsorted(lists, np.arange(num_lists))
    hits_so_far = np.arange(len(ranks)) - begins[lists] + 1  # relevant items ranked at or above this one
    if (hits_so_far > ranks).any():
        raise ValueError("a list has more items ranked at or above some rank than there are places")

    most = min(max(cutoffs, default=0), int(relevant.max(initial=0)))  # most relevant items within a cutoff
    discounts = 1 / np.log2(np.arange(most) + 2)
    ideal = np.concatenate([[0.0], np.cumsum(discounts)])  # [most + 1]
    values = {}
    for cutoff in cutoffs:
        inside = ranks <= cutoff
        rank, where = ranks[inside], lists[inside]
        hits = np.bincount(where, minlength=num_lists)
        possible = np.minimum(relevant, cutoff)
        gain = np.bincount(where, 1 / np.log2(rank + 1), num_lists)
        precision_at_hits = np.bincount(where, hits_so_far[inside] / rank, num_lists)
        first = hits_so_far[inside] == 1
        values[f"recall@{cutoff}"] = hits / relevant
        values[f"precision@{cutoff}"] = hits / cutoff
        values[f"f1@{cutoff}"] = 2 * hits / (relevant + cutoff)  # the harmonic mean of h / |R| and h / K, simplified
        values[f"ndcg@{cutoff}"] = gain / ideal[possible]
        values[f"map@{cutoff}"] = precision_at_hits / possible
        values[f"hr@{cutoff}"] = (hits > 0).astype(np.float64)
        values[f"mrr@{cutoff}"] = np.bincount(where[first], 1 / rank[first], num_lists)
    return values


def ranking_metrics(ranks: np.ndarray, lists: np.ndarray, num_lists: int, cutoffs: Sequence[int]) -> dict[str, float]:
    """Return the means of `ranking_per_list` over the lists; NaN without lists. Same arguments and errors.

    >>> ranking_metrics(np.array([1, 3, 0]), np.array([0, 0, 1]), num_lists=2, cutoffs=[2])["hr@2"]
    0.5
    """
    values = ranking_per_list(ranks, lists, num_lists, cutoffs)
    return {name: float(value.mean()) if num_lists else float("nan") for name, value in values.items()}


@dataclasses.dataclass(frozen=True)
class RatedItemsRanks:
    """The ranks of the relevant items among the test items of each user.

    Attributes:
      ranks, lists: int64 [m], as `ranking_metrics` takes them.
      num_lists: number of users with at least one relevant item.
      users: int [num_lists], the user of each list, ascending.
      num_dropped: number of users without a relevant item, who are left out.
      num_all_relevant: number of lists in which every item is relevant, so that any order is perfect.
    """

    ranks: np.ndarray
    lists: np.ndarray
    num_lists: int
    users: np.ndarray
    num_dropped: int
    num_all_relevant: int


def rated_items_ranks(predicted: np.ndarray, relevant: np.ndarray, user: np.ndarray) -> RatedItemsRanks:
    """Rank the test interactions of each user by predicted rating, best first.

    Ties are broken against the model: irrelevant items come before relevant ones. NaN predictions come last.

    >>> rated_items_ranks(np.array([4.5, 2.0, 3.0]), np.array([False, True, True]), np.array([7, 7, 7])).ranks.tolist()
    [2, 3]

    Args:
      predicted: float [n], predicted ratings.
      relevant: bool [n], true where the rating reaches the threshold; leave unrated interactions out.
      user: int [n], the user of each interaction, in any order.

    Raises:
      ValueError: the arrays differ in length.
    """
    predicted, relevant, user = np.asarray(predicted, np.float64), np.asarray(relevant, bool), np.asarray(user)
    if not predicted.shape == relevant.shape == user.shape:
        raise ValueError(f"predictions {predicted.shape}, relevance {relevant.shape}, users {user.shape} must agree")
    order = np.lexsort((relevant, -predicted, user))
    users, begins, counts = np.unique(user[order], return_index=True, return_counts=True)
    group = np.repeat(np.arange(len(users)), counts)  # [n], in the sorted order
    ranks = np.arange(len(order)) - np.repeat(begins, counts) + 1
    hit = relevant[order]
    num_relevant = np.bincount(group[hit], minlength=len(users))
    has_list = num_relevant > 0
    number = np.cumsum(has_list) - 1  # the list of each user
    return RatedItemsRanks(
        ranks=ranks[hit],
        lists=number[group[hit]],
        num_lists=int(has_list.sum()),
        users=users[has_list],
        num_dropped=int((~has_list).sum()),
        num_all_relevant=int((num_relevant == counts).sum()),
    )
