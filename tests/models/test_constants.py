"""A run's model constants are read from a file that need not be trusted."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from drex_jax.common.errors import UserError
from drex_jax.models.baselines.lightgcn import LightGCN
from drex_jax.models.drex.model import DReX, DReXOptions
from drex_jax.models.drex.network import NetworkOptions
from drex_jax.models.graph.user_item import BehaviourGraph
from drex_jax.models.pairwise import TableSizes
from drex_jax.models.running_bias import RunningBias
from drex_jax.models.settings import RankerSettings
from drex_jax.text.bert.network import Architecture

NETWORK = NetworkOptions(vector_modalities=("picture",), bert=Architecture(9, 8, 1, 2, 16, 12))
OPTIONS = DReXOptions(NETWORK, RunningBias(3.0, 1.0, 1.0), negatives=7)
RECORD = DReX(OPTIONS).constants()["options"]


def test_what_was_written_is_read() -> None:
    for model in (
        DReX(dataclasses.replace(OPTIONS, negatives=32)),
        LightGCN(RankerSettings(l2=1.0), TableSizes(3, 4, 2), BehaviourGraph(TableSizes(3, 4, 2), 5, 0, True)),
    ):
        found = type(model).from_constants(json.loads(json.dumps(model.constants())))
        assert found == model
        assert hash(found) == hash(model)


def test_how_it_is_trained_is_not_recorded() -> None:
    assert "negatives" not in RECORD
    assert DReX.from_constants({"options": RECORD}).options.negatives == 32


@pytest.mark.parametrize(
    "changes",
    [
        {"network": RECORD["network"] | {"state_size": "16"}},
        {"network": RECORD["network"] | {"state_size": 10**12}},
        {"network": RECORD["network"] | {"state_size": -1}},
        {"network": RECORD["network"] | {"partner": 1}},
        {"network": RECORD["network"] | {"vector_modalities": 3}},
        {"network": RECORD["network"] | {"vector_modalities": [3]}},
        {"network": RECORD["network"] | {"rating": False}},
        {"network": RECORD["network"] | {"other": 1}},
        {"network": RECORD["network"] | {"bert": {"width": 8}}},
        {"network": [1, 2]},
        {"bias": {"mean": [3]}},
        {"rating_weight": "1"},
        {"rating_mean": None},
    ],
)
def test_constants_of_no_model(changes: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="the record of the run's model is damaged") as error:
        DReX.from_constants({"options": RECORD | changes})
    assert "\n" not in str(error.value)
