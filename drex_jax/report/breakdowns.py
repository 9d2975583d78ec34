"""The breakdown sections: errors by the given rating, and by the length of the user's history."""

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

HISTORY = (0, 1, 3, 6, 11, 21)  # the lower bounds of the groups
RATINGS = 11  # more distinct ratings are put into ten groups of equal width
FEW = 5  # with fewer users a bootstrap interval means nothing
OTHERS = 3  # baselines shown beside the run's model


class Groups(NamedTuple):
    """The test values of a model by group.

    Attributes:
      judged: the number of values, int [groups].
      mean: float64 [groups]; NaN for an empty group.
      low, high: the bootstrap interval over users, float64 [groups]; NaN for fewer than `FEW` users.
    """

    judged: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


def history_group(earlier: np.ndarray) -> np.ndarray:
    """Return the group of `HISTORY` of each number of earlier interactions, int [n], as int64 [n]."""
    return np.searchsorted(HISTORY, earlier, side="right") - 1


def history_names() -> list[str]:
    """Return a name for each group of `HISTORY`, such as 3–5."""
    names = []
    for least, following in zip(HISTORY, (*HISTORY[1:], None), strict=True):
        most = None if following is None else following - 1
        names.append(f"{least}+" if most is None else str(least) if most == least else f"{least}\u2013{most}")
    return names


def earlier_interactions(run: Finished, judged: Judged) -> np.ndarray:
    """Return how many earlier interactions the user of each value had, int64 [n].

    For one list a user, the interactions in train are counted.
    """
    user = np.asarray(run.interactions.user)
    if judged.row is not None:
        return occurrences(user)[judged.row]
    return np.bincount(user[: run.train_end], minlength=run.interactions.num_users)[judged.user]


def grouped(judged: Judged, group: np.ndarray, num_groups: int) -> Groups:
    """Return a model's values by group. `group`: int [n], from 0 to `num_groups` - 1."""
    members = [np.flatnonzero(group == number) for number in range(num_groups)]
    values = [judged.values[rows] for rows in members]
    means = intervals.resampled_means([judged.user[rows] for rows in members], values)
    ranges = [intervals.interval(means[:, number]) for number in range(num_groups)]
    low, high = np.array(ranges).reshape(num_groups, 2).T
    few = np.array([len(np.unique(judged.user[rows])) < FEW for rows in members])
    low, high = np.where(few, math.nan, low), np.where(few, math.nan, high)
    mean = np.array([one.mean() if len(one) else math.nan for one in values])
    return Groups(np.array([len(one) for one in values]), mean, low, high)


def rating_groups(rating: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Return the group of each rating, int64 [n], and the names of the groups.

    Each distinct rating is a group; more than `RATINGS` of them are put into ten groups of equal width.
    """
    distinct, group = np.unique(rating, return_inverse=True)
    if len(distinct) <= RATINGS:
        return group, [f"{value:g}" for value in distinct]
    edges = np.linspace(distinct[0], distinct[-1], 11)
    group = np.clip(np.searchsorted(edges, rating, side="right") - 1, 0, 9)
    return group, [f"{low:.3g}\u2013{high:.3g}" for low, high in itertools.pairwise(edges)]


def by_rating(run: Finished) -> Section:
    """Return the section with the squared error by the given rating."""
    way, model, title = run.way, run.results["model"], "Error by rating"
    judged = run.judged(model, way, "mse")
    if judged is None or judged.row is None:
        return Section("by-rating", title, [_no_errors(run)])
    rating = np.asarray(run.interactions.rating)[judged.row]
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
    sentences = [
        f"A model that always predicts the mean has its largest errors at both ends. Shaded: the interval of {model}."
    ]
    return Section("by-rating", title, sentences, [figure])


def by_history(run: Finished) -> Section:
    """Return the section with error and ranking metrics by the number of the user's earlier interactions."""
    way, model, title = run.way, run.results["model"], "From cold start to long histories"
    what = "in train" if way == "ranking" else "before the one that is evaluated"
    sentences = [
        f"History is the number of a user's interactions {what}. Shaded: the interval of {model}, where "
        f"there are at least {FEW} users."
    ]
    drawn = []
    ranking = run.metric if "@" in run.metric and "/" not in run.metric else _ranking_metric(run)
    for metric in ("mse", ranking):
        judged = run.judged(model, way, metric) if metric else None
        if metric is None or judged is None:
            continue
        group = history_group(earlier_interactions(run, judged))
        heading = f"{'Squared error' if metric == 'mse' else metric} ({way}) by history"
        label = "earlier interactions"
        drawn.append(
            _figure(run, f"by-history-{len(drawn)}", heading, metric, label, (group, history_names()), ((), ()))
        )
    if not drawn:
        sentences = [f"The run saved no {way} lists, so its results cannot be split by history."]
    return Section("by-history", title, sentences, drawn)


def _no_errors(run: Finished) -> str:
    if run.way == "ranking":
        return f"{run.results['model']} only ranks: it predicts no ratings."
    if "mse" not in run.results["test"].get(run.way, {}):
        return "No test rating is predicted, so there is no error."
    path = RunLayout(run.workdir).list_file(run.way).relative_to(run.workdir)
    return f"The run saved no {run.way} predictions ({path}), so its error cannot be split."


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
    """Return the figure of the run's model and the best baselines by group.

    `groups`: the group of each value of the model, and the groups' names; `more`: further columns of the table.
    """
    way, model, (group, names) = run.way, run.results["model"], groups
    judged = run.judged(model, way, metric)
    assert judged is not None
    by_model = {model: grouped(judged, group, len(names))}
    for other in run.best_others(way, metric, OTHERS):
        others = run.judged(other, way, metric)
        if others is not None and len(others.values) == len(judged.values):
            by_model[other] = grouped(others, group, len(names))
    first = by_model[model]
    there = np.flatnonzero(first.judged)
    series = [
        figures.Series(
            one,
            values.mean[there].tolist(),
            values.low[there].tolist() if one == model else None,
            values.high[there].tolist() if one == model else None,
        )
        for one, values in by_model.items()
    ]
    ticks = [f"{names[number]}\n{_short(int(first.judged[number]))}" for number in there]
    better = "lower" if lower_is_better(metric) else "higher"
    svg = figures.lines(series, ticks, f"{label} (below: number of values)", f"{metric}, {better} is better")
    told = [number for number in there if not np.isnan(first.low[number])] or there
    worst, best = max(told, key=lambda number: first.mean[number]), min(told, key=lambda number: first.mean[number])
    thin = [names[number] for number in there if number not in told]
    description = (
        f"{metric} of {model} is highest at {names[worst]} ({first.mean[worst]:.3f}) and lowest at {names[best]} "
        f"({first.mean[best]:.3f})"
    )
    if thin:
        description += f" among groups of at least {FEW} users; {', '.join(thin)} have fewer users"
    rows = [
        (
            names[number],
            f"{first.judged[number]:,}",
            *(f"{values.mean[number]:.4f}" for values in by_model.values()),
            "-" if np.isnan(first.low[number]) else f"{first.low[number]:.4f} to {first.high[number]:.4f}",
            *(column[index] for column in more[1]),
        )
        for index, number in enumerate(there)
    ]
    header = (label, "values", *by_model, f"95 % interval of {model}", *(more[0] if more[1] else ()))
    return Figure(name, title, f"{description}.", svg, Table(f"{title}; {intervals.METHOD}", header, rows))


def _short(count: int) -> str:
    return str(count) if count < 10_000 else f"{count / 1000:.0f}k" if count < 1_000_000 else f"{count / 1e6:.1f}M"
