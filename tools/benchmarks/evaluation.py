"""Full ranking by this package, and as PyTorch users write it: blocked product, mask by index, `topk`, count of hits.

Both are prepared once, like an evaluation that runs after every epoch. Each call then computes the metrics of the given
rows, including the work on the host.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from drex_jax.evaluation.frozen import FrozenRanking
from drex_jax.metrics.ranking import ranking_metrics
from drex_jax.models.protocol import States
from tools.benchmarks import torch_module

Evaluate = Callable[[], dict[str, float]]
WITH_MORE, MOST = 0.2, 4  # this share of a synthetic problem's users have 2 to MOST relevant items; the others have one


@dataclasses.dataclass(frozen=True)
class Problem:
    """A ranking problem.

    Attributes:
      user, item: float32 [U, D] and [I, D]; scores are their products, and all items are candidates.
      relevant: pairs of a user and a relevant item, as two int [m].
      masked: pairs of a user and an item that is excluded from the user's candidates, as two int [n].
      cutoffs: cutoffs of the metrics.
    """

    user: np.ndarray
    item: np.ndarray
    relevant: tuple[np.ndarray, np.ndarray]
    masked: tuple[np.ndarray, np.ndarray]
    cutoffs: tuple[int, ...] = (5, 10, 20, 50)


def synthetic(users: int, items: int, interactions: int, size: int = 64, seed: int = 0) -> Problem:
    """Make random rows, random train interactions with popular items, and about 1.3 relevant items a user."""
    rng = np.random.default_rng(seed)
    user, item = (rng.normal(size=(count, size)).astype(np.float32) for count in (users, items))
    masked = rng.integers(0, users, interactions), (rng.random(interactions) ** 2 * items).astype(np.int64)
    counts = np.where(rng.random(users) < WITH_MORE, rng.integers(2, MOST + 1, users), 1)
    owner = np.repeat(np.arange(users), counts)
    return Problem(user, item, (owner, rng.integers(0, items, len(owner))), masked)


def ours(problem: Problem, block: int = 256) -> Evaluate:
    """Return a function that ranks all items with this package (`drex_jax.evaluation.frozen`) on the first device."""
    candidates = np.ones(len(problem.item), bool)
    ranking = FrozenRanking(_product, problem.relevant, problem.masked, candidates, block)
    carry = States(jnp.asarray(problem.user), jnp.asarray(problem.item))

    def evaluate() -> dict[str, float]:
        ranks = ranking.ranks({}, carry)
        return ranking_metrics(ranks, ranking.lists, len(ranking.users), problem.cutoffs)

    return evaluate


def _product(params: Any, user: Any, item: Any) -> Any:
    return user @ item.T


def torch_full_ranking(problem: Problem, block: int = 256, threads: int = 2) -> Evaluate:
    """Return a function that ranks all items with PyTorch.

    It computes a blocked product, sets the masked scores to minus infinity by index, and takes `topk`.

    Args:
      problem: the ranking problem.
      block: number of users scored at once.
      threads: number of threads that PyTorch may use, from now on.

    Raises:
      UserError: PyTorch is not installed.
    """
    torch = torch_module.load()
    torch.set_num_threads(threads)
    num_items = len(problem.item)
    relevant, masked = (
        np.unique(user.astype(np.int64) * num_items + item) for user, item in (problem.relevant, problem.masked)
    )
    relevant = np.setdiff1d(relevant, masked, assume_unique=True)
    owner = relevant // num_items
    users, lists = np.unique(owner, return_inverse=True)
    masked_user, masked_item = np.divmod(masked, num_items)
    kept = np.isin(masked_user, users)
    masked_list, masked_item = np.searchsorted(users, masked_user[kept]), torch.from_numpy(masked_item[kept])
    begins = np.searchsorted(masked_list, np.arange(0, len(users) + block, block))
    user, item, chosen = torch.from_numpy(problem.user), torch.from_numpy(problem.item), torch.from_numpy(users)
    most = min(max(problem.cutoffs), num_items)

    def evaluate() -> dict[str, float]:
        tops = []
        with torch.inference_mode():
            for number, begin in enumerate(range(0, len(users), block)):
                scores = user[chosen[begin : begin + block]] @ item.T
                part = slice(begins[number], begins[number + 1])
                scores[torch.from_numpy(masked_list[part] - begin), masked_item[part]] = -torch.inf
                tops.append(torch.topk(scores, most)[1])
        top = torch.cat(tops).numpy()  # [lists, K]
        keys = users[:, None] * num_items + top
        hit = relevant[np.minimum(np.searchsorted(relevant, keys), len(relevant) - 1)] == keys
        row, place = np.nonzero(hit)
        misses = np.repeat(np.arange(len(users)), np.bincount(lists) - hit.sum(1))
        ranks = np.concatenate([place + 1, np.zeros(len(misses), np.int64)])
        return ranking_metrics(ranks, np.concatenate([row, misses]), len(users), problem.cutoffs)

    return evaluate


def alternate(calls: dict[str, Evaluate], repeats: int = 5) -> dict[str, list[float]]:
    """Return the seconds of each call's repeats; calls alternate, so that other load on the machine affects them all.

    Each is called once before, as a warm-up that is not counted.
    """
    for call in calls.values():
        call()
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            begun = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - begun)
    return seconds
