"""Aligned tables of text for people."""

from __future__ import annotations

from collections.abc import Container, Sequence


def format_table(rows: Sequence[Sequence[str]], right: Container[int] = ()) -> list[str]:
    """Align cells in columns, two spaces apart.

    Args:
      rows: cells of each row, the headings first; all rows have the same length.
      right: numbers of the columns that are aligned to the right; the others are aligned to the left.

    Returns:
      One line for each row, without spaces at its end.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
