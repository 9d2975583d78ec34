"""Values of somebody else's in messages."""

import sys
from typing import Any

from drex_jax.common.spelling import MOST_CHARACTERS, printable, shown


def test_values_are_spelt_on_one_line_and_cut() -> None:
    assert shown("a\nő") == "'a\\nő'"
    assert shown("x" * 79)[-1] == "…"
    assert len(shown("x" * 1000)) == MOST_CHARACTERS
    assert shown("\udcff").encode() == b"'\\udcff'"  # a half of a pair, which no encoding has


def test_values_that_python_cannot_spell() -> None:
    deep: Any = []
    for _ in range(10 * sys.getrecursionlimit()):
        deep = [deep]
    assert "nested too deep" in shown(deep)
    assert "thousands of digits" in shown(10**5000)


def test_what_does_not_print_is_escaped() -> None:
    assert printable("a\x1b[1mő\u2028") == "a\\x1b[1mő\\u2028"
