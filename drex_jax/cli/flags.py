"""What the tools' command lines share: mistakes told in one line, and types of flags."""

from __future__ import annotations

import argparse
from typing import NoReturn

from drex_jax.common.errors import UserError


class Parser(argparse.ArgumentParser):
    """Raises `UserError` where the standard one prints its usage and ends the process."""

    def error(self, message: str) -> NoReturn:
        """Raises `UserError` with the message."""
        raise UserError(f"{message}; --help lists the flags")


def at_least_one(text: str) -> int:
    """A whole number, 1 or more.

    Raises:
      ArgumentTypeError: it is none.
    """
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"it must be a whole number, at least 1, not {text!r}")
    return value
