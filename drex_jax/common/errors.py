"""Exceptions that the command line handles: a mistake of the user, and a run that stopped as requested."""

import pathlib


class UserError(ValueError):
    """A user's mistake: wrong file, field or value.

    The message is one line that says what was wrong and what would be right. The command line prints only this line and
    exits with status 2; in Python it is an ordinary `ValueError`.
    """


class BadRowsError(UserError):
    """A file has too few good rows.

    Attributes:
      reason: the message, without the place of the list of bad rows.
    """

    def __init__(self, reason: str, listed: pathlib.Path | None):
        """`listed` is the file that lists the bad rows, if there is one."""
        super().__init__(reason if listed is None else f"{reason}; each is listed in {listed}")
        self.reason = reason


class DivergedError(UserError):
    """Training produced a loss or a validation metric that is not finite; other settings may avoid it."""


class Stopped(Exception):  # noqa: N818 (not an error: the run stopped as requested)
    """A run ended early on SIGTERM or SIGINT with everything saved; the same command continues it.

    The message is one line for the user. The command line prints it and exits with status 75.
    """
