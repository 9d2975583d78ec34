"""Exceptions that the command line handles: a mistake of the user, and a run that stopped as requested."""


class UserError(ValueError):
    """A user's mistake: wrong file, field or value.

    The message is one line that says what was wrong and what would be right. The command line prints only this line and
    exits with status 2; in Python it is an ordinary `ValueError`.
    """


class DivergedError(UserError):
    """Training produced a loss or a validation metric that is not finite; other settings may avoid it."""


class Stopped(Exception):  # noqa: N818 (not an error: the run stopped as requested)
    """A run ended early on SIGTERM or SIGINT with everything saved; the same command continues it.

    The message is one line for the user. The command line prints it and exits with status 75.
    """
