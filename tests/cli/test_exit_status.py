"""How commands end: what follows from an error that is told is not told as well."""

from __future__ import annotations

import types
from typing import Any

from drex_jax.cli.exit_status import unraisable


def test_what_nobody_can_catch_is_told_unless_it_follows_from_another_error() -> None:
    def lost(text: str) -> Any:
        return types.SimpleNamespace(exc_type=RuntimeError, exc_value=RuntimeError(text))

    told = []
    unraisable(lost("Event loop is closed"), told.append)
    assert told == []
    unraisable(lost("another"), told.append)
    assert [str(each.exc_value) for each in told] == ["another"]
