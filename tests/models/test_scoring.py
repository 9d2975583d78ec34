"""The record of a run's model, from a file that need not be trusted."""

from __future__ import annotations

from typing import Any

import pytest

from drex_jax.common.errors import UserError
from drex_jax.models.drex.core import DReXOptions
from drex_jax.models.drex.network import NetworkOptions
from drex_jax.models.running_bias import RunningBias
from drex_jax.models.scoring import scorer

OPTIONS = DReXOptions(NetworkOptions(), RunningBias(3.0, 1.0, 1.0))
RECORD = OPTIONS.constants()


def test_what_was_written_is_read() -> None:
    found: Any = scorer("drex", {"drex": RECORD})
    assert found.options.constants() == RECORD


@pytest.mark.parametrize(
    "changes",
    [
        {"network": RECORD["network"] | {"state_size": "16"}},
        {"network": RECORD["network"] | {"state_size": 10**12}},
        {"network": RECORD["network"] | {"state_size": -1}},
        {"network": RECORD["network"] | {"partner": 1}},
        {"network": RECORD["network"] | {"vector_modalities": 3}},
        {"network": RECORD["network"] | {"rating": False}},
        {"network": RECORD["network"] | {"other": 1}},
        {"network": [1, 2]},
        {"bias": {"mean": [3]}},
        {"rating_weight": "1"},
        {"rating_mean": None},
    ],
)
def test_a_record_of_no_model(changes: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="the record of the run's model is damaged") as error:
        scorer("drex", {"drex": RECORD | changes})
    assert "\n" not in str(error.value)
