"""Rates are medians of the timed calls; the tests use a fake clock."""

from collections.abc import Callable

import pytest

from tools.benchmarks import timing

Calls = Callable[[list[float]], Callable[[], None]]


@pytest.fixture
def taking(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """Return a function: `taking(durations)` is a call that takes the first duration, then the second, and so on."""
    now = 0.0
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now)

    def make(durations: list[float]) -> Callable[[], None]:
        def call() -> None:
            nonlocal now
            now += durations.pop(0)

        return call

    return make


def test_the_warm_up_does_not_count(taking: Calls) -> None:
    rate = timing.measure(taking([100.0, 2.0, 4.0, 1.0]), 8, repeats=3)
    assert (rate.median, rate.lowest, rate.highest) == (4.0, 2.0, 8.0)
    assert rate.spread == 1.5


def test_slow_calls_are_repeated_three_times_only(taking: Calls) -> None:
    durations = [50.0] * 9
    timing.measure(taking(durations), 1, repeats=8, seconds=20)
    assert len(durations) == 5


def test_quick_calls_are_repeated_as_asked(taking: Calls) -> None:
    durations = [1.0] * 9
    timing.measure(taking(durations), 1, repeats=8, seconds=20)
    assert not durations
