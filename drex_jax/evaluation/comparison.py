"""Is one run better than others? Paired tests on what each list of the test scored.

A list is a user's, or, prequential, an interaction's; `mse` and `mae` compare rated interactions. The values of a list
are first averaged over the seeds of a run. Then come, for the mean difference, a bootstrap interval over lists, and
Wilcoxon's signed-rank test, its p-values adjusted after Holm for the number of comparisons.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from drex_jax.common.errors import UserError
from drex_jax.common.files import read_json
from drex_jax.common.tables import format_table
from drex_jax.metrics import significance
from drex_jax.metrics.ranking import ranking_per_list
from drex_jax.runs.layout import RunLayout
from drex_jax.runs.lists import Arrays, read_lists

SCHEMA = 1
WAYS = ("ranking", "prequential", "frozen")
ERRORS = {"mse": np.square, "mae": np.abs}
RUN_KEYS, DATA_KEYS = ("model", "seeds", "test"), ("dataset", "split", "protocol", "seeds")


@dataclasses.dataclass(frozen=True)
class Run:
    """A finished run, or a baseline of one.

    Attributes:
      path: as it was given.
      model: its name.
      seeds: what it was trained on; the first one's lists are in `path`, others' in `replicas/SEED`.
      metrics: {way: {metric: mean over seeds}}.
      facts: what must agree between runs that are compared: {what: value}.
    """

    path: pathlib.Path
    model: str
    seeds: list[int]
    metrics: dict[str, dict[str, float]]
    facts: dict[str, Any]


def open_run(path: pathlib.Path) -> Run:
    """Open the run in a directory.

    Raises:
      UserError: there is no finished run.
    """
    layout = RunLayout(path)
    file, run = layout.results, layout.run()
    if not file.is_file():
        raise UserError(f"{path} is no finished run: it has no {file.name}")
    results = read_json(file, RUN_KEYS)
    if not run.results.is_file():
        raise UserError(f"{path} belongs to a run that is not finished: {run.folder} has no {file.name}")
    of_data = read_json(run.results, DATA_KEYS)
    dataset, split = of_data["dataset"], of_data["split"]
    facts = {
        "data (sha256)": dataset["sha256"][:12],
        "split": split["kind"],
        "split sizes": split["sizes"],
        "split boundaries": split.get("boundaries"),
        "seed of the random split": of_data["seeds"][0] if split["kind"] == "random" else None,
        "protocol": of_data["protocol"],
    }
    return Run(path, results["model"], results["seeds"], results["test"], facts)


def require_comparable(first: Run, other: Run) -> None:
    """Refuse runs that were not evaluated in the same way.

    Raises:
      UserError: other data, another split or another protocol.
    """
    for what, value in first.facts.items():
        if other.facts[what] != value:
            raise UserError(
                f"{first.path} and {other.path} cannot be compared: {what} {value} and {other.facts[what]}; "
                "both must be judged on the same"
            )


def values_of(run: Run, way: str, metric: str) -> tuple[np.ndarray, Arrays]:
    """Return the value of every list, float64 [seeds, lists], and by name what each list belongs to.

    Raises:
      UserError: the run has no such way or metric, or its lists are missing, damaged or not finite.
    """
    if way not in run.metrics:
        raise UserError(f"{run.path} has no --way={way}; it has {' '.join(run.metrics)}")
    kinds = [name for name in run.metrics[way] if name in ERRORS or ("@" in name and "/" not in name)]
    if metric not in kinds:
        raise UserError(f"{run.path} has no --metric={metric} for its {way} lists; it has {' '.join(kinds)}")
    values, keys = [], {}
    for seed in run.seeds:
        path = RunLayout(run.path).seed(seed, run.seeds[0]).list_file(way)
        try:
            value, own = _values(read_lists(path), metric)
        except (KeyError, ValueError, IndexError) as error:
            raise UserError(f"{path}: damaged; it should hold the lists that the run wrote ({error})") from None
        if not np.isfinite(value).all():
            raise UserError(f"{path}: {metric} of {int((~np.isfinite(value)).sum())} lists is not finite")
        if values:
            _require_same_lists(keys, own, f"seeds {run.seeds[0]} and {seed} of {run.path}")
        values.append(value)
        keys = own
    return np.stack(values), keys


def _values(arrays: Arrays, metric: str) -> tuple[np.ndarray, Arrays]:
    """Return one seed's value of each list, and what each list belongs to."""
    if metric in ERRORS:
        error = arrays["predicted"].astype(np.float64) - arrays["rating"]
        return ERRORS[metric](error), {name: arrays[name] for name in ("row", "rating")}
    users = arrays["user"]
    values = ranking_per_list(arrays["ranks"], arrays["lists"], len(users), [int(metric.rpartition("@")[2])])
    keys = {name: arrays[name] for name in ("user", "interaction") if name in arrays}
    return values[metric], keys | {"relevant items": np.bincount(arrays["lists"], minlength=len(users))}


def _require_same_lists(first: Arrays, other: Arrays, whose: str) -> None:
    for name, values in first.items():
        if len(values) != len(other[name]):
            raise UserError(f"{whose} have other lists: {len(values)} and {len(other[name])}")
        differing = int((values != other[name]).sum())
        if differing:
            raise UserError(f"{whose} have other lists: {differing} of {len(values)} differ in {name}")


def compare(paths: Sequence[pathlib.Path], way: str | None, metric: str, confidence: float) -> dict[str, Any]:
    """Compare the first run with each other one.

    Args:
      paths: of two runs or more.
      way: of evaluating; None: the first of `WAYS` that the first run has.
      metric: of each list.
      confidence: of the intervals, in (0, 1).

    Returns:
      `metric`, `way`, `confidence`, `lists` (their number), `runs` [{path, model, seeds, values (of each seed), mean,
      deviation (sample; None for one seed)}], `comparisons` [{first, second, difference (first - second), low, high,
      wilcoxon_p, holm_p}].

    Raises:
      UserError: a path is no run, or the runs cannot be compared.
    """
    if len(paths) < 2:
        raise UserError(f"a comparison needs two runs at the least, not {len(paths)}")
    runs = [open_run(path) for path in paths]
    for other in runs[1:]:
        require_comparable(runs[0], other)
    way = way or next((known for known in WAYS if known in runs[0].metrics), WAYS[0])
    found = [values_of(run, way, metric) for run in runs]
    first = found[0][0].mean(0)
    comparisons = []
    for run, (values, keys) in zip(runs[1:], found[1:], strict=True):
        _require_same_lists(found[0][1], keys, f"{runs[0].path} and {run.path}")
        interval = significance.paired_bootstrap(first, values.mean(0), confidence=confidence)
        comparisons.append(
            {
                "first": str(runs[0].path),
                "second": str(run.path),
                **dataclasses.asdict(interval),
                "wilcoxon_p": significance.wilcoxon_signed_rank(first, values.mean(0)),
            }
        )
    adjusted = significance.holm([comparison["wilcoxon_p"] for comparison in comparisons])
    return {
        "schema": SCHEMA,
        "metric": metric,
        "way": way,
        "confidence": confidence,
        "lists": len(first),
        "runs": [_entry(run, values) for run, (values, _) in zip(runs, found, strict=True)],
        "comparisons": [one | {"holm_p": p} for one, p in zip(comparisons, adjusted, strict=True)],
    }


def _entry(run: Run, values: np.ndarray) -> dict[str, Any]:
    means = values.mean(1)
    return {
        "path": str(run.path),
        "model": run.model,
        "seeds": run.seeds,
        "values": means.tolist(),
        "mean": float(means.mean()),
        "deviation": float(means.std(ddof=1)) if len(means) > 1 else None,
    }


def format_comparison(comparison: dict[str, Any]) -> str:
    """Format two tables for people: the runs, and the comparisons."""
    metric, lower = comparison["metric"], comparison["metric"] in ERRORS
    unit = "rated interactions" if lower else "lists"
    runs = [["run", "model", "seeds", metric]]
    for run in comparison["runs"]:
        spread = "" if run["deviation"] is None else f" ±{run['deviation']:.4f}"
        runs.append([run["path"], run["model"], str(len(run["seeds"])), f"{run['mean']:.4f}{spread}"])
    rows = [
        ["first run against", "difference", f"{100 * comparison['confidence']:g}% interval", "Wilcoxon p", "after Holm"]
    ]
    for one in comparison["comparisons"]:
        interval = f"{one['low']:+.4f} to {one['high']:+.4f}"
        p_values = (f"{one[name]:.2g}" for name in ("wilcoxon_p", "holm_p"))
        rows.append([one["second"], f"{one['difference']:+.4f}", interval, *p_values])
    better = "below 0" if lower else "above 0"
    lines = [
        f"test, {comparison['way']}: {metric} of {comparison['lists']:,} {unit}, each averaged over a run's seeds",
        *format_table(runs),
        "",
        f"difference: first run less the other; {better} the first is better",
        *format_table(rows),
    ]
    return "\n".join(lines)
