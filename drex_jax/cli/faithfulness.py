"""Test whether the explanations of a finished DReX run name what moves it: deletion and insertion curves.

    drex faithfulness --workdir=runs/quickstart [--pairs=200] [--json=FILE]

A pair is a test interaction at the moment just before it; its user and its item have at least 5 earlier interactions.
`deletion` removes the first k parts of an explanation and measures how far the predicted rating moves (score), how it
changes (change) or how far the state moves (state). Parts are the last 20 interactions, ordered by occlusion, or the
words of the keyword profile in the reviews of these interactions. `insertion` keeps only those k parts and measures how
far the result still is from the full one. `area` is the mean height of a curve with its 95% bootstrap interval over
pairs; the last column is its difference from the area of random parts. For score and state, high is good in deletion
and low is good in insertion. Random words are as frequent as the words of the profile. Synthetic data have more
orders: `true aspects` are other words of the aspects that belong to the user or the item, `sentiment` is praise and
blame, `background` is all other words.
"""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import Any, cast

from drex_jax.cli.exit_status import print_stdout
from drex_jax.cli.flags import Parser, add_json_flag, at_least, write_json_file
from drex_jax.common.errors import UserError
from drex_jax.common.tables import format_table

INTERACTIONS = {"score": ("most", "least", "random"), "change": ("for", "against", "random")}  # orders, by measure
KEYWORD_ORDERS = {"score": None, "state": None}  # all orders


def run(arguments: Sequence[str]) -> None:
    """Run the command.

    Raises:
      UserError: a wrong flag, or a run that cannot be measured.
    """
    parser = Parser("drex faithfulness", __doc__)
    parser.add_argument("--workdir", type=pathlib.Path, required=True, help="directory of a finished run of DReX")
    parser.add_argument("--pairs", type=at_least(1), default=200, help="test interactions; default %(default)s")
    add_json_flag(parser)
    options = parser.parse_args(arguments)
    figures = measure(options.workdir, options.pairs)
    print_stdout(describe(figures))
    write_json_file(options.json, figures)


def measure(workdir: pathlib.Path, pairs: int) -> dict[str, Any]:
    """Measure a finished run: `run`, `data` and what `drex_jax.explain.faithfulness.measure_run` returns.

    Raises:
      UserError: there is no finished DReX run, or it is damaged, or too small for a pair.
    """
    # Imported late, as they import JAX: a mistake in the flags is answered at once.
    from drex_jax.data.synthetic.world import generate_world
    from drex_jax.explain.faithfulness import measure_run
    from drex_jax.explain.occlusion import Occlusion
    from drex_jax.models.drex.model import DReX
    from drex_jax.models.entry import Updates
    from drex_jax.models.registry import entry_of
    from drex_jax.runs.dataset import open_dataset
    from drex_jax.runs.layout import RunLayout
    from drex_jax.serving.finished_run import open_run
    from drex_jax.training.settings import read_settings

    settings = read_settings(RunLayout(workdir).config)
    if entry_of(settings.model.name).updates is not Updates.STATES:
        raise UserError(f"{workdir}: a run of {settings.model.name}; only DReX is explained")
    finished = open_run(workdir)
    dataset = open_dataset(settings, workdir)
    world = None
    if settings.data.format == "synthetic":
        world = generate_world(**settings.data.synthetic.arguments())
    occlusion = Occlusion(cast(DReX, finished.model), finished.params, dataset.events)
    return {"run": str(workdir), "data": settings.data.name} | measure_run(workdir, occlusion, dataset, world, pairs)


def describe(figures: dict[str, Any]) -> str:
    """Return one table for each kind of parts."""
    from drex_jax.explain import curves

    lines = [f"{figures['run']}: {figures['data']}, {figures['pairs']:,} test pairs, {curves.DRAWS} random draws each"]
    headings = ["", "way", "order", *(f"k={k}" for k in figures["steps"]), "area (interval)", "less that of random"]
    for title, found in figures.items():
        if not isinstance(found, dict):
            continue
        removed = ", ".join(f"{name} {count:.1f}" for name, count in found["removed"].items())
        lines += ["", f"{title}: {found['pairs']:,} pairs; removed at the last step: {removed}"]
        rows = [headings]
        for measure, orders in (KEYWORD_ORDERS if title.startswith("keywords") else INTERACTIONS).items():
            rows += [
                [measure, way, order, *_cells(order, values)]
                for way in curves.WAYS
                for order, values in found[measure][way].items()
                if orders is None or order in orders
            ]
        lines += format_table(rows, right=range(3, 3 + len(figures["steps"])))
    return "\n".join(lines)


def _cells(order: str, values: dict[str, list[float]]) -> list[str]:
    area, less = ("{:+.4f} ({:+.4f} to {:+.4f})".format(*values[key]) for key in ("area", "against_random"))
    return [*(f"{value:.4f}" for value in values["curve"]), area, "" if order == "random" else less]
