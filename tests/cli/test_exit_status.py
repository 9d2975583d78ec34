"""How commands end: an error that follows from a reported one is not reported as well."""

from __future__ import annotations

import types
from typing import Any

import pytest

from drex_jax.cli.exit_status import exit_code, unraisable


def test_an_error_that_cannot_be_caught_is_reported_unless_it_follows_from_another() -> None:
    def lost(text: str) -> Any:
        return types.SimpleNamespace(exc_type=RuntimeError, exc_value=RuntimeError(text))

    told = []
    unraisable(lost("Event loop is closed"), told.append)
    assert told == []
    unraisable(lost("another"), told.append)
    assert [str(each.exc_value) for each in told] == ["another"]


@pytest.mark.parametrize(("returned", "status"), [(None, 0), (0, 0), (1, 1)])
def test_a_command_may_choose_its_status(returned: int | None, status: int) -> None:
    assert exit_code(lambda: returned) == status
