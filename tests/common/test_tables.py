"""Tables for people."""

from drex_jax.common.tables import format_table


def test_columns_are_aligned_and_no_line_ends_in_spaces() -> None:
    rows = [["name", "n", "note"], ["a", "10", ""], ["longer", "5", "x"]]
    assert format_table(rows) == ["name    n   note", "a       10", "longer  5   x"]
    assert format_table(rows, right=[1]) == ["name     n  note", "a       10", "longer   5  x"]
    assert format_table(rows, right=range(3))[1] == "     a  10"
