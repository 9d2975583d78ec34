"""The exceptions with a meaning for the command line: the user can fix this, and stopped as asked."""


class UserError(ValueError):
    """A user's mistake: wrong file, field or value.

    The message is one line that says what was wrong and what would be right. The command line prints it alone and
    exits with status 2; from Python it is an ordinary `ValueError`.
    """


class DivergedError(UserError):
    """Training led to a loss or a validation metric that is not finite: other settings may do better."""


class Stopped(Exception):  # noqa: N818 (not an error: the run stopped because it was asked to)
    """A run ended early on SIGTERM or SIGINT with everything saved; the same command continues it.

    The message is one line for the user. The command line prints it and exits with status 75.
    """
