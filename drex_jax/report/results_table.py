"""The results of a run as text: what was run, and a table for each way of evaluating."""

from __future__ import annotations

import datetime
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from drex_jax.common.tables import format_table
from drex_jax.metrics.names import ERROR_METRICS

RANKINGS = ("ndcg", "recall", "hr", "mrr")
FULL_RANKINGS, FULL_CUTOFFS = ("recall", "precision", "ndcg", "map"), (10, 20)  # of models that only rank
MEANING = {
    "prequential": "each interaction is scored first and then learned from",
    "frozen": "states stay as they were at the end of train",
    "ranking": "full ranking of the catalogue, learned from train alone",
}


def format_results(results: Mapping[str, Any]) -> str:
    """Return the data set, the split, notices and leaks, then one table for each way of evaluating.

    Args:
      results: the contents of `results.json`: `model`, `dataset`, `split` (its `boundaries`: {part: first second}),
        `seeds`, `test` {way: {metric: mean over seeds}}, `per_seed` (a list of dictionaries like `test`, one for each
        seed), `baselines` {name: {`test`, `per_seed`}}, and perhaps `selection`, `protocol`, `leaks` and `notices`
        (lists of sentences).

    Returns:
      Lines of text; the model is the first row of each table. Values are means over seeds, and `±` is the sample
      standard deviation over seeds.
    """
    lines = [f"{label:<9}{text}" for label, text in facts(results)]
    for way in results["test"]:
        lines += ["", f"test, {way}" + (f" ({MEANING[way]})" if way in MEANING else "")]
        lines += _table(results, way)
    return "\n".join(lines)


def facts(results: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what was run as pairs (label, text), from the contents of `results.json`.

    An empty label means that the text belongs to the label before it.
    """
    dataset, split = results["dataset"], results["split"]
    lines = [
        (
            "data",
            f"{dataset['name']}: {dataset['interactions']:,} interactions, {dataset['users']:,} users, "
            f"{dataset['items']:,} items (sha256 {dataset['sha256'][:12]})",
        ),
        ("split", f"{split['kind']}: " + ", ".join(f"{size:,} {part}" for part, size in split["sizes"].items())),
    ]
    boundaries = split.get("boundaries")
    if boundaries:
        lines.append(("", ", ".join(f"{part} from {_moment(value)}" for part, value in boundaries.items())))
    chosen = results.get("selections") or [results[name] for name in ("selection",) if name in results]
    lines += [("selected", f"epoch {one['epoch']}, validation {one['metric']} {one['value']:.4f}") for one in chosen]
    lines.append(("seeds", " ".join(str(seed) for seed in results["seeds"])))
    if "protocol" in results:
        lines.append(("protocol", str(results["protocol"])))
    lines += [("notice", notice) for notice in results.get("notices", ())]
    lines += [("leak", leak) for leak in results.get("leaks") or ("none known",)]
    return lines


def _moment(seconds: float) -> str:
    """Format seconds since 1970 as a time in UTC."""
    epoch = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
    return (epoch + datetime.timedelta(seconds=seconds)).strftime("%Y-%m-%d %H:%M:%S UTC")


def _table(results: Mapping[str, Any], way: str) -> list[str]:
    entries = [(results["model"], results), *results.get("baselines", {}).items()]
    entries = [(name, entry) for name, entry in entries if entry["test"].get(way)]
    metrics = columns_of(way, [entry["test"][way] for _, entry in entries])
    rows = [["", *metrics]]
    for name, entry in entries:
        seeds = [one[way] for one in entry.get("per_seed") or () if way in one]
        rows.append([name, *(_cell(entry["test"][way], seeds, metric) for metric in metrics)])
    return format_table(rows)


def columns_of(way: str, entries: Sequence[Mapping[str, float]]) -> list[str]:
    """Return the metrics that the table of one way of evaluating shows. `entries`: {metric: value} of each row."""
    return _full_ranking_columns(entries) if way == "ranking" else _columns(entries)


def _full_ranking_columns(entries: Sequence[Mapping[str, float]]) -> list[str]:
    """Return each ranking metric at the usual cutoffs; without them, at the smallest cutoff."""
    available = dict.fromkeys(metric for entry in entries for metric in entry)
    cutoffs = sorted({int(metric.rpartition("@")[2]) for metric in available if "@" in metric})
    shown = [cutoff for cutoff in FULL_CUTOFFS if cutoff in cutoffs] or cutoffs[:1]
    wanted = [f"{name}@{cutoff}" for name in FULL_RANKINGS for cutoff in shown]
    return [metric for metric in wanted if metric in available]


def _columns(entries: Sequence[Mapping[str, float]]) -> list[str]:
    """Return the error metrics, then the ranking metrics at one cutoff (10 if available)."""
    available = dict.fromkeys(metric for entry in entries for metric in entry)
    cutoffs = sorted({int(metric.rpartition("@")[2]) for metric in available if "@" in metric})
    cutoff = 10 if 10 in cutoffs else cutoffs[0] if cutoffs else 0
    wanted = [*ERROR_METRICS, *(f"{name}@{cutoff}" for name in RANKINGS), f"rated_items/ndcg@{cutoff}"]
    return [metric for metric in wanted if metric in available]


def _cell(means: Mapping[str, float], seeds: Sequence[Mapping[str, float]], metric: str) -> str:
    if means.get(metric) is None:
        return "-"
    values = [one[metric] for one in seeds if one.get(metric) is not None]
    spread = f" ±{statistics.stdev(values):.4f}" if len(values) > 1 else ""
    return f"{means[metric]:.4f}{spread}"
