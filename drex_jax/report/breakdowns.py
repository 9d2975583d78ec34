"""Where a model errs: by the rating that was given, and by how much history the user had, from cold to warm."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from drex_jax.common.errors import UserError
from drex_jax.common.streams import occurrences
from drex_jax.metrics.names import lower_is_better
from drex_jax.report import figures, intervals
from drex_jax.report.run import Finished, Judged
from drex_jax.report.section import Figure, Section, Table
from drex_jax.runs.layout import RunLayout
from drex_jax.runs.lists import read_lists

HISTORY = (0, 1, 3, 6, 11, 21)  # the least of each group
RATINGS = 11  # more distinct ratings than that are put into ten groups of equal width
FEW = 5  # users: of fewer a bootstrap says nothing
OTHERS = 3  # baselines beside the run's model


class Groups(NamedTuple):
    """Groups of values, with what a model has in each.

    Attributes:
      judged: int [groups].
      mean: float64 [groups]; NaN where there is nothing.
      low, high: of the interval over users; NaN where there are fewer than `FEW`.
    """

    judged: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


def history_group(earlier: np.ndarray) -> np.ndarray:
    """int64 [n]: the group of `HISTORY` of users with so many earlier interactions, int [n]."""
    return np.searchsorted(HISTORY, earlier, side="right") - 1


def history_names() -> list[str]:
    """A name for each group of `HISTORY`."""
    names = []
    for least, following in zip(HISTORY, (*HISTORY[1:], None), strict=True):
        most = None if following is None else following - 1
        names.append(f"{least}+" if most is None else str(least) if most == least else f"{least}\u2013{most}")
    return names


def earlier_interactions(run: Finished, judged: Judged) -> np.ndarray:
    """int64 [n]: how many interactions the user of each value had: before it, or in train for the list of a user."""
    user = np.asarray(run.interactions.user)
    if judged.row is not None:
        return occurrences(user)[judged.row]
    return np.bincount(user[: run.train_end], minlength=run.interactions.num_users)[judged.user]


def grouped(judged: Judged, group: np.ndarray, num_groups: int) -> Groups:
    """A model's values by group, int [n]."""
    members = [np.flatnonzero(group == number) for number in range(num_groups)]
    values = [judged.values[rows] for rows in members]
    means = intervals.resampled_means([judged.user[rows] for rows in members], values)
    ranges = [intervals.interval(means[:, number]) for number in range(num_groups)]
    low, high = np.array(ranges).reshape(num_groups, 2).T
    few = np.array([len(np.unique(judged.user[rows])) < FEW for rows in members])
    low, high = np.where(few, math.nan, low), np.where(few, math.nan, high)
    mean = np.array([own.mean() if len(own) else math.nan for own in values])
    return Groups(np.array([len(own) for own in values]), mean, low, high)


def rating_groups(rating: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """int64 [n] and the groups' names: each rating is one, or ten of equal width where there are many ratings."""
    distinct, group = np.unique(rating, return_inverse=True)
    if len(distinct) <= RATINGS:
        return group, [f"{value:g}" for value in distinct]
    edges = np.linspace(distinct[0], distinct[-1], 11)
    group = np.clip(np.searchsorted(edges, rating, side="right") - 1, 0, 9)
    return group, [f"{low:.3g}\u2013{high:.3g}" for low, high in itertools.pairwise(edges)]


def by_rating(run: Finished) -> Section:
    """Squared error by the rating that was given."""
    way, model, title = run.way, run.results["model"], "Error by rating"
    own = run.judged(model, way, "mse")
    if own is None or own.row is None:
        return Section("by-rating", title, [_no_errors(run)])
    rating = np.asarray(run.interactions.rating)[own.row]
    group, names = rating_groups(rating)
    columns = [f"mean prediction of {model}"]
    try:
        predicted = read_lists(RunLayout(run.workdir).list_file(way))["predicted"]
        means = [f"{predicted[group == number].mean():.3f}" for number in range(len(names)) if (group == number).any()]
    except (UserError, KeyError, IndexError):
        columns, means = [], []
    figure = _figure(
        run,
        "by-rating-mse",
        f"Squared error ({way}) by the rating given",
        "mse",
        "rating given",
        (group, names),
        (columns, [means] if len(means) == len(names) else []),
    )
    sentences = [f"A model that says the mean to everybody errs most at both ends. Shaded: the interval of {model}."]
    return Section("by-rating", title, sentences, [figure])


def by_history(run: Finished) -> Section:
    """Errors and ranking by how many interactions a user had, from cold to warm."""
    way, model, title = run.way, run.results["model"], "Cold to warm: by a user's history"
    what = "in train" if way == "ranking" else "before the one that is judged"
    sentences = [
        f"History is the number of a user's interactions {what}. Shaded: the interval of {model}, where "
        f"there are at least {FEW} users."
    ]
    drawn = []
    ranking = run.metric if "@" in run.metric and "/" not in run.metric else _ranking_metric(run)
    for metric in ("mse", ranking):
        own = run.judged(model, way, metric) if metric else None
        if metric is None or own is None:
            continue
        group = history_group(earlier_interactions(run, own))
        heading = f"{'Squared error' if metric == 'mse' else metric} ({way}) by history"
        label = "earlier interactions"
        drawn.append(
            _figure(run, f"by-history-{len(drawn)}", heading, metric, label, (group, history_names()), ((), ()))
        )
    if not drawn:
        sentences = [f"The run keeps no {way} lists, so its figures cannot be split by history."]
    return Section("by-history", title, sentences, drawn)


def _no_errors(run: Finished) -> str:
    if run.way == "ranking":
        return f"{run.results['model']} only ranks: it predicts no ratings."
    if "mse" not in run.results["test"].get(run.way, {}):
        return "No rating of the test is predicted, so there is no error."
    path = RunLayout(run.workdir).list_file(run.way).relative_to(run.workdir)
    return f"The run keeps no {run.way} predictions ({path}), so its error cannot be split."


def _ranking_metric(run: Finished) -> str | None:
    names = run.results["test"].get(run.way, {})
    at = sorted((int(name[5:]) for name in names if name.startswith("ndcg@")), key=lambda cutoff: abs(cutoff - 10))
    return f"ndcg@{at[0]}" if at else None


def _figure(
    run: Finished,
    name: str,
    title: str,
    metric: str,
    label: str,
    groups: tuple[np.ndarray, list[str]],
    more: tuple[Sequence[str], Sequence[Sequence[str]]],
) -> Figure:
    """The run's model and the best baselines by group; `groups` of the model's values, `more` columns of the table."""
    way, model, (group, names) = run.way, run.results["model"], groups
    own = run.judged(model, way, metric)
    assert own is not None
    found = {model: grouped(own, group, len(names))}
    for other in run.best_others(way, metric, OTHERS):
        judged = run.judged(other, way, metric)
        if judged is not None and len(judged.values) == len(own.values):
            found[other] = grouped(judged, group, len(names))
    first = found[model]
    there = np.flatnonzero(first.judged)
    series = [
        figures.Series(
            one,
            values.mean[there].tolist(),
            values.low[there].tolist() if one == model else None,
            values.high[there].tolist() if one == model else None,
        )
        for one, values in found.items()
    ]
    ticks = [f"{names[number]}\n{_short(int(first.judged[number]))}" for number in there]
    better = "lower" if lower_is_better(metric) else "higher"
    svg = figures.lines(series, ticks, f"{label}; below: how many", f"{metric}, {better} is better")
    told = [number for number in there if not np.isnan(first.low[number])] or there
    worst, best = max(told, key=lambda number: first.mean[number]), min(told, key=lambda number: first.mean[number])
    thin = [names[number] for number in there if number not in told]
    description = (
        f"{metric} of {model} is highest at {names[worst]} ({first.mean[worst]:.3f}) and lowest at {names[best]} "
        f"({first.mean[best]:.3f})"
    )
    if thin:
        description += f" among the groups of at least {FEW} users; of so few as at {', '.join(thin)} it says little"
    rows = [
        (
            names[number],
            f"{first.judged[number]:,}",
            *(f"{values.mean[number]:.4f}" for values in found.values()),
            "-" if np.isnan(first.low[number]) else f"{first.low[number]:.4f} to {first.high[number]:.4f}",
            *(column[place] for column in more[1]),
        )
        for place, number in enumerate(there)
    ]
    header = (label, "judged", *found, f"95 % interval of {model}", *(more[0] if more[1] else ()))
    return Figure(name, title, f"{description}.", svg, Table(f"{title}; {intervals.METHOD}", header, rows))


def _short(count: int) -> str:
    return str(count) if count < 10_000 else f"{count / 1000:.0f}k" if count < 1_000_000 else f"{count / 1e6:.1f}M"
