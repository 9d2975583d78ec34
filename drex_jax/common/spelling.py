"""Untrusted values, escaped for a message or a terminal."""

from __future__ import annotations

MOST_CHARACTERS = 80


def shown(value: object) -> str:
    """Return a value as text for a message: on one line, cut to 80 characters, non-printable characters escaped."""
    try:
        spelt = repr(value)
    except RecursionError:
        return "<nested too deep to be shown>"
    except ValueError:
        return "<a number of thousands of digits>"
    return spelt if len(spelt) <= MOST_CHARACTERS else f"{spelt[: MOST_CHARACTERS - 1]}…"


def printable(text: str) -> str:
    """Escape the non-printable characters of a text, so that it cannot control a terminal."""
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)
