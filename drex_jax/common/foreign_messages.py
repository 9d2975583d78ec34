"""Errors of other libraries that differ by their text alone. Each text that we read is here.

`tests/common/test_foreign_messages.py` makes every library say its text, so a release that changes one is noticed.
"""

from __future__ import annotations

import csv
import re

_SHORT_WRITE = re.compile(r"\d+ requested and \d+ written")
_TENSORSTORE = re.compile(r"os_error_code='(\d+)'")
_VOCABULARY = re.compile(r"smaller than required_chars\. \d+ vs (\d+)")


def is_short_write(error: OSError) -> bool:
    """Return True for NumPy's error that a file took only a part of an array: the disk is full, without `errno`."""
    return _SHORT_WRITE.search(str(error)) is not None


def is_without_temporary_folder(error: OSError) -> bool:
    """Return True for the error of `tempfile` that no temporary folder can be written to."""
    return "No usable temporary directory" in str(error)


def tensorstore_errno(error: Exception) -> int | None:
    """Return the `errno` in an error of TensorStore (which writes checkpoints), of any type; None if it has none."""
    found = _TENSORSTORE.search(str(error))
    return int(found[1]) if found else None


def is_closed_loop(error: BaseException | None) -> bool:
    """Return True for asyncio's error of a closed event loop. Orbax's other writers raise it after one has failed."""
    return isinstance(error, RuntimeError) and str(error) == "Event loop is closed"


def smallest_vocabulary(error: RuntimeError) -> int | None:
    """Return the smallest vocabulary that holds all characters, from SentencePiece's error; None for another error."""
    found = _VOCABULARY.search(str(error))
    return int(found[1]) if found else None


def is_unfinished_quote(error: csv.Error) -> bool:
    """Return True for the error of `csv` that a file ends inside quotes."""
    return "unexpected end" in str(error)


def is_lone_surrogate(error: ValueError) -> bool:
    """Return True for orjson's error that a string has half of a surrogate pair."""
    return "surrogate" in str(error)
