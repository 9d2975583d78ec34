"""The final table for people, from the dictionary that `results.json` holds."""

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
    "prequential": "each interaction scored, then learned from",
    "frozen": "states as they were at the end of train",
    "ranking": "full ranking of the catalogue, by what was learned in train",
}


def format_results(results: Mapping[str, Any]) -> str:
    """Data set, split, notices and leaks, then one table for every way of evaluating, the model first.

    Args:
      results: the contents of `results.json`: `model`, `dataset`, `split` (its `boundaries`: {part: first second}),
        `seeds`, `test` {way: {metric: mean over seeds}}, `per_seed` (a list of dictionaries shaped like `test`, one a
        seed), `baselines` {name: {`test`, `per_seed`}}, and, where there is something to say, `selection`, `protocol`,
        `leaks` and `notices` (lists of sentences).

    Returns:
      Lines of text. A figure is the mean over seeds; `±` is the sample standard deviation over seeds.
    """
    lines = [f"{label:<9}{text}" for label, text in facts(results)]
    for way in results["test"]:
        lines += ["", f"test, {way}" + (f" ({MEANING[way]})" if way in MEANING else "")]
        lines += _table(results, way)
    return "\n".join(lines)


def facts(results: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What was run, as (label, text); a label is empty where a text goes on. `results` as `format_results`."""
    dataset, split = results["dataset"], results["split"]
    found = [
        (
            "data",
            f"{dataset['name']}: {dataset['interactions']:,} interactions, {dataset['users']:,} users, "
            f"{dataset['items']:,} items (sha256 {dataset['sha256'][:12]})",
        ),
        ("split", f"{split['kind']}: " + ", ".join(f"{size:,} {part}" for part, size in split["sizes"].items())),
    ]
    boundaries = split.get("boundaries")
    if boundaries:
        found.append(("", ", ".join(f"{part} from {_moment(value)}" for part, value in boundaries.items())))
    chosen = results.get("selections") or [results[name] for name in ("selection",) if name in results]
    found += [("selected", f"epoch {one['epoch']}, validation {one['metric']} {one['value']:.4f}") for one in chosen]
    found.append(("seeds", " ".join(str(seed) for seed in results["seeds"])))
    if "protocol" in results:
        found.append(("protocol", str(results["protocol"])))
    found += [("notice", notice) for notice in results.get("notices", ())]
    found += [("leak", leak) for leak in results.get("leaks") or ("none known",)]
    return found


def _moment(seconds: float) -> str:
    """Seconds since 1970 as UTC."""
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
    """The metrics that a table of a way of evaluating shows, of those that some of its `entries` have."""
    return _full_ranking_columns(entries) if way == "ranking" else _columns(entries)


def _full_ranking_columns(entries: Sequence[Mapping[str, float]]) -> list[str]:
    """Each metric at the usual cutoffs, or at the smallest one where they are not there."""
    known = dict.fromkeys(metric for entry in entries for metric in entry)
    cutoffs = sorted({int(metric.rpartition("@")[2]) for metric in known if "@" in metric})
    shown = [cutoff for cutoff in FULL_CUTOFFS if cutoff in cutoffs] or cutoffs[:1]
    wanted = [f"{name}@{cutoff}" for name in FULL_RANKINGS for cutoff in shown]
    return [metric for metric in wanted if metric in known]


def _columns(entries: Sequence[Mapping[str, float]]) -> list[str]:
    """Error metrics, then ranking metrics at one cutoff (10 where there is one): the catalogue, then own items."""
    known = dict.fromkeys(metric for entry in entries for metric in entry)
    cutoffs = sorted({int(metric.rpartition("@")[2]) for metric in known if "@" in metric})
    cutoff = 10 if 10 in cutoffs else cutoffs[0] if cutoffs else 0
    wanted = [*ERROR_METRICS, *(f"{name}@{cutoff}" for name in RANKINGS), f"rated_items/ndcg@{cutoff}"]
    return [metric for metric in wanted if metric in known]


def _cell(means: Mapping[str, float], seeds: Sequence[Mapping[str, float]], metric: str) -> str:
    if means.get(metric) is None:
        return "-"
    values = [one[metric] for one in seeds if one.get(metric) is not None]
    spread = f" ±{statistics.stdev(values):.4f}" if len(values) > 1 else ""
    return f"{means[metric]:.4f}{spread}"
