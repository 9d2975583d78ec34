"""The training sections: loss and validation by epoch, the schedule of the recurrence, and the time that it took."""

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
BEYOND = 2  # other curves are drawn up to this many times the epochs of the first seed


def read_log(path: pathlib.Path) -> tuple[dict[int, list[float]], dict[int, dict[str, float]]]:
    """Return ({epoch: losses of its steps}, {epoch: validation metrics}) from `metrics.jsonl`; empty without the file.

    Incomplete lines and lines that are not JSON are skipped.
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
    """Return the section with mean train loss and validation by epoch, of all seeds and of trained baselines."""
    model, seeds = run.results["model"], run.results["seeds"]
    layout = RunLayout(run.workdir)
    paths = {_named(model, seed, seeds): layout.seed(seed, seeds[0]).metrics for seed in seeds}
    logs = {name: log for name, log in ((name, read_log(path)) for name, path in paths.items()) if log[0]}
    if not logs:
        return Section(
            "training", "Training", [f"{model} has no steps in {layout.metrics.name}: it is not trained step by step."]
        )
    shown, sentences = [], []
    if len(logs) > CURVES:
        sentences.append(f"The first {CURVES} of {len(logs)} seeds are shown.")
    if len(logs) < len(seeds):
        sentences.append(f"{len(seeds) - len(logs)} of {len(seeds)} seeds have no {layout.metrics.name}.")
    logs = dict(list(logs.items())[:CURVES])
    means = {name: [float(np.mean(losses[epoch])) for epoch in sorted(losses)] for name, (losses, _) in logs.items()}
    shown.append(_curves(run, "loss", "Train loss by epoch (mean over steps)", "train loss", means))
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
        marked=(epoch, f"selected: {epoch}{' (first seed)' * several}") if epoch else None,
    )
    first, y = next(iter(values.items()))
    description = (
        f"{first} goes from {y[0]:.4f} in epoch 1 to {y[-1]:.4f} in epoch {len(y)}; epoch {epoch} was selected."
    )
    if drawn < longest:
        description += f" Shown up to epoch {drawn}; other curves continue to {longest}."
    rows = [
        (str(index + 1), *(f"{y[index]:.4f}" if index < len(y) else "-" for y in values.values()))
        for index in range(longest)
    ]
    return Figure(name, title, description, svg, Table(title, ("epoch", *values), rows))


def throughput(run: Finished) -> Section:
    """Return the section on the length of the train schedule and on the training time of each model."""
    schedule, sentences, drawn, tables = run.results.get("schedule"), [], [], []
    if schedule:
        drawn.append(_schedule(schedule, run.results["split"]["sizes"]["train"]))
        names = ("windows", "width", "depth", "bound", "steps")
        rows = [(name, f"{schedule[name]:,}") for name in names] + [("fill", f"{schedule['fill']:.1%}")]
        tables.append(Table("Schedule of the train windows", ("", ""), rows))
    else:
        sentences.append(f"{run.results['model']} has no recurrence, so there is no schedule.")
    rows = []
    for name in run.models:
        timing = run.results.get("timing", {}) if name == run.results["model"] else _timing(run.layout(name))
        keys = ("train_seconds", "compile_seconds", "interactions_per_second", "steps", "epochs")
        rows.append((name, *(_number(timing.get(key)) for key in keys)))
    header = ("model", "train seconds", "compile seconds", "train interactions per second", "steps", "epochs")
    tables.append(Table("Training time, first seed", header, rows))
    environment = run.results.get("environment", {})
    if environment:
        devices, kind = environment.get("devices"), environment.get("device_kind")
        total = _number(run.results.get("timing", {}).get("total_seconds"))
        sentences.append(f"On {devices} x {kind}. The whole run took {total} s, with baselines and evaluation.")
    return Section("speed", "Schedule and throughput", sentences, drawn, tables)


def _schedule(schedule: dict[str, Any], interactions: int) -> Figure:
    names = ["one at a time", "this schedule", "lower bound", "longest chain"]
    values = [interactions, schedule["steps"], schedule["bound"], schedule["depth"]]
    title = "Sequential steps of an epoch"
    svg = figures.bars(names, values, "steps")
    description = (
        f"{interactions:,} interactions run in {schedule['steps']:,} steps of up to {schedule['width']} at a time. No "
        f"schedule of this width needs fewer than {schedule['bound']:,} steps; the longest chain of interactions that "
        f"depend on each other has {schedule['depth']:,}."
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
