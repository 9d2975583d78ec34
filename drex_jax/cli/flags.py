"""Parts of the subcommands' command lines: a parser whose errors are one line, types of flags, the flag --json."""

from __future__ import annotations

import argparse
import json
import pathlib
from collections.abc import Callable
from typing import Any, NoReturn

from drex_jax.common.errors import UserError
from drex_jax.common.files import write_text


class Parser(argparse.ArgumentParser):
    """A parser that raises `UserError` where the standard one prints its usage and ends the process."""

    def __init__(self, prog: str, description: str | None):
        """The parser of the command `prog`; its help begins with `description`, printed as it is."""
        super().__init__(
            prog=prog,
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        """Raise `UserError` with the message."""
        raise UserError(f"{message}; --help lists the flags")


def at_least(least: int) -> Callable[[str], int]:
    """Return the type of a flag that takes whole numbers from `least` on."""

    def whole_number(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least:
            raise argparse.ArgumentTypeError(f"it must be a whole number, {least} or more, not {text!r}")
        return value

    return whole_number


def add_json_flag(parser: argparse.ArgumentParser) -> None:
    """Add `--json=FILE`, which `write_json_file` obeys."""
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="write the figures to FILE as JSON as well")


def write_json_file(path: pathlib.Path | None, figures: dict[str, Any]) -> None:
    """Write what `--json=FILE` asks for; without the flag, `path` is None and nothing is written.

    Raises:
      UserError: the file cannot be written.
    """
    if path is None:
        return
    try:
        write_text(path, json.dumps(figures, indent=2) + "\n")
    except OSError as error:
        raise UserError(f"--json={path} cannot be written ({error.strerror})") from None
