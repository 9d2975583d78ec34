"""The one exception that means "the user can fix this"."""


class UserError(ValueError):
    """A user's mistake: wrong file, field or value.

    The message is one line that says what was wrong and what would be right. The command line prints it alone and
    exits with status 2; from Python it is an ordinary `ValueError`.
    """
