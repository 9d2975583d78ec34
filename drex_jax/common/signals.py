"""SIGTERM and SIGINT stop a command cleanly, in one of two ways: an exception at once, or a request that is read later.

A command is inside `raise_on_signals`. The training loop, which saves its state before it stops, is inside
`record_signals` meanwhile.
"""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import sys
from collections.abc import Callable, Generator
from types import FrameType

from drex_jax.common.errors import Stopped

SAVED = "everything so far is saved, and the same command continues"
AGAIN_SECONDS = 2.0  # longer than the clean-up of what was interrupted
STOPS = (signal.SIGTERM, signal.SIGINT)


@dataclasses.dataclass
class StopRequest:
    """A request to stop.

    Attributes:
      signal: name of the newest signal; empty while none has come.
    """

    signal: str = ""


@contextlib.contextmanager
def record_signals() -> Generator[StopRequest]:
    """Record SIGTERM and SIGINT in the request that is yielded, and do nothing else.

    Outside the main thread, where Python allows no handlers, nothing is recorded.
    """
    request = StopRequest()

    def record(number: int, _: FrameType | None) -> None:
        request.signal = signal.Signals(number).name

    with _handlers(record, STOPS):
        yield request


@contextlib.contextmanager
def raise_on_signals(then: str = SAVED) -> Generator[None]:
    """Raise `Stopped` when SIGTERM or SIGINT interrupts the block.

    Python drops an exception that a signal handler raises in a finaliser or in a callback from C, so the exception is
    raised again every two seconds until it gets through. In an interrupted import it turns into an ImportError, so any
    error that follows a signal counts as the stop.

    Args:
      then: the end of the message, which says whether the work is saved and how to continue.

    Raises:
      Stopped: a signal came.
    """
    request = StopRequest()

    def stop(number: int, _: FrameType | None) -> None:
        if number != signal.SIGALRM:
            request.signal = request.signal or signal.Signals(number).name
            signal.setitimer(signal.ITIMER_REAL, AGAIN_SECONDS, AGAIN_SECONDS)
        raise stopped()

    def stopped() -> Stopped:
        return Stopped(f"stopped by {request.signal}; {then}")

    report = sys.unraisablehook
    sys.unraisablehook = lambda lost: None if lost.exc_type is Stopped else report(lost)
    with _handlers(stop, (*STOPS, signal.SIGALRM)):
        try:
            yield
        except Exception as error:
            signal.setitimer(signal.ITIMER_REAL, 0)
            if request.signal and not isinstance(error, Stopped):
                raise stopped() from error
            raise
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            sys.unraisablehook = report


@contextlib.contextmanager
def _handlers(handler: Callable[[int, FrameType | None], None], numbers: tuple[signal.Signals, ...]) -> Generator[None]:
    """Install a handler inside the block, if this is the main thread."""
    try:
        before = {number: signal.signal(number, handler) for number in numbers}
    except ValueError:
        before = {}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)
