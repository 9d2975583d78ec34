"""Trials of settings, compared on validation. Each has its own folder; a search that was stopped continues."""

from __future__ import annotations

import dataclasses
import logging
import math
import pathlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from drex_jax.common.errors import DivergedError, UserError
from drex_jax.common.files import read_json
from drex_jax.devices import processes
from drex_jax.runs.layout import RunLayout
from drex_jax.runs.selection import Selection
from drex_jax.training import loop

LOGGER = logging.getLogger(__name__)
TRIAL_KEYS = ("constants", "selection")

Constants = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Trial:
    """A finished trial.

    Attributes:
      number: position in the search, from 0.
      constants: settings of the trial, by name.
      selection: best validation value and its epoch; None if the trial failed.
      failure: why the trial failed; None if it did not.
      timing: as in `loop.Fitted`; empty if the trial failed.
    """

    number: int
    constants: Constants
    selection: Selection | None
    failure: str | None
    timing: Constants


Propose = Callable[[Sequence[Trial]], Constants | None]


def in_order(candidates: Sequence[Constants]) -> Propose:
    """Return the proposals of a search whose settings are known before it starts."""
    return lambda trials: candidates[len(trials)]


def search_trials(
    folder: pathlib.Path,
    count: int,
    propose: Propose,
    run_trial: Callable[[pathlib.Path, Constants], loop.Fitted],
    *,
    lower_is_better: bool,
) -> tuple[list[Trial], Trial]:
    """Run trials one after another and find the best on validation; of equal ones, the earlier.

    A trial has a folder named by its number. Its record `trial.json`, and what `run_trial` wrote there, are kept; its
    checkpoints are removed when it ends. Finished trials are read back, so a search that was stopped continues. A
    trial whose loss or validation value is not finite is kept as failed, and the search continues.

    Args:
      folder: parent of the trials' folders.
      count: number of trials, fewer if `propose` ends before.
      propose: the next trial's settings, as values of JSON by name, given the trials so far; None ends the search.
        The same trials must give the same settings: that is what makes a search resumable.
      run_trial: trains with given settings in a given folder, from the checkpoint of an interrupted start if there is
        one.
      lower_is_better: direction of the metric.

    Returns:
      All trials in order, and the best of them.

    Raises:
      UserError: if all trials failed, or a finished trial in `folder` is damaged or has other settings.
      Stopped: SIGTERM or SIGINT came; the same call continues.
    """
    trials: list[Trial] = []
    for number in range(count):
        constants = propose(trials)
        if constants is None:
            break
        own = RunLayout(folder / str(number))
        if not processes.exists_on_main_process(own.trial):
            LOGGER.info("trial %d of %d: %s", number + 1, count, _listed(constants))
            processes.write_json(own.trial, _tried(own.folder, constants, run_trial))
        if processes.is_main_process():  # also those of a trial that was stopped right here
            shutil.rmtree(own.checkpoints, ignore_errors=True)
        trials.append(_read(own.trial, number, constants))
        LOGGER.info("trial %d of %d: %s", number + 1, count, _outcome(trials[-1]))
    sign = 1 if lower_is_better else -1
    values = [(sign * trial.selection.value, trial.number) for trial in trials if trial.selection is not None]
    if not values:
        raise UserError(f"{folder}: all {len(trials)} trials failed; the first: {trials[0].failure}")
    return trials, trials[min(values)[1]]


def _tried(
    folder: pathlib.Path, constants: Constants, run_trial: Callable[[pathlib.Path, Constants], loop.Fitted]
) -> dict[str, Any]:
    """Run a trial and return the contents of its `trial.json`."""
    try:
        fitted = run_trial(folder, constants)
    except DivergedError as error:  # any other error would fail every trial alike
        return {"constants": constants, "selection": None, "failure": str(error), "timing": {}}
    metric, value = fitted.selection.metric, fitted.selection.value
    finite = math.isfinite(value)
    return {
        "constants": constants,
        "selection": dataclasses.asdict(fitted.selection) if finite else None,
        "failure": None if finite else f"validation {metric} is {value}",
        "timing": fitted.timing,
    }


def _read(path: pathlib.Path, number: int, constants: Constants) -> Trial:
    record = read_json(path, TRIAL_KEYS)
    if record["constants"] != dict(constants):
        raise UserError(
            f"{path} is of other settings ({_listed(record['constants'])}) than now ({_listed(constants)}); "
            "give another --workdir"
        )
    try:
        selection = None if record["selection"] is None else Selection(**record["selection"])
    except TypeError:
        raise UserError(f"{path}: damaged; its selection should have a metric, a value and an epoch") from None
    return Trial(number, record["constants"], selection, record.get("failure"), record.get("timing") or {})


def _listed(constants: Constants) -> str:
    return ", ".join(f"{name}={value}" for name, value in constants.items()) or "the settings as they are"


def _outcome(trial: Trial) -> str:
    if trial.selection is None:
        return f"failed, {trial.failure}"
    return f"validation {trial.selection.metric} {trial.selection.value:.4f} at epoch {trial.selection.epoch}"
