"""SIGTERM and SIGINT end a command in one line that says what is saved, whatever the signal interrupts."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Iterator

from drex_jax.common.errors import Stopped

SAVED = "everything so far is saved, and the same command continues"
AGAIN_SECONDS = 2.0  # longer than what is begun takes to be cleaned up


@contextlib.contextmanager
def stop_on_signals(then: str = SAVED) -> Iterator[None]:
    """Inside, SIGTERM and SIGINT raise `Stopped`: where the training loop has no handler of its own.

    `then` ends the message: what has become of the work, and what to do.

    An exception that a signal raises is lost where Python can only report it (a finaliser, a callback from C), so it
    is raised again every two seconds until it gets through; and it comes out of an interrupted import as an
    ImportError, so whatever error follows a signal counts as the stop.

    Raises:
      Stopped: a signal came.
    """
    asked: list[str] = []

    def stop(number: int, _: object) -> None:
        if number != signal.SIGALRM:
            asked.append(signal.Signals(number).name)
            signal.setitimer(signal.ITIMER_REAL, AGAIN_SECONDS, AGAIN_SECONDS)
        raise stopped()

    def stopped() -> Stopped:
        return Stopped(f"stopped by {asked[0]}; {then}")

    report = sys.unraisablehook
    sys.unraisablehook = lambda lost: None if lost.exc_type is Stopped else report(lost)
    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM)}
    try:
        yield
    except Exception as error:
        signal.setitimer(signal.ITIMER_REAL, 0)
        if asked and not isinstance(error, Stopped):
            raise stopped() from error
        raise
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        sys.unraisablehook = report
        for number, handler in before.items():
            signal.signal(number, handler)
