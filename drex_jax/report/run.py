"""A finished run as the report reads it: its results, its interactions, and its test values by list."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from typing import Any

import numpy as np

from drex_jax.common.errors import UserError
from drex_jax.data.interactions import Interactions
from drex_jax.evaluation import comparison
from drex_jax.metrics.names import lower_is_better
from drex_jax.runs.dataset import open_interactions
from drex_jax.runs.layout import RunLayout, results_of
from drex_jax.serving.finished_run import settings_of
from drex_jax.training.settings import Settings


@dataclasses.dataclass(frozen=True)
class Judged:
    """The test values of one model by list, averaged over its seeds.

    Attributes:
      values: float64 [n].
      user: int [n], the user of each value.
      row: int [n], the interaction of each value in learning order; None if there is one list a user.
    """

    values: np.ndarray
    user: np.ndarray
    row: np.ndarray | None


class Finished:
    """A finished run.

    Attributes:
      workdir: its directory.
      results: the contents of `results.json`.
      config: its configuration.
      interactions: all interactions in learning order.
      train_end: the number of train interactions.
    """

    def __init__(self, workdir: pathlib.Path):
        """Open the run. Raises UserError if the directory holds no finished run, or a damaged one."""
        self.workdir = workdir
        self.config: Settings = settings_of(workdir)
        self.results: dict[str, Any] = results_of(workdir)
        self.interactions: Interactions
        self.interactions, parts = open_interactions(self.config, workdir)
        self.train_end = len(parts.train)
        self._judged: dict[tuple[str, str, str], Judged | None] = {}

    @functools.cached_property
    def models(self) -> dict[str, dict[str, Any]]:
        """The results by model name; the run's own model is first."""
        return {self.results["model"]: self.results, **self.results["baselines"]}

    @functools.cached_property
    def item_numbers(self) -> dict[str, int]:
        """The number of each item by its id."""
        return {name: number for number, name in enumerate(self.interactions.item_ids)}

    def layout(self, name: str) -> RunLayout:
        """The paths of the model `name` of this run."""
        layout = RunLayout(self.workdir)
        return layout if name == self.results["model"] else layout.baseline(name)

    @property
    def way(self) -> str:
        """The main way of evaluating: the first of `comparison.WAYS` that the run has."""
        ways = self.results["test"]
        return next((way for way in comparison.WAYS if way in ways), next(iter(ways), ""))

    @property
    def metric(self) -> str:
        """The main metric: the one that selected the epoch, if test has it."""
        metrics = self.results["test"].get(self.way, {})
        selected = self.results.get("selection", {}).get("metric", "")
        return selected if selected in metrics else next((name for name in metrics if name != "lists"), "")

    def judged(self, name: str, way: str, metric: str) -> Judged | None:
        """Return the test values of a model; None if the run did not save lists with this metric."""
        if (name, way, metric) not in self._judged:
            self._judged[name, way, metric] = self._read(name, way, metric)
        return self._judged[name, way, metric]

    def _read(self, name: str, way: str, metric: str) -> Judged | None:
        if metric not in comparison.ERRORS and ("@" not in metric or "/" in metric):
            return None
        try:
            run = comparison.open_run(self.layout(name).folder)
            values, keys = comparison.values_of(run, way, metric)
        except UserError:
            return None
        row = keys.get("row", keys.get("interaction"))
        user = keys["user"] if "user" in keys else np.asarray(self.interactions.user)[keys["row"]]
        return Judged(values.mean(0), user, row)

    def best_others(self, way: str, metric: str, count: int) -> list[str]:
        """Return the `count` best baselines by a metric among those whose lists are saved, the best first."""
        sign = 1 if lower_is_better(metric) else -1
        values = {
            name: entry["test"][way][metric]
            for name, entry in self.results["baselines"].items()
            if entry["test"].get(way, {}).get(metric) is not None and self.layout(name).lists.exists()
        }
        return sorted(values, key=lambda name: sign * values[name])[:count]
