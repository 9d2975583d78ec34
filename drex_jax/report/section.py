"""The parts that a report is made of: sections of sentences, figures and tables."""

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
      rows: cells as they are shown; the first of each row names it.
    """

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclasses.dataclass(frozen=True)
class Figure:
    """A drawing, with what it says for those who do not see it.

    Attributes:
      name: a plain word, of its own on the page.
      title: what it shows.
      description: what one sees in it, in a sentence.
      svg: the drawing as `drex_jax.report.figures` makes it, trusted.
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
      name: a plain word, of its own on the page.
      title: its heading.
      sentences: what there is to say, above the figures.
      figures, tables: in their order.
      examples: what the section of examples shows, else empty: a dictionary each, as `drex_jax.report.examples` says.
      profiles: what the section of keywords embeds for its search; None elsewhere.
    """

    name: str
    title: str
    sentences: Sequence[str] = ()
    figures: Sequence[Figure] = ()
    tables: Sequence[Table] = ()
    examples: Sequence[dict[str, Any]] = ()
    profiles: dict[str, Any] | None = None
