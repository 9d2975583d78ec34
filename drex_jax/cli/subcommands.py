"""The subcommands of `drex`, by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from drex_jax.cli import build_mmrec, compare, faithfulness, keywords, leak_report, tune
from drex_jax.common.signals import SAVED, raise_on_signals

NOTHING_TO_SAVE = "there was nothing to save; run the same command again"


class Subcommand(NamedTuple):
    """A subcommand.

    Attributes:
      summary: what it does, for `drex --help`.
      run: runs the command with its arguments and returns its exit status; None stands for 0.
      stopped: what a signal leaves, and what to do: the end of the message.
    """

    summary: str
    run: Callable[[Sequence[str]], int | None]
    stopped: str = NOTHING_TO_SAVE


SUBCOMMANDS = {
    "compare": Subcommand("test whether one run is better than others", compare.run),
    "tune": Subcommand("search for better settings on validation", tune.run, SAVED),
    "leaks": Subcommand("look for leaks of test data in a run", leak_report.run),
    "keywords": Subcommand("print keyword profiles of users and items", keywords.run),
    "faithfulness": Subcommand("test whether explanations name what moves the model", faithfulness.run),
    "build_mmrec": Subcommand("build a data set in MMRec's layout from raw Amazon files", build_mmrec.run),
}


def run_subcommand(name: str, arguments: Sequence[str]) -> int | None:
    """Run one of `SUBCOMMANDS` and return its exit status; None stands for 0.

    Raises:
      UserError: a mistake of the user.
      Stopped: SIGTERM or SIGINT came.
    """
    subcommand = SUBCOMMANDS[name]
    with raise_on_signals(subcommand.stopped):
        return subcommand.run(arguments)


def summaries() -> str:
    """Return a line for each subcommand, for `--help`."""
    lines = [f"  drex {name:<14}{subcommand.summary}" for name, subcommand in SUBCOMMANDS.items()]
    return "\n".join(["Subcommands (drex NAME --help lists the flags of each):", *lines])
