"""Progress bars: only on terminals, and only for long work."""

import io

import pytest

from drex_jax.common import progress


class Terminal(io.StringIO):
    """A stream that claims to be a terminal."""

    def isatty(self) -> bool:
        """Return True."""
        return True


@pytest.mark.parametrize(
    ("stream", "delay", "speaks"), [(Terminal, 0.0, True), (io.StringIO, 0.0, False), (Terminal, 60.0, False)]
)
def test_bars(monkeypatch: pytest.MonkeyPatch, stream: type[io.StringIO], delay: float, speaks: bool) -> None:
    shown = stream()
    monkeypatch.setattr("sys.stderr", shown)
    monkeypatch.setattr(progress, "DELAY_SECONDS", delay)
    assert list(progress.iterated([3, 1, 2], "counting", "things")) == [3, 1, 2]
    assert ("counting" in shown.getvalue()) == speaks
