"""Rating and ranking evaluation of any model, leak-free, in blocks on device.

*Frozen*: all rows as they were at the end of train; *ranking* is the same for models that only rank, on
validation too. *Prequential*: validation, then test, each interaction scored first and then learned from. No test
figure exists before selection is final: it takes the frozen record of these very parameters, and who has seen one can
no longer validate.

Formulas: `drex_jax.metrics`. Ties are broken against the model (an item of equal score stands ahead of a relevant
one). An item outside the candidates is a miss.

Letters: n interactions, b lists of a block, I items, E row size, K the largest cutoff.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from drex_jax.common.cache import Arrays
from drex_jax.data.events import Events
from drex_jax.devices.axis import Axis
from drex_jax.evaluation.frozen import FrozenRanking
from drex_jax.evaluation.prequential import PrequentialRanking
from drex_jax.metrics.names import RANKING_METRICS
from drex_jax.metrics.ranking import ranking_metrics, rated_items_ranks
from drex_jax.metrics.rating import rating_metrics
from drex_jax.models.protocol import Compile, Params, States, Stream, Trace, compile_alone
from drex_jax.runs.selection import Selection, digest

Metrics = dict[str, float]


@dataclasses.dataclass(frozen=True)
class EvaluationOptions:
    """How to evaluate.

    Attributes:
      cutoffs: the K of ranking metrics.
      threshold: a rating at least this high makes an item relevant; unrated interactions are relevant where the data
        has no ratings at all.
      rating_range: predictions are clipped to it; None where the data has no ratings.
      mask: `strict` leaves out of a list what its user touched before (rows after train: everything before the part
        that is judged; prequential: everything before the moment); `mmrec` leaves out train only. With rows after
        train, the candidates of `strict` are the items seen in train; `mmrec` has all items of the data set, and drops
        users without a train interaction.
      block: lists scored at once, at the most.
      ranking: whether to rank the catalogue at all.
      prequential: whether the model learns as it goes. Otherwise it is judged by full ranking alone, with all
        rows as they are after train, on validation as on test.
    """

    cutoffs: tuple[int, ...]
    threshold: float
    rating_range: tuple[float, float] | None
    mask: str = "strict"
    block: int = 256
    ranking: bool = True
    prequential: bool = True


class Tested(NamedTuple):
    """The results of evaluation on test.

    Attributes:
      metrics: of each way of evaluating.
      states: all rows after the whole file.
      lists: of each way, what its metrics are made of, for paired tests. Ranking: `ranks` and `lists` int [m], as
        `drex_jax.metrics.ranking.ranking_per_list` takes them, `user` int [lists] and, of each rank, `item` int [m]
        or, prequential, `interaction` int [lists], its number in the order of learning. Ratings: `row` int [n],
        numbers of the rated test interactions, `rating` and `predicted` float32 [n]. What there is nothing of is left
        out.
    """

    metrics: dict[str, Metrics]
    states: States
    lists: dict[str, Arrays]


class Evaluator:
    """Evaluates one model over one data set. Its parts are prepared once; parameters come with each call."""

    def __init__(
        self,
        stream: Stream,
        events: Events,
        sizes: tuple[int, int, int],
        options: EvaluationOptions,
        devices: int = 1,
        compile_program: Compile = compile_alone,
    ):
        """Prepare both evaluations.

        Args:
          stream: of the model whose parameters come with each call.
          events: in the order of learning.
          sizes: of its train, validation and test.
          options: how to evaluate.
          devices: number of devices, which share predictions and lists.
          compile_program: makes a compiled function of a program over them.
        """
        self._stream, self._events, self._options, self._devices = stream, events, options, devices
        self._model = model = stream.model
        self._begins = np.cumsum((0, *sizes))
        rated = events.has_rating
        self._relevant = np.where(rated.any(), rated & (np.nan_to_num(events.rating) >= options.threshold), True)
        self._first = np.full(events.num_items, len(events), np.int64)  # first interaction of each item
        present, first = np.unique(events.item, return_index=True)
        self._first[present] = first
        self._prepared: dict[int, tuple[FrozenRanking, int]] = {}
        self._replayed: tuple[str, Any, Any] = "", None, None  # the last parameters, rows after train, after validation
        self._tested = False
        self._compile = compile_program
        self._rate = compile_program(partial(_rates, model.rate))
        self._prequential_ranking = PrequentialRanking(
            model.rank,
            events,
            self._relevant,
            self._first,
            options.mask,
            int(self._begins[1]),
            options.block,
            devices,
            compile_program,
        )

    def validate(self, params: Params, names: set[str]) -> Metrics:
        """Return validation metrics: prequential; the catalogue is ranked only if a name in `names` needs it.

        Without `EvaluationOptions.prequential` those of the full ranking by the rows after train.

        Raises:
          RuntimeError: test figures are out; what is chosen now would not be chosen on validation alone.
        """
        if self._tested:
            raise RuntimeError("this evaluator has given test figures: nothing more is selected by it; make another")
        stream = self._stream
        train, validation, _ = stream.segments()
        start = stream.after(params, stream.start(params), train)
        if not self._options.prequential:
            return self._frozen_ranking(params, start, 1)[0]
        after, trace = stream.observe(params, start, validation)
        self._replayed = digest(params), start, after
        ranking = self._options.ranking and any("@" in name and "/" not in name for name in names)
        return self._prequential(params, start, trace, 1, ranking)[0]

    def validation_metrics(self) -> list[str]:
        """Return the names of the metrics that `validate` can compute."""
        options, model, rows = self._options, self._model, self._rows(1)
        rated, relevant = self._events.has_rating[rows], self._relevant[rows]
        ranking = [f"{name}@{cutoff}" for name in RANKING_METRICS for cutoff in options.cutoffs]
        if not options.prequential:
            return ranking if len(self._lists(1)[0].users) else []
        names = []
        if model.rates and rated.any():
            names += ["mse", "rmse", "mae"]
            names += [f"rated_items/{name}" for name in ranking] if (rated & relevant).any() else []
        if model.ranks and options.ranking and relevant.any():
            names += ranking
        return names

    def evaluate_test(self, params: Params, selection: Selection) -> Tested:
        """Test metrics: `frozen` and `prequential`, or `ranking` alone without `EvaluationOptions.prequential`.

        They end selection: `validate` is refused from now on.

        Raises:
          TypeError: `selection` is not a `Selection` with a finite value: selection is not final.
          ValueError: it is the record of other parameters.
        """
        chosen = self._require_final(params, selection)
        stream = self._stream
        train, validation, test = stream.segments()
        replayed_sha256, after_train, before_test = self._replayed
        if replayed_sha256 != chosen:
            after_train = stream.after(params, stream.start(params), train)
            before_test = stream.after(params, after_train, validation)
        after_test, trace = stream.observe(params, before_test, test)
        if self._options.prequential:
            found = {
                "frozen": self._frozen(params, after_train),
                "prequential": self._prequential(params, before_test, trace, 2, self._options.ranking),
            }
        else:
            found = {"ranking": self._frozen_ranking(params, after_train, 2)}
        metrics = {way: values for way, (values, _) in found.items()}
        return Tested(metrics, after_test, {way: arrays for way, (_, arrays) in found.items()})

    def prequential_test(self, params: Params, selection: Selection, start: States, trace: Trace) -> Metrics:
        """Return prequential metrics of test events that were observed elsewhere, against the events here.

        Args:
          params: of the model.
          selection: as for `evaluate_test`, which says what is raised.
          start: all rows before the test.
          trace: of its interactions.
        """
        self._require_final(params, selection)
        return self._prequential(params, start, trace, 2, self._options.ranking)[0]

    def predictions(self, params: Params, user: jax.Array, item: jax.Array) -> np.ndarray:
        """Return clipped ratings, float32 [n], from rows [n, E]."""
        n = len(user)
        padding = ((0, -n % self._devices), (0, 0))
        predicted = np.asarray(self._rate(params, jnp.pad(user, padding), jnp.pad(item, padding)))[:n]
        return predicted if self._options.rating_range is None else np.clip(predicted, *self._options.rating_range)

    def _require_final(self, params: Params, selection: object) -> str:
        """Return the digest of the parameters after checking that `selection` is their record; ends selection."""
        if not isinstance(selection, Selection) or not math.isfinite(selection.value):
            raise TypeError(f"test metrics need the frozen Selection record, not {selection!r}")
        params_sha256 = digest(params)
        if selection.params_sha256 != params_sha256:
            raise ValueError(f"the parameters have SHA-256 {params_sha256}, and {selection!r} is of others")
        self._tested = True
        return params_sha256

    def _rows(self, part: int) -> slice:
        return slice(int(self._begins[part]), int(self._begins[part + 1]))

    def _rating_metrics(self, predicted: np.ndarray, rows: slice) -> tuple[Metrics, Arrays]:
        """Return the rating errors, and the ranking metrics of each user's own interactions."""
        rating, relevant, user = self._events.rating[rows], self._relevant[rows], self._events.user[rows]
        rated = ~np.isnan(rating)
        if not self._model.rates or not rated.any():
            return {}, {}
        metrics = rating_metrics(predicted[rated], rating[rated])
        own = rated_items_ranks(predicted[rated], relevant[rated], user[rated])
        if own.num_lists:
            ranking = ranking_metrics(own.ranks, own.lists, own.num_lists, self._options.cutoffs)
            metrics |= {f"rated_items/{name}": value for name, value in ranking.items()}
            metrics["rated_items/lists"] = float(own.num_lists)
            metrics["rated_items/lists_all_relevant"] = float(own.num_all_relevant)
        row = rows.start + np.flatnonzero(rated)
        return metrics, {"row": row, "rating": rating[rated], "predicted": predicted[rated]}

    def _frozen(self, params: Params, states: States) -> tuple[Metrics, Arrays]:
        rows = self._rows(2)
        user, item = self._events.user[rows], self._events.item[rows]
        predicted = self.predictions(params, states.user[user], states.item[item]) if self._model.rates else np.zeros(0)
        metrics, arrays = self._rating_metrics(predicted, rows)
        if self._options.ranking and self._model.ranks:
            ranking, lists = self._frozen_ranking(params, states, 2)
            metrics, arrays = metrics | ranking, arrays | lists
        return metrics, arrays

    def _lists(self, part: int) -> tuple[FrozenRanking, int]:
        """Return the lists of a part, cached, and the number of users without train, who have no list."""
        if part not in self._prepared:
            events, rows, train_end = self._events, self._rows(part), int(self._begins[1])
            strict = self._options.mask == "strict"
            chosen = rows.start + np.flatnonzero(self._relevant[rows])
            users = np.unique(events.user[chosen])
            if not strict:
                chosen = chosen[np.isin(events.user[chosen], events.user[:train_end])]
            masked = slice(0, rows.start if strict else train_end)
            ranking = FrozenRanking(
                self._model.rank,
                (events.user[chosen], events.item[chosen]),
                (events.user[masked], events.item[masked]),
                self._first < train_end if strict else np.ones(events.num_items, bool),
                self._options.block,
                self._devices,
                self._compile,
            )
            self._prepared[part] = ranking, len(users) - len(ranking.users)
        return self._prepared[part]

    def _frozen_ranking(self, params: Params, states: States, part: int) -> tuple[Metrics, Arrays]:
        """Return one list for each user with a relevant interaction in a part."""
        lists, dropped = self._lists(part)
        if not len(lists.users):
            return {}, {}
        ranks = lists.ranks(params, states)
        metrics = ranking_metrics(ranks, lists.lists, len(lists.users), self._options.cutoffs)
        metrics |= {"lists": float(len(lists.users)), "candidates": float(lists.num_candidates)}
        if self._options.mask == "mmrec":
            metrics["users_dropped"] = float(dropped)
        return metrics, {"user": lists.users, "item": lists.items, "ranks": ranks, "lists": lists.lists}

    def _prequential(
        self, params: Params, start: States, trace: Trace, part: int, ranking: bool
    ) -> tuple[Metrics, Arrays]:
        rows = self._rows(part)
        predicted = self.predictions(params, trace.user_before, trace.item_before) if self._model.rates else np.zeros(0)
        metrics, arrays = self._rating_metrics(predicted, rows)
        if ranking and self._model.ranks and self._relevant[rows].any():
            ranks = self._prequential_ranking.ranks(params, start.item, trace, rows)
            metrics |= ranking_metrics(ranks, np.arange(len(ranks)), len(ranks), self._options.cutoffs)
            metrics["lists"] = float(len(ranks))
            interaction = rows.start + np.flatnonzero(self._relevant[rows])
            arrays |= {"user": self._events.user[interaction], "interaction": interaction}
            arrays |= {"ranks": ranks, "lists": np.arange(len(ranks))}
        return metrics, arrays


def _rates(rate: Any, axis: Axis, params: Params, user: jax.Array, item: jax.Array) -> jax.Array:
    """Return the predicted ratings [n], not clipped."""
    return axis.all_gather(rate(params, axis.shard(user), axis.shard(item)))


def definitions(options: EvaluationOptions) -> dict[str, str]:
    """Return what the metrics mean, for results: candidates, mask, ties, relevance, clipping."""
    strict = options.mask == "strict"
    lists = "a list a user with a relevant test item; rows: as after train; candidates: " + (
        "items seen in train" if strict else "all items of the data set; users without a train interaction are dropped"
    )
    common = {
        "relevant": f"a rating of at least {options.threshold:g} (any interaction where the data have no ratings)",
        "misses": "a relevant item that is no candidate is a miss",
        "ties": "an item of equal score stands ahead of a relevant one",
        "lists": "number of lists; users and interactions without a relevant item are dropped",
    }
    if not options.prequential:
        mask = "in train and validation (on validation: in train)" if strict else "in train"
        return common | {"ranking": lists, "mask": f"what the user touched {mask} is no candidate"}
    return common | {
        "predictions": "as they are"
        if options.rating_range is None
        else "clipped to {:g}..{:g}".format(*options.rating_range),
        "frozen": lists,
        "prequential": "a list a relevant test interaction; candidates: items seen before it; rows: as at its moment",
        "mask": "what the user touched before is no candidate (frozen: in train and validation)"
        if strict
        else "what the user touched in train is no candidate",
        "rated_items": "a list a user with a relevant test item; candidates: the user's own rated test interactions",
    }


def mean_over_seeds(per_seed: list[Mapping[str, Mapping[str, float]]]) -> dict[str, dict[str, float]]:
    """{way: {metric: mean}} of a list of the same shape."""
    return {
        way: {name: float(np.mean([seed[way][name] for seed in per_seed])) for name in values}
        for way, values in per_seed[0].items()
    }
