"""A search tries the promised settings, and refuses invalid spaces."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest

from drex_jax.common.errors import UserError
from drex_jax.training import search_space
from drex_jax.training.settings import base, changed, settings_of


def configured(*lines: str, **tune: Any) -> Any:
    settings = base()
    settings.model.name = "crane"
    settings.train.selection = "ndcg@10"
    settings.tune.update(space=lines, **tune)
    return settings_of(settings)


def test_values_have_the_type_of_their_field() -> None:
    settings = configured(
        "ranker.layers=1, 2,3", "ranker.l2=0,1e-3", "crane.user_profiles=true,False", "model.head=dot,mlp"
    )
    found = {dimension.field: dimension.values for dimension in search_space.parse(settings)}
    expected = {
        "ranker.layers": (1, 2, 3),
        "ranker.l2": (0.0, 1e-3),
        "crane.user_profiles": (True, False),
        "model.head": ("dot", "mlp"),
    }
    assert found == expected
    assert {name: [type(value) for value in values] for name, values in found.items()} == {
        name: [type(value) for value in values] for name, values in expected.items()
    }
    (ranged,) = search_space.parse(configured("ranker.l2=1e-6..1e-2"))
    assert ranged == search_space.Dimension("ranker.l2", (), 1e-6, 1e-2)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ((), "tune.space is empty"),
        (("ranker.layer=1,2",), "unknown configuration field ranker.layer; did you mean ranker.layers"),
        (("ranker=1",), "unknown configuration field ranker"),
        (("data.path=a,b",), "data.path cannot be tuned: all trials share the data"),
        (("text.width=8,16",), "text.width cannot be tuned"),
        (("split.kind=random,given",), "split.kind cannot be tuned"),
        (("seed=0,1",), "seed cannot be tuned"),
        (("replicas=1,2",), "replicas cannot be tuned"),
        (("tune.trials=1,2",), "tune.trials cannot be tuned"),
        (("devices.count=1,2",), "devices.count cannot be tuned"),
        (("evaluate.block=1,2",), "evaluate.block cannot be tuned"),
        (("model.name=drex,crane",), "model.name cannot be tuned"),
        (("train.selection=mse,mae",), "train.selection cannot be tuned"),
        (("ranker.layers=1,two",), "ranker.layers cannot be two; it must be a whole number, 0 or more"),
        (("ranker.layers=1,2.5",), "ranker.layers cannot be 2.5"),
        (("ranker.edge_dropout=0.5,1",), "ranker.edge_dropout cannot be 1; it must be a finite number"),
        (("train.learning_rate=nan",), "train.learning_rate cannot be nan"),
        (("crane.user_profiles=yes",), "crane.user_profiles cannot be yes; it must be true or false"),
        (("model.head=dot,sum",), "model.head cannot be sum; it must be one of dot mlp"),
        (("ranker.layers=1..3",), "ranker.layers=1..3 is a range, which is for real numbers"),
        (("ranker.l2=0..1",), "must be LOW..HIGH with 0 < LOW < HIGH"),
        (("ranker.l2=1e-2..1e-3",), "must be LOW..HIGH with 0 < LOW < HIGH"),
        (("ranker.l2=1e-3..much",), "ranker.l2 cannot be much"),
        (("ranker.edge_dropout=0.5..2",), "ranker.edge_dropout cannot be 2"),
        (("ranker.l2=0.1,1e-1",), "has a value twice"),
        (("ranker.l2=0.1", "ranker.l2=0.2"), "tune.space has ranker.l2 twice"),
        (("model.rating_weight=0", "model.ranking_weight=0,1"), "tune.space allows model.rating_weight=0.0, "),
    ],
)
def test_a_wrong_space_is_told_in_one_line(lines: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError) as caught:
        search_space.candidates(configured(*lines))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_grid_goes_through_all_combinations_after_the_settings_as_they_are() -> None:
    lines = "ranker.layers=1,2,3", "crane.leave_one_out=false,true"
    found, notice = search_space.candidates(configured(*lines, search="grid"))
    assert (base().ranker.layers, base().crane.leave_one_out) == (2, True)
    slow = [(2, True)] + [pair for pair in itertools.product((1, 2, 3), (False, True)) if pair != (2, True)]
    assert [(one["ranker.layers"], one["crane.leave_one_out"]) for one in found] == slow
    assert notice == "the space has no more than 6 settings: so many of 20 trials"
    few, notice = search_space.candidates(configured(*lines, search="grid", trials=4))
    assert few == found[:4]
    assert notice == "tune.trials=4 leaves 2 of 6 settings out"
    outside, notice = search_space.candidates(configured("ranker.layers=4,5", search="grid", trials=3))
    assert [one["ranker.layers"] for one in outside] == [2, 4, 5]
    assert notice is None
    with pytest.raises(UserError, match=r"tune.search=grid cannot go through ranker.l2=1e-06..0.01"):
        search_space.candidates(configured("ranker.l2=1e-6..1e-2", search="grid"))


def test_random_takes_each_setting_of_a_small_space_once() -> None:
    lines = "ranker.layers=1,2,3", "crane.leave_one_out=false,true"
    found, notice = search_space.candidates(configured(*lines))
    pairs = [(one["ranker.layers"], one["crane.leave_one_out"]) for one in found]
    assert pairs[0] == (2, True)
    assert sorted(pairs) == sorted(itertools.product((1, 2, 3), (False, True)))
    assert notice == "the space has no more than 6 settings: so many of 20 trials"
    exact, notice = search_space.candidates(configured(*lines, trials=6))
    assert exact == found
    assert notice is None


def test_random_is_the_seed_and_uniform_in_the_logarithm() -> None:
    settings = configured("train.learning_rate=1e-4..1e-1", trials=400)
    found = search_space.candidates(settings).settings
    assert found == search_space.candidates(settings).settings
    assert search_space.candidates(configured("train.learning_rate=1e-4..1e-1", trials=5)).settings == found[:5]
    rates = [one["train.learning_rate"] for one in found]
    assert rates[0] == base().train.learning_rate
    drawn = np.array(rates[1:])
    assert len(set(rates)) == 400
    assert (drawn >= 1e-4).all()
    assert (drawn <= 1e-1).all()
    assert all(float(f"{rate:.4g}") == rate for rate in drawn)
    for decade in range(-4, -1):  # each has a third of the rates
        share = np.mean([math.floor(math.log10(rate)) == decade for rate in drawn])
        assert share == pytest.approx(1 / 3, abs=0.1)
    assert search_space.candidates(changed(settings, {"seed": 1})).settings[1:] != found[1:]


def test_a_range_of_few_numbers_ends() -> None:
    found, notice = search_space.candidates(configured("ranker.l2=1.001..1.003", trials=20))
    assert sorted(one["ranker.l2"] for one in found) == [1e-4, 1.001, 1.002, 1.003]
    assert notice is not None
