"""Trials of settings, judged on validation: each in a folder of its own, all kept, any of them continued."""

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
    """One trial, finished.

    Attributes:
      number: its place among the candidates, from 0.
      constants: the settings it was of, by name.
      selection: what validation said of it; None where it failed.
      failure: why it has no selection; None where it has.
      timing: as in `fit.Fitted`; empty where it failed.
    """

    number: int
    constants: Constants
    selection: Selection | None
    failure: str | None
    timing: Constants


def search_trials(
    folder: pathlib.Path,
    candidates: Sequence[Constants],
    run_trial: Callable[[pathlib.Path, Constants], loop.Fitted],
    *,
    lower_is_better: bool,
) -> tuple[list[Trial], Trial]:
    """Tries all candidates in order and finds the one that does best on validation; of equals, the earlier.

    A trial keeps its `trial.json`, and what else `run_trial` wrote, in a folder named by its number; checkpoints go
    when it ends. What is finished is read back. A trial whose loss or validation is not finite is kept as failed, and
    the search goes on.

    Args:
      folder: of the trials' folders.
      candidates: settings as JSON can hold them, by name.
      run_trial: trains one candidate in its folder, going on from what an interrupted start left there.
      lower_is_better: of the values that validation gives.

    Returns:
      All trials in order, and the best of them.

    Raises:
      UserError: all of them failed, or a finished trial in `folder` is damaged or of other settings.
      Stopped: SIGTERM or SIGINT came; the same call continues.
    """
    trials = []
    for number, constants in enumerate(candidates):
        own = RunLayout(folder / str(number))
        if not processes.exists_on_main_process(own.trial):
            LOGGER.info("trial %d of %d: %s", number + 1, len(candidates), _listed(constants))
            processes.write_json(own.trial, _tried(own.folder, constants, run_trial))
        if processes.is_main_process():  # also those of a trial that was stopped right here
            shutil.rmtree(own.checkpoints, ignore_errors=True)
        trials.append(_read(own.trial, number, constants))
        LOGGER.info("trial %d of %d: %s", number + 1, len(candidates), _outcome(trials[-1]))
    sign = 1 if lower_is_better else -1
    values = [(sign * trial.selection.value, trial.number) for trial in trials if trial.selection is not None]
    if not values:
        raise UserError(f"{folder}: all {len(trials)} trials failed; the first: {trials[0].failure}")
    return trials, trials[min(values)[1]]


def _tried(
    folder: pathlib.Path, constants: Constants, run_trial: Callable[[pathlib.Path, Constants], loop.Fitted]
) -> dict[str, Any]:
    """What `trial.json` is to hold."""
    try:
        fitted = run_trial(folder, constants)
    except DivergedError as error:  # any other mistake is one that no candidate makes good
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
