"""Rating and ranking evaluation of any model, leak-free, in blocks on device.

*Frozen*: everyone's rows as they were at the end of train. *Prequential*: validation, then test, each interaction
scored first and then learned from. No test figure exists before selection is final: `evaluate_test` takes the frozen
selection record.

Formulas: `drex_jax.metrics`. Ties are broken against the model (an item of equal score stands ahead of a relevant
one). An item outside the candidates is a miss.

Letters: n interactions, b lists of a block, I items, E row size, K the largest cutoff.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from drex_jax.data.modalities import Events
from drex_jax.metrics.ranking import METRICS, ranking_metrics, rated_items_ranks
from drex_jax.metrics.rating import rating_metrics
from drex_jax.models.axis import Axis
from drex_jax.models.protocol import Carry, Compile, Model, Params, Trace, compile_alone
from drex_jax.order import neighbours


@dataclasses.dataclass(frozen=True)
class Options:
    """How to evaluate.

    Attributes:
      cutoffs: the K of ranking metrics.
      threshold: a rating at least this high makes an item relevant; unrated interactions are relevant where the data
        has no ratings at all.
      rating_range: predictions are clipped to it; None where the data has no ratings.
      mask: `strict` leaves out of a list what its user touched before (frozen: train and validation; prequential:
        everything before the moment); `mmrec` leaves out train only.
      block: lists scored at once.
      ranking: whether to rank the catalogue at all.
    """

    cutoffs: tuple[int, ...]
    threshold: float
    rating_range: tuple[float, float] | None
    mask: str = "strict"
    block: int = 256
    ranking: bool = True


@dataclasses.dataclass(frozen=True)
class Selection:
    """The frozen record of what validation chose. Without one no test figure is computed.

    Attributes:
      metric: its name.
      value: on validation, prequential.
      epoch: of the chosen parameters, counted from 1; 0 for a closed-form model.
    """

    metric: str
    value: float
    epoch: int


def lower_is_better(metric: str) -> bool:
    """Whether a metric is an error."""
    return metric in ("mse", "rmse", "mae")


class Evaluator:
    """Evaluates one model over one data set. Its parts are prepared once; parameters come with each call."""

    def __init__(
        self,
        model: Model,
        events: Events,
        sizes: tuple[int, int, int],
        options: Options,
        devices: int = 1,
        compile_program: Compile = compile_alone,
    ):
        """Prepares both evaluations.

        Args:
          model: whose parameters come with each call.
          events: in the order of learning.
          sizes: of its train, validation and test.
          options: how to evaluate.
          devices: number of devices, which share predictions and lists.
          compile_program: makes a compiled function of a program over them.
        """
        options = dataclasses.replace(options, block=-(-options.block // devices) * devices)
        self._model, self._events, self._options, self._devices = model, events, options, devices
        self._begins = np.cumsum((0, *sizes))
        rated = events.has_rating
        self._relevant = np.where(rated.any(), rated & (np.nan_to_num(events.rating) >= options.threshold), True)
        self._first = np.full(events.num_items, len(events), np.int64)  # first interaction of each item
        present, first = np.unique(events.item, return_index=True)
        self._first[present] = first
        self._past = _Past(events)
        largest = min(max(options.cutoffs), events.num_items)
        self._rate = compile_program(partial(_rates, model.rate))
        self._relevant_ranks = compile_program(partial(_relevant_ranks, model.rank, largest))
        self._moment_ranks = compile_program(partial(_moment_ranks, model.rank))

    def validate(self, params: Params, names: set[str]) -> dict[str, float]:
        """Prequential metrics of validation; ranks the catalogue only if a name of `names` needs it."""
        model = self._model
        train, validation, _ = model.segments()
        start, _ = model.observe(params, model.start(params), train)
        _, trace = model.observe(params, start, validation)
        ranking = self._options.ranking and any("@" in name and "/" not in name for name in names)
        return self._prequential(params, start, trace, 1, ranking)

    def validation_metrics(self) -> list[str]:
        """The names that `validate` can give."""
        options, model, rows = self._options, self._model, self._rows(1)
        rated, relevant = self._events.has_rating[rows], self._relevant[rows]
        ranking = [f"{name}@{cutoff}" for name in METRICS for cutoff in options.cutoffs]
        names = []
        if model.rates and rated.any():
            names += ["mse", "rmse", "mae"]
            names += [f"rated_items/{name}" for name in ranking] if (rated & relevant).any() else []
        if model.ranks and options.ranking and relevant.any():
            names += ranking
        return names

    def evaluate_test(self, params: Params, selection: Selection) -> tuple[dict[str, dict[str, float]], Carry]:
        """Frozen and prequential metrics of test, and the rows after the whole file.

        Raises:
          TypeError: `selection` is not a `Selection` with a finite value: selection is not final.
        """
        if not isinstance(selection, Selection) or not math.isfinite(selection.value):
            raise TypeError(f"test metrics need the frozen Selection record, not {selection!r}")
        model = self._model
        train, validation, test = model.segments()
        after_train, _ = model.observe(params, model.start(params), train)
        before_test, _ = model.observe(params, after_train, validation)
        after_test, trace = model.observe(params, before_test, test)
        metrics = {
            "frozen": self._frozen(params, after_train, 2),
            "prequential": self._prequential(params, before_test, trace, 2, self._options.ranking),
        }
        return metrics, after_test

    def predictions(self, params: Params, user: jax.Array, item: jax.Array) -> np.ndarray:
        """float32 [n] clipped ratings from rows [n, E]."""
        n = len(user)
        padding = ((0, -n % self._devices), (0, 0))
        predicted = np.asarray(self._rate(params, jnp.pad(user, padding), jnp.pad(item, padding)))[:n]
        return predicted if self._options.rating_range is None else np.clip(predicted, *self._options.rating_range)

    def _rows(self, part: int) -> slice:
        return slice(int(self._begins[part]), int(self._begins[part + 1]))

    def _rating_metrics(self, predicted: np.ndarray, rows: slice) -> dict[str, float]:
        """Errors, and the ranking of each user's own interactions."""
        rating, relevant, user = self._events.rating[rows], self._relevant[rows], self._events.user[rows]
        rated = ~np.isnan(rating)
        if not self._model.rates or not rated.any():
            return {}
        metrics = rating_metrics(predicted[rated], rating[rated])
        own = rated_items_ranks(predicted[rated], relevant[rated], user[rated])
        if own.num_lists:
            ranking = ranking_metrics(own.ranks, own.lists, own.num_lists, self._options.cutoffs)
            metrics |= {f"rated_items/{name}": value for name, value in ranking.items()}
            metrics["rated_items/lists"] = float(own.num_lists)
            metrics["rated_items/lists_all_relevant"] = float(own.num_all_relevant)
        return metrics

    def _frozen(self, params: Params, carry: Carry, part: int) -> dict[str, float]:
        rows = self._rows(part)
        user, item = self._events.user[rows], self._events.item[rows]
        predicted = self.predictions(params, carry.user[user], carry.item[item]) if self._model.rates else np.zeros(0)
        metrics = self._rating_metrics(predicted, rows)
        if self._options.ranking and self._model.ranks:
            metrics |= self._frozen_ranking(params, carry, rows)
        return metrics

    def _frozen_ranking(self, params: Params, carry: Carry, rows: slice) -> dict[str, float]:
        """One list a user with a relevant interaction in `rows`; candidates are the items seen in train."""
        events, options = self._events, self._options
        train_end = int(self._begins[1])
        pairs = np.unique(np.stack([events.user[rows], events.item[rows]])[:, self._relevant[rows]], axis=1)
        if not pairs.shape[1]:
            return {}
        users, lists = np.unique(pairs[0], return_inverse=True)
        masked_end = rows.start if options.mask == "strict" else train_end
        candidates = jnp.asarray(self._first < train_end)
        blocks = []
        for begin in range(0, len(users), options.block):
            block = users[begin : begin + options.block]
            masked = self._past.mask(block, np.full(len(block), masked_end))
            relevant = np.zeros((len(block), events.num_items), bool)
            inside = (lists >= begin) & (lists < begin + options.block)
            relevant[lists[inside] - begin, pairs[1, inside]] = True
            size = (0, options.block - len(block))  # one shape for every block
            block = np.pad(block, size)
            padded = [np.pad(matrix, (size, (0, 0))) for matrix in (masked, relevant)]
            ranks = self._relevant_ranks(params, carry.user[block], carry.item, candidates, *padded)
            blocks.append(np.asarray(ranks)[: options.block - size[1]])
        ranked = np.concatenate(blocks)  # [lists, K]
        hit = ranked > 0
        misses = np.bincount(lists) - hit.sum(1)
        ranks = np.concatenate([ranked[hit], np.zeros(misses.sum(), np.int64)])
        of = np.repeat(np.tile(np.arange(len(users)), 2), np.concatenate([hit.sum(1), misses]))
        metrics = ranking_metrics(ranks, of, len(users), options.cutoffs)
        return metrics | {"lists": float(len(users)), "candidates": float((self._first < train_end).sum())}

    def _prequential(self, params: Params, start: Carry, trace: Trace, part: int, ranking: bool) -> dict[str, float]:
        rows = self._rows(part)
        predicted = self.predictions(params, trace.user_before, trace.item_before) if self._model.rates else np.zeros(0)
        metrics = self._rating_metrics(predicted, rows)
        if ranking and self._model.ranks and self._relevant[rows].any():
            ranks = self._prequential_ranks(params, start.item, trace, rows)
            metrics |= ranking_metrics(ranks, np.arange(len(ranks)), len(ranks), self._options.cutoffs)
            metrics["lists"] = float(len(ranks))
        return metrics

    def _prequential_ranks(self, params: Params, table: jax.Array, trace: Trace, rows: slice) -> np.ndarray:
        """int64: the rank of each relevant interaction's item at its moment among the items met before it; 0: a miss.

        A block's users are scored against the item table at the block's start; then the scores of items that changed
        inside the block before a user's moment are replaced by those of their rows at that moment.
        """
        events, options = self._events, self._options
        n, block = rows.stop - rows.start, options.block
        item = events.item[rows]
        padding = -n % block  # one shape for every block
        user_before, item_after = (
            jnp.pad(values, ((0, padding), (0, 0))) for values in (trace.user_before, trace.item_after)
        )
        ranks = []
        for begin in range(0, n, block):
            size = min(block, n - begin)
            chosen = slice(begin, begin + size)
            moments = rows.start + np.arange(begin, begin + size)
            touched_before = moments if options.mask == "strict" else np.full(size, self._begins[1])
            masked = self._past.mask(events.user[moments], touched_before)
            candidates = (self._first[None, :] < moments[:, None]) & ~masked  # [b, I]
            _, following = neighbours(item[chosen], events.num_items)  # within the block; b where there is none
            found, table = self._moment_ranks(
                params,
                user_before,
                item_after,
                np.int32(begin),
                table,
                np.pad(item[chosen], (0, block - size)),
                np.pad(np.where(following < size, following, block), (0, block - size), constant_values=-1),
                np.pad(candidates, ((0, block - size), (0, 0))),
            )
            ranks.append(np.asarray(found)[:size][self._relevant[moments]])
        return np.concatenate(ranks).astype(np.int64)


class _Past:
    """Which items each user touched before a moment: the interactions by user, in order."""

    def __init__(self, events: Events):
        self._num_items, self._n = events.num_items, len(events)
        self._order = np.argsort(events.user, kind="stable")
        self._keys = events.user[self._order].astype(np.int64) * (self._n + 1) + self._order
        self._item = events.item[self._order]

    def mask(self, users: np.ndarray, moments: np.ndarray) -> np.ndarray:
        """Bool [b, I]: what users [b] touched in interactions numbered below moments [b]."""
        users = users.astype(np.int64)
        begin = np.searchsorted(self._keys, users * (self._n + 1))
        end = np.searchsorted(self._keys, users * (self._n + 1) + moments)
        counts = end - begin
        rows = np.repeat(np.arange(len(users)), counts)
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        masked = np.zeros((len(users), self._num_items), bool)
        masked[rows, self._item[np.repeat(begin, counts) + within]] = True
        return masked


def _scores(rank: Any, params: Params, user: jax.Array, item: jax.Array) -> jax.Array:
    """Scores [b, m] in full precision, so that no accelerator's short products make ties; NaN stands last."""
    with jax.default_matmul_precision("highest"):
        scores = rank(params, user, item)
    return jnp.where(jnp.isnan(scores), -jnp.inf, scores)


def _rates(rate: Any, axis: Axis, params: Params, user: jax.Array, item: jax.Array) -> jax.Array:
    """Predicted ratings [n], not clipped."""
    return axis.everyone(rate(params, axis.own(user), axis.own(item)))


def _relevant_ranks(rank, k, axis, params, user, item, candidates, masked, relevant):
    """int32 [b, K]: the ranks, up to K, of each list's relevant candidates; 0 in places that are left over.

    The m-th best of them stands behind m - 1 others and behind all irrelevant candidates that score as high: those
    among the K best of the irrelevant ones are all that matter up to rank K.
    """
    user, masked, relevant = (axis.own(rows) for rows in (user, masked, relevant))
    scores = _scores(rank, params, user, item)  # [own b, I]
    allowed = candidates & ~masked
    own, ahead = (
        jax.lax.top_k(jnp.where(allowed & side, scores, -jnp.inf), k)[0] for side in (relevant, ~relevant)
    )  # [b, K] each, best first
    ranks = 1 + jnp.arange(k) + (ahead[:, None, :] >= own[:, :, None]).sum(2)
    return axis.everyone(jnp.where((own > -jnp.inf) & (ranks <= k), ranks, 0))


def _moment_ranks(rank, axis, params, user_before, item_after, begin, table, item, following, candidates):
    """The rank of each interaction's own item at its moment, int32 [b], and the item rows after the block.

    `user_before`, `item_after` [n, E]: rows of users before and of items after each interaction, of which the block's
    start at `begin`; `table` [I, E]: item rows at the block's start; `item` int [b]; `following` int [b]: the item's
    next interaction in the block, b where there is none, -1 in padding; `candidates` bool [b, I].
    """
    size = len(item)
    user, item_after = (jax.lax.dynamic_slice_in_dim(rows, begin, size) for rows in (user_before, item_after))
    k, own_item = axis.own(jnp.arange(size))[:, None], axis.own(item)[:, None]
    user, candidates = axis.own(user), axis.own(candidates)
    scores = _scores(rank, params, user, table)  # [own b, I]
    changed = _scores(rank, params, user, item_after)  # [own b, b]: user of row k, item as interaction j left it
    j = jnp.arange(size)[None, :]
    current = (j < k) & (k <= following[None, :])  # j is the item's last interaction before k
    columns = jnp.where(current, item[None, :], table.shape[0])
    scores = scores.at[jnp.arange(len(user))[:, None], columns].set(changed, mode="drop")
    own = jnp.take_along_axis(scores, own_item, axis=1)
    ahead = candidates & (scores >= own) & (jnp.arange(table.shape[0])[None, :] != own_item)
    inside = jnp.take_along_axis(candidates, own_item, axis=1)[:, 0] & (own[:, 0] > -jnp.inf)
    table = table.at[jnp.where(following == size, item, table.shape[0])].set(item_after, mode="drop")
    return axis.everyone(jnp.where(inside, 1 + ahead.sum(1), 0)), table


def definitions(options: Options) -> dict[str, str]:
    """What the figures mean, for results: candidates, mask, ties, relevance, clipping."""
    return {
        "relevant": f"a rating of at least {options.threshold:g} (any interaction where the data have no ratings)",
        "predictions": "as they are"
        if options.rating_range is None
        else "clipped to {:g}..{:g}".format(*options.rating_range),
        "frozen": "a list a user with a relevant test item; candidates: items seen in train; rows: as after train",
        "prequential": "a list a relevant test interaction; candidates: items seen before it; rows: as at its moment",
        "mask": "what the user touched before is no candidate (frozen: in train and validation)"
        if options.mask == "strict"
        else "what the user touched in train is no candidate",
        "misses": "a relevant item that is no candidate is a miss",
        "ties": "an item of equal score stands ahead of a relevant one",
        "rated_items": "a list a user with a relevant test item; candidates: the user's own rated test interactions",
        "lists": "number of lists; users and interactions without a relevant item are dropped",
    }


def mean_over_seeds(per_seed: list[Mapping[str, Mapping[str, float]]]) -> dict[str, dict[str, float]]:
    """{way: {metric: mean}} of a list of the same shape."""
    return {
        way: {name: float(np.mean([seed[way][name] for seed in per_seed])) for name in values}
        for way, values in per_seed[0].items()
    }
