"""The first sections of the report: the main results with intervals, and the settings of the run."""

from __future__ import annotations

import math
import statistics
from typing import Any

import numpy as np

from drex_jax.config.tree import flatten_settings
from drex_jax.metrics.names import lower_is_better
from drex_jax.report import figures, intervals
from drex_jax.report.results_table import MEANING, columns_of, facts
from drex_jax.report.run import Finished
from drex_jax.report.section import Figure, Section, Table

OF_RMSE = {"rmse": "mse"}  # the interval of RMSE is the square root of the interval of MSE


def what_was_run(run: Finished) -> Section:
    """Return the section on data, split, selection, notices and leaks; changed settings; the environment."""
    rows: list[tuple[str, str]] = []
    for label, text in facts(run.results):
        if label and (not rows or rows[-1][0] != label):
            rows.append((label, text))
        else:
            rows[-1] = (rows[-1][0], f"{rows[-1][1]}\n{text}")
    tables = [Table("The run", ("", ""), rows), _configuration(run)]
    environment = run.results.get("environment", {})
    versions = environment.get("versions", {})
    named = {name: value for name, value in environment.items() if name != "versions"} | versions
    if named:
        tables.append(Table("Environment", ("", ""), [(name, str(value)) for name, value in named.items()]))
    definitions = run.results.get("definitions", {})
    if definitions:
        tables.append(Table("How the metrics are computed", ("term", "meaning"), list(definitions.items())))
    return Section("run", "What was run", tables=tables)


def _configuration(run: Finished) -> Table:
    stored, default = flatten_settings(run.config), flatten_settings(type(run.config)())
    changed = [
        (name, str(value), str(default.get(name, "-")))
        for name, value in sorted(stored.items())
        if value != default.get(name)
    ]
    return Table("Settings that differ from their defaults", ("setting", "value", "default"), changed)


def headline_section(run: Finished) -> Section:
    """Return the section with a table for each way of evaluating, and the main metric of all models."""
    several = len(run.results["seeds"]) > 1
    sentences = [_first_sentence(run)]
    figure = _figure(run)
    spread = "± is the sample standard deviation over seeds. " if several else ""
    sentences.append(
        f"{spread}A range is a {intervals.METHOD}: it covers another sample of users, not another seed. "
        "A value without a range comes from lists that the run did not save. The last section explains the words."
    )
    tables = [_table(run, way) for way in run.results["test"]]
    return Section("results", "Results", sentences, [figure] if figure else [], tables)


def _first_sentence(run: Finished) -> str:
    way, metric, model = run.way, run.metric, run.results["model"]
    value = run.results["test"].get(way, {}).get(metric)
    if value is None:
        return "The run has no test results."
    lower = lower_is_better(metric)
    text = f"On test ({way}), {model} has {metric} {value:.4f} ({'lower' if lower else 'higher'} is better)"
    baselines = {
        name: entry["test"][way][metric]
        for name, entry in run.results["baselines"].items()
        if entry["test"].get(way, {}).get(metric) is not None
    }
    if not baselines:
        return f"{text}; no baseline of the run has this metric."
    best = (min if lower else max)(baselines, key=lambda name: baselines[name])
    rank = 1 + sum((other < value) if lower else (other > value) for other in baselines.values())
    return f"{text}: rank {rank} of {len(baselines) + 1}. The best baseline is {best} with {baselines[best]:.4f}."


def _figure(run: Finished) -> Figure | None:
    """Return the main metric of each model with its interval, and the difference from the run's model."""
    way, metric, model = run.way, run.metric, run.results["model"]
    names = [name for name, entry in run.models.items() if entry["test"].get(way, {}).get(metric) is not None]
    if not names or names[0] != model:
        return None
    values = [float(run.models[name]["test"][way][metric]) for name in names]
    judged = {name: run.judged(name, way, OF_RMSE.get(metric, metric)) for name in names}
    kept = {name: one for name, one in judged.items() if one is not None}
    means = intervals.resampled_means([one.user for one in kept.values()], [one.values for one in kept.values()])
    if metric in OF_RMSE:
        means = np.sqrt(means)
    of = {name: means[:, column] for column, name in enumerate(kept)}
    ranges = [intervals.interval(of[name]) if name in of else (math.nan, math.nan) for name in names]
    low, high = zip(*ranges, strict=True)
    rows = []
    for name, value, least, most in zip(names, values, low, high, strict=True):
        row = [name, f"{value:.4f}", _range(least, most)]
        if name != model and name in of and model in of:
            difference = of[model] - of[name]
            row += [f"{values[0] - value:+.4f}", _range(*intervals.interval(difference), sign=True)]
        rows.append([*row, "-", "-"][:5])
    table = Table(
        f"{metric} ({way}) with its interval; differences use the same resamples",
        ("model", metric, "95 % interval", f"{model} minus this model", "95 % interval"),
        rows,
    )
    lower = lower_is_better(metric)
    best = names[int(np.argmin(values) if lower else np.argmax(values))]
    svg = figures.dots(names, values, low, high, f"{metric}, {'lower' if lower else 'higher'} is better")
    description = f"{model} has {values[0]:.4f} ({_range(low[0], high[0])})"
    if best != model:
        description += f"; the best is {best} with {values[names.index(best)]:.4f}"
    return Figure("headline", f"Test {metric} ({way}) of every model, with intervals", f"{description}.", svg, table)


def _range(low: float, high: float, sign: bool = False) -> str:
    if math.isnan(low) or math.isnan(high):
        return "-"
    return f"{low:+.4f} to {high:+.4f}" if sign else f"{low:.4f} to {high:.4f}"


def _table(run: Finished, way: str) -> Table:
    names = [name for name, entry in run.models.items() if entry["test"].get(way)]
    metrics = columns_of(way, [run.models[name]["test"][way] for name in names])
    cells = [(name, metric) for name in names for metric in metrics]
    single = [(name, metric) for name, metric in cells if len(_seeds(run.models[name], way, metric)) < 2]
    judged = {cell: run.judged(cell[0], way, OF_RMSE.get(cell[1], cell[1])) for cell in single}
    kept = {cell: one for cell, one in judged.items() if one is not None}
    means = intervals.resampled_means([one.user for one in kept.values()], [one.values for one in kept.values()])
    spread = {}
    for column, cell in enumerate(kept):
        resampled = np.sqrt(means[:, column]) if cell[1] in OF_RMSE else means[:, column]
        spread[cell] = "\n{:.3f}\u2060\u2013\u2060{:.3f}".format(*intervals.interval(resampled))
    for cell in set(cells) - set(single):
        spread[cell] = f"\n±{statistics.stdev(_seeds(run.models[cell[0]], way, cell[1])):.4f}"
    rows = []
    for name in names:
        values = run.models[name]["test"][way]
        rows.append([name] + [_value(values.get(metric), spread.get((name, metric), "")) for metric in metrics])
    meaning = f" ({MEANING[way]})" if way in MEANING else ""
    return Table(f"Test, {way}{meaning}", ("", *metrics), rows)


def _seeds(entry: dict[str, Any], way: str, metric: str) -> list[float]:
    values = [seed.get(way, {}).get(metric) for seed in entry.get("per_seed") or ()]
    return [value for value in values if value is not None]


def _value(value: float | None, spread: str) -> str:
    return "-" if value is None else f"{value:.4f}{spread}"
