"""How training went: losses and validation by epoch, the schedule of the recurrence, and how fast it all was."""

from __future__ import annotations

import json
import math
import pathlib
from typing import Any

import numpy as np

from drex_jax.common.errors import UserError
from drex_jax.common.files import read_json
from drex_jax.metrics.names import lower_is_better
from drex_jax.report import figures
from drex_jax.report.run import Finished
from drex_jax.report.section import Figure, Section, Table
from drex_jax.runs.layout import RUN_KEYS, RunLayout

CURVES = len(figures.SERIES)
BEYOND = 2  # others' curves are drawn up to so many times the epochs of the run's first seed


def read_log(path: pathlib.Path) -> tuple[dict[int, list[float]], dict[int, dict[str, float]]]:
    """What `metrics.jsonl` says: {epoch: its steps' losses} and {epoch: validation metrics}; empty without a file.

    Lines that are torn or no JSON are left out.
    """
    losses: dict[int, list[float]] = {}
    validations: dict[int, dict[str, float]] = {}
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError:
        return {}, {}
    for line in lines:
        try:
            one = json.loads(line)
            epoch = int(one["epoch"])
            losses.setdefault(epoch, []).append(float(one["loss"]))
            if one.get("validation"):
                validations[epoch] = one["validation"]
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
    return losses, validations


def training_curves(run: Finished) -> Section:
    """Mean train loss and validation by epoch: of the run's seeds, and of the baselines that train."""
    model, seeds = run.results["model"], run.results["seeds"]
    layout = RunLayout(run.workdir)
    own = {_named(model, seed, seeds): layout.seed(seed, seeds[0]).metrics for seed in seeds}
    logs = {name: log for name, log in ((name, read_log(path)) for name, path in own.items()) if log[0]}
    if not logs:
        return Section(
            "training", "Training", [f"{model} left no steps in {layout.metrics.name}: it is not trained step by step."]
        )
    shown, sentences = [], []
    if len(logs) > CURVES:
        sentences.append(f"The first {CURVES} of {len(logs)} seeds are drawn.")
    if len(logs) < len(seeds):
        sentences.append(f"{len(seeds) - len(logs)} of {len(seeds)} seeds have no {layout.metrics.name}.")
    logs = dict(list(logs.items())[:CURVES])
    means = {name: [float(np.mean(losses[epoch])) for epoch in sorted(losses)] for name, (losses, _) in logs.items()}
    shown.append(_curves(run, "loss", "Train loss by epoch, mean of its steps", "train loss", means))
    metric = run.results["selection"]["metric"]
    paths = {name: run.layout(name).metrics for name in run.results["baselines"]}
    others = {name: read_log(path) for name, path in paths.items() if path.exists()}
    validated = {}
    for name, (_, validations) in [*logs.items(), *others.items()]:
        values = [validations[epoch].get(metric) for epoch in sorted(validations)]
        if values and len(validated) < CURVES:
            validated[name] = [math.nan if value is None else float(value) for value in values]
    if validated:
        title = f"Validation {metric} by epoch"
        better = "lower" if lower_is_better(metric) else "higher"
        shown.append(_curves(run, "validation", title, f"validation {metric}, {better} is better", validated))
    return Section("training", "Training", sentences, shown)


def _named(model: str, seed: int, seeds: list[int]) -> str:
    return f"seed {seed}" if len(seeds) > 1 else model


def _curves(run: Finished, name: str, title: str, label: str, values: dict[str, list[float]]) -> Figure:
    longest, several = max(map(len, values.values())), len(run.results["seeds"]) > 1
    drawn = min(longest, BEYOND * max(len(next(iter(values.values()))), 5))
    epoch = run.results["selection"]["epoch"]
    svg = figures.lines(
        [figures.Series(one, y[:drawn]) for one, y in values.items()],
        list(range(1, drawn + 1)),
        "epoch",
        label,
        marked=(epoch, f"chosen: {epoch}{' (first seed)' * several}") if epoch else None,
    )
    first, y = next(iter(values.items()))
    description = f"{first} goes from {y[0]:.4f} in epoch 1 to {y[-1]:.4f} in epoch {len(y)}; epoch {epoch} was chosen."
    if drawn < longest:
        description += f" Drawn up to epoch {drawn}; others go on to {longest}."
    rows = [
        (str(place + 1), *(f"{own[place]:.4f}" if place < len(own) else "-" for own in values.values()))
        for place in range(longest)
    ]
    return Figure(name, title, description, svg, Table(title, ("epoch", *values), rows))


def throughput(run: Finished) -> Section:
    """The train schedule against one interaction at a time, and the time each model took."""
    schedule, sentences, drawn, tables = run.results.get("schedule"), [], [], []
    if schedule:
        drawn.append(_schedule(schedule, run.results["split"]["sizes"]["train"]))
        names = ("windows", "width", "depth", "bound", "steps")
        rows = [(name, f"{schedule[name]:,}") for name in names] + [("fill", f"{schedule['fill']:.1%}")]
        tables.append(Table("The schedule of the train windows", ("", ""), rows))
    else:
        sentences.append(f"{run.results['model']} has no recurrence, so there is no schedule.")
    rows = []
    for name in run.models:
        timing = run.results.get("timing", {}) if name == run.results["model"] else _timing(run.layout(name))
        keys = ("train_seconds", "compile_seconds", "interactions_per_second", "steps", "epochs")
        rows.append((name, *(_number(timing.get(key)) for key in keys)))
    header = ("model", "train seconds", "compile seconds", "train interactions a second", "steps", "epochs")
    tables.append(Table("Time to train, first seed", header, rows))
    environment = run.results.get("environment", {})
    if environment:
        devices, kind = environment.get("devices"), environment.get("device_kind")
        total = _number(run.results.get("timing", {}).get("total_seconds"))
        sentences.append(f"On {devices} x {kind}. The whole run, baselines and evaluation with it, took {total} s.")
    return Section("speed", "Schedule and throughput", sentences, drawn, tables)


def _schedule(schedule: dict[str, Any], interactions: int) -> Figure:
    names = ["one at a time", "this schedule", "least possible", "longest chain"]
    values = [interactions, schedule["steps"], schedule["bound"], schedule["depth"]]
    title = "Steps that train takes an epoch"
    svg = figures.bars(names, values, "steps")
    description = (
        f"{interactions:,} interactions run in {schedule['steps']:,} steps of up to {schedule['width']} at once; "
        f"no schedule of that width needs fewer than {schedule['bound']:,}, and {schedule['depth']:,} depend on each "
        "other in a chain."
    )
    table = Table(title, ("", "steps"), [(name, f"{value:,}") for name, value in zip(names, values, strict=True)])
    return Figure("schedule", title, description, svg, table)


def _timing(layout: RunLayout) -> dict[str, Any]:
    try:
        return read_json(layout.record, RUN_KEYS)["timing"]
    except UserError:
        return {}


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 100 or float(value).is_integer() else f"{value:,.2f}"
