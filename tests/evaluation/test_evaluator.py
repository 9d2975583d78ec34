"""Compare the evaluation with slow twins: loops over events and items, with the whole tables of every moment."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drex_jax.data.events import Events
from drex_jax.evaluation.evaluator import EvaluationOptions, Evaluator, definitions, mean_over_seeds
from drex_jax.metrics.names import lower_is_better
from drex_jax.models import running_bias
from drex_jax.models.baselines.bias import RunningBias
from drex_jax.models.baselines.popularity import Popularity
from drex_jax.models.drex.model import DReXOptions
from drex_jax.models.drex.network import NetworkOptions
from drex_jax.models.drex.stream import WindowStream
from drex_jax.models.lookup import ClosedForm, Lookup, LookupStream
from drex_jax.models.protocol import States, Trace
from drex_jax.runs.selection import Selection

SELECTION = Selection.of({}, "mse", 1.0, 3)  # for models without parameters
SCALE = 0.3171  # scale of products of integer rows: scores are rounded, and different sums are never equal
OPTIONS = EvaluationOptions(cutoffs=(1, 3, 10), threshold=4.0, rating_range=(1.0, 5.0))


def make_events(
    seed: int, n: int = 90, users: int = 8, items: int = 12, *, rated: float = 0.9, repeats: bool = True
) -> Events:
    """Return random interactions, numbered by first appearance, most of them rated; pairs may repeat."""
    rng = np.random.default_rng(seed)
    user, item = rng.integers(0, users, n), (rng.random(n) ** 2 * items).astype(int)
    if not repeats:
        _, first = np.unique(user * items + item, return_index=True)
        user, item = user[np.sort(first)], item[np.sort(first)]
    user, item = (
        np.array([list(dict.fromkeys(ids.tolist())).index(i) for i in ids.tolist()], np.int32) for ids in (user, item)
    )
    rating = rng.integers(1, 6, len(user)).astype(np.float32)
    rating[rng.random(len(user)) >= rated] = np.nan
    return Events(user, item, np.arange(len(user)) * 86400.0, rating, None, {}, users, items)


def sizes_of(events: Events) -> tuple[int, int, int]:
    n = len(events)
    return n - 2 * (n // 4), n // 4, n // 4


@dataclasses.dataclass(frozen=True)
class Products(ClosedForm):
    """A model that scores rows of two numbers."""

    def rate(self, params: Any, user: jax.Array, item: jax.Array) -> jax.Array:
        return (user * item).sum(-1)

    def rank(self, params: Any, user: jax.Array, item: jax.Array) -> jax.Array:
        return user[:, :1] + item[:, 0] + SCALE * (user @ item.T)


@dataclasses.dataclass(frozen=True)
class Scores(Products):
    """The same scores, but not as ratings, because some are NaN."""

    rates = False


class Moving(LookupStream):
    """Random NumPy rows that change with every event, stored as a list of whole tables.

    Attributes:
      tables: (user rows, item rows) before each event and after the last one, for the twins to read.
    """

    def __init__(self, events: Events, sizes: tuple[int, int, int], seed: int = 0, *, levels: int = 4, nans: float = 0):
        rng = np.random.default_rng(seed)

        def rows(count: int) -> np.ndarray:
            values = rng.integers(0, levels, (count, 2)).astype(np.float32)  # few levels: many ties
            values[rng.random(count) < nans] = np.nan
            return values

        tables = [(rows(events.num_users), rows(events.num_items))]
        for user, item in zip(events.user, events.item, strict=True):
            before_user, before_item = tables[-1]
            after_user, after_item = before_user.copy(), before_item.copy()
            after_user[user], after_item[item] = rows(1)[0], rows(1)[0]
            tables.append((after_user, after_item))
        self.tables = tables
        segments, begin = [], 0
        for size in sizes:
            span = range(begin, begin + size)
            trace = Trace(
                *(
                    jnp.asarray(np.array([tables[k + later][side][ids[k]] for k in span]).reshape(size, 2))
                    for later, side, ids in ((0, 0, events.user), (0, 1, events.item), (1, 1, events.item))
                )
            )
            begin += size
            after = States(*map(jnp.asarray, tables[begin]))
            segments.append(Lookup(events.user[span.start : begin], events.item[span.start : begin], trace, after))
        start = States(*map(jnp.asarray, tables[0]))
        super().__init__(Scores() if nans else Products(), tuple(segments), start)


# The twins use no blocks, masks or arrays of candidates.


def score(user: np.ndarray, item: np.ndarray) -> float:
    """Return the score that `Moving` gives; it is equal only where both the sum and the product are equal."""
    return float(user[0] + item[0] + SCALE * (user @ item))


def is_relevant(events: Events, k: int, threshold: float = 4.0) -> bool:
    if np.isnan(events.rating).all():
        return True
    return bool(events.rating[k] >= threshold)


def rank_of(item: int, scores: dict[int, float], others: Iterable[int] = ()) -> int:
    """Return the pessimistic rank of an item among {candidate: score}, 0 for a miss; `others` are also relevant."""
    if item not in scores or math.isnan(scores[item]):
        return 0
    ahead = 0
    for other, value in scores.items():
        if other == item or math.isnan(value):
            continue
        ahead += value > scores[item] if other in others else value >= scores[item]
    return ahead + 1


def twin_prequential(events: Events, sizes: tuple[int, int, int], tables: list, mask: str = "strict") -> list[int]:
    """Return the rank of the item of each relevant test event, in time order."""
    begin, ranks = sizes[0] + sizes[1], []
    for k in range(begin, len(events)):
        if not is_relevant(events, k):
            continue
        user = events.user[k]
        met, touched = set(), set()
        for past in range(k):
            met.add(int(events.item[past]))
            if events.user[past] == user and (mask == "strict" or past < sizes[0]):
                touched.add(int(events.item[past]))
        users, items = tables[k]
        scores = {i: score(users[user], items[i]) for i in met - touched}
        ranks.append(rank_of(int(events.item[k]), scores))
    return ranks


def twin_frozen(events: Events, sizes: tuple[int, int, int], tables: list, mask: str = "strict") -> list[list[int]]:
    """Return, for each user with a relevant test event, the ascending ranks of the relevant items (misses: 0, last)."""
    test, lists = range(sizes[0] + sizes[1], len(events)), []
    users, items = tables[sizes[0]]
    for user in sorted({int(events.user[k]) for k in test if is_relevant(events, k)}):
        relevant = {int(events.item[k]) for k in test if events.user[k] == user and is_relevant(events, k)}
        if mask == "mmrec" and user not in events.user[: sizes[0]]:
            continue
        met = set(range(events.num_items)) if mask == "mmrec" else {int(i) for i in events.item[: sizes[0]]}
        end = test.start if mask == "strict" else sizes[0]
        touched = {int(events.item[k]) for k in range(end) if events.user[k] == user}
        scores = {i: score(users[user], items[i]) for i in met - touched}
        found = sorted((i for i in relevant if rank_of(i, scores)), key=lambda i: (-scores[i], i))
        ranks = []
        for place, i in enumerate(found):  # relevant items with equal scores have consecutive ranks
            strictly = sum(v >= scores[i] and not math.isnan(v) for other, v in scores.items() if other not in relevant)
            ranks.append(strictly + place + 1)
        lists.append(ranks + [0] * (len(relevant) - len(found)))
    return lists


def twin_metrics(lists: list[list[int]], cutoffs: Iterable[int]) -> dict[str, float]:
    """Return the mean of every ranking metric by its definition."""
    values: dict[str, list[float]] = {}
    for ranks in lists:
        for k in cutoffs:
            hits = sorted(r for r in ranks if 0 < r <= k)
            recall, precision = len(hits) / len(ranks), len(hits) / k
            ideal = sum(1 / math.log2(r + 1) for r in range(1, min(len(ranks), k) + 1))
            one = {
                "recall": recall,
                "precision": precision,
                "f1": 2 * recall * precision / (recall + precision) if hits else 0.0,
                "ndcg": sum(1 / math.log2(r + 1) for r in hits) / ideal,
                "map": sum((i + 1) / r for i, r in enumerate(hits)) / min(len(ranks), k),
                "hr": float(bool(hits)),
                "mrr": 1 / hits[0] if hits else 0.0,
            }
            for name, value in one.items():
                values.setdefault(f"{name}@{k}", []).append(value)
    return {name: sum(column) / len(column) for name, column in values.items()}


def twin_ratings(events: Events, predicted: np.ndarray, begin: int) -> dict[str, float]:
    """Return rating errors, and ranking metrics of each user's rated test items, from clipped test predictions."""
    errors = []
    own: dict[int, list[tuple[float, bool]]] = {}
    for k in range(begin, len(events)):
        if math.isnan(events.rating[k]):
            continue
        value = min(max(float(predicted[k - begin]), 1.0), 5.0)
        errors.append(value - float(events.rating[k]))
        own.setdefault(int(events.user[k]), []).append((value, is_relevant(events, k)))
    lists = []
    for pairs in own.values():
        pairs.sort(key=lambda pair: (-pair[0], pair[1]))
        ranks = [place for place, (_, relevant) in enumerate(pairs, 1) if relevant]
        if ranks:
            lists.append(ranks)
    mse = sum(e * e for e in errors) / len(errors)
    metrics = {"mse": mse, "rmse": math.sqrt(mse), "mae": sum(map(abs, errors)) / len(errors)}
    metrics |= {f"rated_items/{name}": value for name, value in twin_metrics(lists, OPTIONS.cutoffs).items()}
    return metrics | {"rated_items/lists": len(lists)}


def on_test(
    stream: Any, events: Events, sizes: tuple[int, int, int], options: EvaluationOptions = OPTIONS, params: Any = None
):
    evaluator = Evaluator(stream, events, sizes, options)
    params = params or {}
    return evaluator.evaluate_test(params, Selection.of(params, "mse", 1.0, 3))[0]


def check(found: dict[str, float], expected: dict[str, float]) -> None:
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("mask", ["strict", "mmrec"])
@pytest.mark.parametrize(("seed", "nans"), [(0, 0.0), (1, 0.0), (2, 0.3)])
def test_rankings_equal_the_twins(seed: int, nans: float, mask: str) -> None:
    events = make_events(seed)
    sizes = sizes_of(events)
    stream = Moving(events, sizes, seed, nans=nans)
    options = dataclasses.replace(OPTIONS, mask=mask, block=8)
    found = on_test(stream, events, sizes, options)
    prequential = twin_prequential(events, sizes, stream.tables, mask)
    frozen = twin_frozen(events, sizes, stream.tables, mask)
    assert 0 in prequential
    assert any(0 in ranks for ranks in frozen)
    check(found["prequential"], twin_metrics([[rank] for rank in prequential], OPTIONS.cutoffs))
    check(found["frozen"], twin_metrics(frozen, OPTIONS.cutoffs))
    assert found["prequential"]["lists"] == len(prequential)
    assert found["frozen"]["lists"] == len(frozen)
    in_train = len(set(events.item[: sizes[0]].tolist()))
    assert found["frozen"]["candidates"] == (in_train if mask == "strict" else events.num_items)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), levels=st.integers(1, 3), repeats=st.booleans())
def test_random_streams_equal_the_twins(seed: int, levels: int, repeats: bool) -> None:
    events = make_events(seed, repeats=repeats)
    sizes = sizes_of(events)
    stream = Moving(events, sizes, seed, levels=levels)
    options = dataclasses.replace(OPTIONS, block=8)
    found = on_test(stream, events, sizes, options)
    prequential, frozen = (twin(events, sizes, stream.tables) for twin in (twin_prequential, twin_frozen))
    if prequential:
        check(found["prequential"], twin_metrics([[rank] for rank in prequential], OPTIONS.cutoffs))
        check(found["frozen"], twin_metrics(frozen, OPTIONS.cutoffs))


def test_ratings_equal_the_twin() -> None:
    events = make_events(3)
    sizes = sizes_of(events)
    begin = sizes[0] + sizes[1]
    stream = Moving(events, sizes, 3)
    found = on_test(stream, events, sizes, dataclasses.replace(OPTIONS, ranking=False))

    def predicted(moment) -> np.ndarray:
        pairs = [(stream.tables[moment(k)], events.user[k], events.item[k]) for k in range(begin, len(events))]
        return np.array([float(users[u] @ items[i]) for (users, items), u, i in pairs])

    raw = predicted(lambda k: k)
    assert raw.max() > 5.0  # so clipping matters
    assert raw.min() < 1.0
    check(found["prequential"], twin_ratings(events, raw, begin))
    check(found["frozen"], twin_ratings(events, predicted(lambda k: sizes[0]), begin))
    assert "ndcg@10" not in found["frozen"]


def drex(events: Events, sizes: tuple[int, int, int]) -> tuple[WindowStream, Any]:
    network = NetworkOptions(
        state_size=3,
        feature_size=3,
        head="dot",
        hidden_size=4,
        partner=True,
        rating_modality=True,
        time_modality=True,
        vector_modalities=(),
        offsets=True,
        residual=False,
        dropout=0.0,
        rating=True,
        ranking=True,
        vocabulary_size=0,
        text_width=4,
        text_dropout=0.0,
    )
    bias = running_bias.RunningBias(3.0, 2.0, 2.0)
    stream = WindowStream(DReXOptions(network=network, bias=bias, rating_mean=3.0, ranking_weight=1.0), events, sizes)
    leaves, tree = jax.tree.flatten(jax.jit(stream.init)(jax.random.key(0)))
    rng = np.random.default_rng(0)
    noise = [leaf + rng.normal(0, 0.5, leaf.shape).astype(np.float32) for leaf in leaves]
    return stream, jax.tree.unflatten(tree, noise)


MODELS = {
    "moving": lambda events, sizes: (Moving(events, sizes), {}),
    "popularity": lambda events, sizes: (Popularity().stream(events, sizes), {}),
    "running_bias": lambda events, sizes: (
        RunningBias().stream(running_bias.RunningBias(3.0, 2.0, 5.0), events, sizes),
        {},
    ),
    "drex": drex,
}


@pytest.mark.parametrize("name", MODELS)
def test_block_size_changes_nothing(name: str) -> None:
    events = make_events(4)
    sizes = sizes_of(events)
    stream, params = MODELS[name](events, sizes)
    results = [
        on_test(stream, events, sizes, dataclasses.replace(OPTIONS, block=block), params) for block in (1, 3, 256)
    ]
    assert "ndcg@3" in results[0]["prequential"]
    for result in results[1:]:
        for way, metrics in results[0].items():
            assert result[way] == pytest.approx(metrics, abs=1e-6)


def test_popularity_counts_up_to_the_moment() -> None:
    events = make_events(5)
    sizes = sizes_of(events)
    tables = []
    for k in range(len(events) + 1):
        counts = np.bincount(events.item[:k], minlength=events.num_items).astype(float)
        tables.append((np.ones((events.num_users, 1)), counts[:, None]))
    found = on_test(Popularity().stream(events, sizes), events, sizes, dataclasses.replace(OPTIONS, block=8))
    check(
        found["prequential"],
        twin_metrics([[rank] for rank in twin_prequential(events, sizes, tables)], OPTIONS.cutoffs),
    )
    check(found["frozen"], twin_metrics(twin_frozen(events, sizes, tables), OPTIONS.cutoffs))
    assert not {"mse", "rated_items/lists"} & set(found["frozen"])


def test_drex_is_ranked_from_its_states_at_each_moment() -> None:
    """The twin replays the model from the start up to every test event, and reads both tables there."""
    events = make_events(6, n=40)
    events.rating[-2:] = 5.0
    sizes = (30, 8, 2)  # few test events, because each needs a compilation
    stream, params = drex(events, sizes)
    scores_at = {}
    for k in range(sizes[0] + sizes[1], len(events)):
        prefix, _ = drex(events, (sizes[0], k - sizes[0], len(events) - k))
        carry = prefix.start(params)
        for segment in prefix.segments()[:2]:
            carry, _ = prefix.observe(params, carry, segment)
        scores_at[k] = np.asarray(prefix.model.rank(params, carry.user, carry.item))
    ranks = []
    for k, scores in scores_at.items():
        if is_relevant(events, k):
            user, met = events.user[k], set(events.item[:k].tolist())
            touched = set(events.item[:k][events.user[:k] == user].tolist())
            ranks.append(rank_of(int(events.item[k]), {i: float(scores[user, i]) for i in met - touched}))
    found = on_test(stream, events, sizes, dataclasses.replace(OPTIONS, block=3), params)
    check(found["prequential"], twin_metrics([[rank] for rank in ranks], OPTIONS.cutoffs))


def predicted(
    bias: running_bias.RunningBias, state: running_bias.BiasState, user: np.ndarray, item: np.ndarray
) -> np.ndarray:
    """Return the predictions of a running bias that does not change."""
    sides = (
        (state.user_sum, state.user_count, bias.user_shrinkage, user),
        (state.item_sum, state.item_count, bias.item_shrinkage, item),
    )
    return bias.mean + sum((sums / (count + shrinkage))[ids] for sums, count, shrinkage, ids in sides)


def test_running_bias_is_scored_before_it_learns() -> None:
    events = make_events(7)
    sizes = sizes_of(events)
    begin = sizes[0] + sizes[1]
    bias = running_bias.RunningBias(3.0, 2.0, 5.0)
    state, terms = bias.run(events.user, events.item, events.rating, running_bias.BiasState.zeros(8, 12))
    frozen = bias.run(
        *(column[: sizes[0]] for column in (events.user, events.item, events.rating)),
        running_bias.BiasState.zeros(8, 12),
    )[0]
    evaluator = Evaluator(RunningBias().stream(bias, events, sizes), events, sizes, OPTIONS)
    found, after, _ = evaluator.evaluate_test({}, SELECTION)
    check(found["prequential"], twin_ratings(events, bias.combine(terms)[begin:], begin))
    check(
        found["frozen"], twin_ratings(events, predicted(bias, frozen, events.user[begin:], events.item[begin:]), begin)
    )
    everyone = np.arange(8)
    np.testing.assert_allclose(
        np.asarray(after.user[:, 0] + after.item[0, 0]), predicted(bias, state, everyone, np.zeros(8, int)), atol=1e-5
    )


@pytest.mark.parametrize("selection", [None, "mse", ("mse", 1.0, 3), Selection("mse", math.nan, 1)])
def test_no_test_metric_without_a_final_selection(selection: Any) -> None:
    events = make_events(0)
    evaluator = Evaluator(Popularity().stream(events, sizes_of(events)), events, sizes_of(events), OPTIONS)
    with pytest.raises(TypeError, match="Selection"):
        evaluator.evaluate_test({}, selection)


def test_a_selection_is_of_its_parameters_alone() -> None:
    events = make_events(0)
    evaluator = Evaluator(Popularity().stream(events, sizes_of(events)), events, sizes_of(events), OPTIONS)
    for selection in (Selection.of({"weight": np.ones(2)}, "mse", 1.0, 3), Selection("mse", 1.0, 3)):
        with pytest.raises(ValueError, match="is of others"):
            evaluator.evaluate_test({}, selection)
    assert evaluator.validate({}, {"ndcg@3"})  # no test metric was computed yet


def test_who_has_seen_test_figures_selects_no_more() -> None:
    events = make_events(0)
    sizes = sizes_of(events)
    stream = Popularity().stream(events, sizes)
    evaluator = Evaluator(stream, events, sizes, OPTIONS)
    evaluator.validate({}, {"ndcg@3"})
    evaluator.evaluate_test({}, SELECTION)
    evaluator.evaluate_test({}, SELECTION)  # a second time, as for another seed
    with pytest.raises(RuntimeError, match="nothing more is selected"):
        evaluator.validate({}, {"ndcg@3"})
    again = Evaluator(stream, events, sizes, OPTIONS)
    *before, test = stream.segments()
    start = before[-1].after
    with pytest.raises(TypeError, match="Selection"):
        again.prequential_test({}, None, start, test.trace)  # pyright: ignore[reportArgumentType]
    again.prequential_test({}, SELECTION, start, test.trace)
    with pytest.raises(RuntimeError, match="nothing more is selected"):
        again.validate({}, {"ndcg@3"})


def test_data_without_ratings() -> None:
    events = make_events(8, rated=0.0)
    sizes = sizes_of(events)
    stream = Moving(events, sizes)
    options = dataclasses.replace(OPTIONS, rating_range=None, block=8)
    evaluator = Evaluator(stream, events, sizes, options)
    found = evaluator.evaluate_test({}, SELECTION)[0]
    prequential = twin_prequential(events, sizes, stream.tables)
    assert len(prequential) == sizes[2]  # every interaction is relevant
    check(found["prequential"], twin_metrics([[rank] for rank in prequential], OPTIONS.cutoffs))
    assert "mse" not in found["prequential"]
    assert "mse" not in evaluator.validation_metrics()
    assert "ndcg@10" in evaluator.validation_metrics()


def test_no_relevant_interaction_and_no_rating_in_validation() -> None:
    events = make_events(9)
    events.rating[:] = 1.0
    sizes = sizes_of(events)
    events.rating[sizes[0] : sizes[0] + sizes[1]] = np.nan
    evaluator = Evaluator(Moving(events, sizes), events, sizes, OPTIONS)
    assert evaluator.validation_metrics() == []
    assert evaluator.validate({}, {"mse", "ndcg@10"}) == {}
    found = evaluator.evaluate_test({}, SELECTION)[0]
    assert set(found["frozen"]) == set(found["prequential"]) == {"mse", "rmse", "mae"}


def test_user_who_touched_everything_has_no_candidates() -> None:
    user = np.array([0, 0, 0, 1, 1, 0, 1], np.int32)
    item = np.array([0, 1, 2, 0, 1, 1, 2], np.int32)
    events = Events(user, item, np.arange(7.0), np.full(7, 5.0, np.float32), None, {}, 2, 3)
    sizes = (4, 1, 2)
    stream = Moving(events, sizes)
    found = on_test(stream, events, sizes)
    assert found["prequential"]["lists"] == found["frozen"]["lists"] == 2
    assert twin_prequential(events, sizes, stream.tables) == [0, 1]  # fewer candidates than every cutoff except 1
    check(found["prequential"], twin_metrics([[0], [1]], OPTIONS.cutoffs))
    check(found["frozen"], twin_metrics([[0], [1]], OPTIONS.cutoffs))


def test_validation_is_prequential_from_the_end_of_train() -> None:
    events = make_events(10)
    sizes = sizes_of(events)
    stream = Moving(events, sizes)
    # The validation part is the test part of the shorter data.
    end = sizes[0] + sizes[1]
    shorter = dataclasses.replace(
        events, **{c: getattr(events, c)[:end] for c in ("user", "item", "timestamp", "rating")}
    )
    evaluator = Evaluator(stream, events, sizes, dataclasses.replace(OPTIONS, block=8))
    ranks = twin_prequential(shorter, (sizes[0], 0, sizes[1]), stream.tables)
    metrics = evaluator.validate({}, {"ndcg@10"})
    check(metrics, twin_metrics([[rank] for rank in ranks], OPTIONS.cutoffs))
    assert set(evaluator.validation_metrics()) == {
        name for name in metrics if not name.rpartition("/")[2].startswith("lists")
    }
    assert "ndcg@10" not in evaluator.validate({}, {"mse"})  # ranking the catalogue is expensive: only on request
    assert "rated_items/ndcg@10" in evaluator.validate({}, {"rated_items/ndcg@10"})


def test_tied_scores_next_to_others_by_one_rounding_step() -> None:
    """An irrelevant item one float32 step below a relevant one ranks behind it; one with an equal score ranks ahead."""
    user = np.array([0, 0, 0, 1, 1], np.int32)
    item = np.array([0, 1, 2, 3, 1], np.int32)
    events = Events(user, item, np.arange(5.0), np.full(5, 5.0, np.float32), None, {}, 2, 4)

    def fixed(scores: list[float]) -> LookupStream:
        segments = tuple(Lookup(user[a:b], item[a:b]) for a, b in ((0, 3), (3, 4), (4, 5)))
        return ClosedForm().stream_of(np.zeros((2, 1)), np.array(scores, np.float32)[:, None], segments)

    below = np.nextafter(np.float32(1), np.float32(0))
    for scores, rank in (([below, 1, below, 9], 1), ([1, 1, below, 9], 2), ([1, 1, 1, 9], 3), ([0, 0, -1, 9], 2)):
        found = on_test(fixed(list(map(float, scores))), events, (3, 1, 1))
        assert found["frozen"]["mrr@10"] == found["prequential"]["mrr@10"] == pytest.approx(1 / rank)


def test_definitions_say_what_was_done() -> None:
    strict, mmrec = definitions(OPTIONS), definitions(dataclasses.replace(OPTIONS, mask="mmrec", rating_range=None))
    assert "4" in strict["relevant"]
    assert "1..5" in strict["predictions"]
    assert strict["mask"] != mmrec["mask"]
    assert mmrec["predictions"] == "as they are"


def test_means_over_seeds() -> None:
    seeds = [
        {"frozen": {"mse": 1.0}, "prequential": {"mse": 2.0}},
        {"frozen": {"mse": 3.0}, "prequential": {"mse": 6.0}},
    ]
    assert mean_over_seeds(seeds) == {"frozen": {"mse": 2.0}, "prequential": {"mse": 4.0}}
    assert lower_is_better("rmse")
    assert not lower_is_better("rated_items/ndcg@10")
