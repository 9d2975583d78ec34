"""Signals are recorded, or raised; before and after, the handlers are the same."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from drex_jax.common.errors import Stopped
from drex_jax.common.signals import raise_on_signals, record_signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_recorded_inside_a_block_that_raises(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with raise_on_signals("go on"):
        with record_signals() as request:
            assert request.signal == ""
            os.kill(os.getpid(), number)
            assert request.signal == number.name
        with pytest.raises(Stopped, match=f"^stopped by {number.name}; go on$"):
            os.kill(os.getpid(), number)
        signal.setitimer(signal.ITIMER_REAL, 0)  # got through, so it need not come again
    assert signal.getsignal(number) is before


def test_outside_the_main_thread_nothing_is_recorded() -> None:
    found = []

    def work() -> None:
        with record_signals() as request:
            found.append(request.signal)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [""]
