"""How commands end: what follows from an error that is told is not told as well."""

from __future__ import annotations

import pytest

from drex_jax.exit_status import uncaught


def test_what_nobody_catches_is_printed_unless_it_follows_from_another_error(
    capsys: pytest.CaptureFixture[str],
) -> None:
    uncaught(RuntimeError, RuntimeError("Event loop is closed"), None)
    assert capsys.readouterr().err == ""
    uncaught(RuntimeError, RuntimeError("another"), None)
    assert "RuntimeError: another" in capsys.readouterr().err
