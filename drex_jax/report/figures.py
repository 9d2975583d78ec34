"""Drawings as SVG for the page: text stays text, colours come from the page, and equal numbers give equal bytes.

Drawings are narrow, so that their text is readable on a phone. Series differ by marker and dash as well as by colour.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import io
import math
import re
from collections.abc import Generator, Sequence
from typing import Any

import numpy as np

from drex_jax.common.errors import UserError

WIDTH, HEIGHT = 5.6, 3.5  # inches; an inch is 72 SVG units
INK, MUTED, GRID, PAPER = "#0a0a01", "#0a0a02", "#0a0a03", "#0a0a04"  # placeholders for the page's colours
SERIES = ("#0a0b01", "#0a0b02", "#0a0b03", "#0a0b04", "#0a0b05")
COLOURS = {INK: "ink", MUTED: "muted", GRID: "grid", PAPER: "paper"} | {
    colour: f"series{number}" for number, colour in enumerate(SERIES)
}
MARKERS, DASHES = ("o", "s", "^", "D", "v"), ("-", (0, (5, 2)), (0, (2, 2)), (0, (6, 2, 1, 2)), (0, (1, 1.5)))
STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "drex_jax",
    "text.parse_math": False,
    "font.size": 12,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "lines.linewidth": 2,
    "lines.markersize": 6,
}


@dataclasses.dataclass(frozen=True)
class Series:
    """One line.

    Attributes:
      name: its label.
      y: float [n]; NaN leaves a gap.
      low, high: its confidence interval, float [n], or None.
    """

    name: str
    y: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None


def require() -> None:
    """Check that matplotlib is installed. Raises UserError if it is not."""
    with _needed("matplotlib"):
        importlib.import_module("matplotlib")


@contextlib.contextmanager
def _needed(package: str) -> Generator[None]:
    try:
        yield
    except ImportError:
        raise UserError(f"--mode=report needs the package {package}: pip install -e '.[report]'") from None


def lines(
    series: Sequence[Series],
    x: Sequence[float] | Sequence[str],
    x_label: str,
    y_label: str,
    *,
    marked: tuple[float, str] | None = None,
) -> str:
    """Draw lines over numbers, or over groups in order; each line has its name at its end.

    Args:
      series: up to five lines with a value for each x; shorter ones end earlier.
      x: numbers, or names of groups.
      x_label: label of the x axis.
      y_label: label of the y axis.
      marked: a position on the x axis, and the label of the vertical line there.
    """
    with _drawing() as (figure, axes):
        groups = bool(len(x)) and isinstance(x[0], str)
        places = np.arange(len(x)) if groups else np.asarray(x, np.float64)
        for number, one in enumerate(series[: len(SERIES)]):
            y, colour = np.asarray(one.y, np.float64), SERIES[number]
            x_values = places[: len(y)]
            few = len(y) <= 30
            if one.low is not None and one.high is not None:
                axes.fill_between(x_values, one.low, one.high, color=colour, alpha=0.18, linewidth=0)
            style: Any = DASHES[number]
            axes.plot(x_values, y, color=colour, linestyle=style, marker=MARKERS[number] if few else None)
        if marked:
            axes.axvline(marked[0], color=MUTED, linewidth=1, linestyle=(0, (3, 3)))
            axes.annotate(
                marked[1], (marked[0], 1), (4, -2), xycoords=("data", "axes fraction"), textcoords="offset points",
                va="top", color=MUTED, fontsize=11,
            )  # fmt: skip
        if groups:
            axes.set_xticks(places, list(map(str, x)), fontsize=11)
            axes.margins(x=0.06)
        elif (places == places.round()).all():
            axes.locator_params(axis="x", integer=True)  # there is no epoch 1.5
        axes.grid(axis="y")
        axes.set_xlabel(x_label)
        axes.set_title(y_label, loc="left", fontsize=12)
        _name_lines(axes, series[: len(SERIES)], places)
        return _svg(figure)


def _name_lines(axes: Any, series: Sequence[Series], places: np.ndarray) -> None:
    """Write a name at the end of each line, without overlaps."""
    ends = []
    for number, one in enumerate(series):
        there = [place for place, value in enumerate(one.y) if not math.isnan(value)]
        if there:
            ends.append((float(one.y[there[-1]]), float(places[there[-1]]), number))
    if len(ends) < 2:
        return
    low, high = axes.get_ylim()
    gap = 0.085 * (high - low)
    heights = apart([y for y, _, _ in ends], gap)
    shift = max(0.0, max(heights) - high) or min(0.0, min(heights) - low - gap / 2)  # names stay beside the axes
    right = max(x for _, x, _ in ends)
    for (_, _, number), height in zip(ends, heights, strict=True):
        axes.annotate(
            f"{_mark(number)} {series[number].name}", (right, height - shift), (8, 0), textcoords="offset points",
            va="center", color=SERIES[number], fontsize=11.5, annotation_clip=False,
        )  # fmt: skip


def _mark(number: int) -> str:
    return "●■▲◆▼"[number]


def apart(heights: Sequence[float], gap: float) -> list[float]:
    """Move heights as little as possible so that neighbours are at least `gap` apart; the order stays."""
    order = np.argsort(heights, kind="stable")
    groups: list[tuple[float, list[int]]] = []  # the centre of each group, and its members
    for index in order.tolist():
        groups.append((float(heights[index]), [index]))
        while len(groups) > 1:
            (below, lower), (above, upper) = groups[-2:]
            if above - below >= gap * (len(lower) + len(upper)) / 2:
                break
            members = lower + upper
            groups[-2:] = [(sum(heights[member] for member in members) / len(members), members)]
    moved = [0.0] * len(heights)
    for middle, members in groups:
        for number, member in enumerate(members):
            moved[member] = middle + gap * (number - (len(members) - 1) / 2)
    return moved


def dots(names: Sequence[str], values: Sequence[float], low: Sequence[float], high: Sequence[float], label: str) -> str:
    """Draw a dot with its interval (unless NaN) for each name; the first is on top and in the first colour."""
    with _drawing(0.9 + 0.36 * len(names)) as (figure, axes):
        for place, (value, least, most) in enumerate(zip(values, low, high, strict=True)):
            colour = SERIES[0] if place == 0 else INK
            if not (math.isnan(least) or math.isnan(most)):
                axes.plot([least, most], [place, place], color=colour, linewidth=2, solid_capstyle="butt")
            axes.plot([value], [place], marker="o" if place else "D", color=colour, markersize=7, linestyle="none")
        axes.set_yticks(range(len(names)), list(names))
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.margins(x=0.08)
        axes.grid(axis="x")
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel(label)
        return _svg(figure)


def bars(names: Sequence[str], values: Sequence[float], label: str) -> str:
    """Draw a horizontal bar for each name, with its number at the end."""
    with _drawing(0.9 + 0.42 * len(names)) as (figure, axes):
        axes.barh(range(len(names)), values, height=0.62, color=SERIES[0])
        most = max([*values, 0]) or 1
        for place, value in enumerate(values):
            axes.text(value + 0.015 * most, place, f"{value:,.0f}", va="center", fontsize=11.5)
        axes.set_yticks(range(len(names)), list(names))
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set_xlim(0, 1.16 * most)
        axes.tick_params(axis="y", length=0)
        axes.locator_params(axis="x", nbins=4)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axes.set_xlabel(label)
        return _svg(figure)


@contextlib.contextmanager
def _drawing(height: float = HEIGHT) -> Generator[tuple[Any, Any]]:
    with _needed("matplotlib"):
        import matplotlib
        from matplotlib.figure import Figure
    with matplotlib.rc_context(STYLE):  # pyright: ignore[reportArgumentType] (its keys are literals)
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        yield figure, figure.add_subplot()


def _svg(figure: Any) -> str:
    """Return the drawing as SVG, with the page's colours and without metadata, styles and a fixed size."""
    file = io.StringIO()
    figure.savefig(file, format="svg", transparent=True, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    svg = file.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", svg[svg.index("<svg") :], flags=re.S)
    for size in ("width", "height"):  # the page sets them
        svg = re.sub(rf'(<svg[^>]*?) {size}="[^"]*"', r"\1", svg, count=1)
    for colour, name in COLOURS.items():
        svg = svg.replace(colour, f"var(--{name})")
    svg = re.sub(r" font-family: [^;\"]*;", "", re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", svg))
    return svg.strip()


def placed(svg: str, name: str, title: str, description: str) -> str:
    """Prepare a drawing for a page: make its ids unique and add its text alternative.

    Args:
      svg: a drawing from this module.
      name: a plain word that is unique on the page.
      title: the title, escaped.
      description: the description, escaped.
    """
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'href="#', f'href="#{name}-', svg)
    svg = svg.replace("url(#", f"url(#{name}-")
    begun = svg.index("<svg") + 4
    labels = f' role="img" aria-labelledby="{name}-title {name}-desc"'
    head, rest = svg[:begun] + labels, svg[begun:]
    inside = rest.index(">") + 1
    texts = f'<title id="{name}-title">{title}</title><desc id="{name}-desc">{description}</desc>'
    return head + rest[:inside] + texts + rest[inside:]
