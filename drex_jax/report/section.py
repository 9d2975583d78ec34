"""The parts of a report: sections of sentences, figures and tables."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of text.

    Attributes:
      caption: what it shows.
      header: a name for each column.
      rows: the cells as text; the first cell of a row is its name.
    """

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclasses.dataclass(frozen=True)
class Figure:
    """A drawing, with a text alternative for readers who cannot see it.

    Attributes:
      name: a plain word that is unique on the page.
      title: what it shows.
      description: what the reader should see in it, in one sentence.
      svg: the drawing from `drex_jax.report.figures`; it is trusted and not escaped.
      table: its numbers.
    """

    name: str
    title: str
    description: str
    svg: str
    table: Table


@dataclasses.dataclass(frozen=True)
class Section:
    """A section of the page.

    Attributes:
      name: a plain word that is unique on the page.
      title: its heading.
      sentences: the text above the figures.
      figures, tables: in the order of the page.
      examples: the example recommendations (`drex_jax.report.examples.examples_section`); empty in other sections.
      profiles: the data of the keyword search (`drex_jax.report.profiles.embedded`); None in other sections.
    """

    name: str
    title: str
    sentences: Sequence[str] = ()
    figures: Sequence[Figure] = ()
    tables: Sequence[Table] = ()
    examples: Sequence[dict[str, Any]] = ()
    profiles: dict[str, Any] | None = None
