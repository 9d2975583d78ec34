"""Search for settings: trials train on train and are compared on validation; the test part is never read."""

from __future__ import annotations

import dataclasses
import logging
import pathlib
import shlex
from typing import Any, NamedTuple

from drex_jax.common.errors import UserError
from drex_jax.common.files import write_text
from drex_jax.common.tables import format_table
from drex_jax.config.tree import to_json
from drex_jax.devices import processes
from drex_jax.metrics.names import lower_is_better
from drex_jax.runs.layout import RunLayout
from drex_jax.runs.lock import sole_writer
from drex_jax.training import experiment, registry, search_space, tpe
from drex_jax.training.loop import Fitted
from drex_jax.training.search import Constants, Propose, Trial, in_order, search_trials
from drex_jax.training.settings import Settings, changed, check_agreement, read_settings

LOGGER = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Tuned:
    """A finished search.

    Attributes:
      trials: all trials, in the order they ran; the first has the configuration's own settings.
      best: the best trial on validation; of equal ones, the earlier.
      metric: metric of validation by which trials are compared.
      notice: a sentence for the user if the number of trials is not `tune.trials`; None if it is.
    """

    trials: list[Trial]
    best: Trial
    metric: str
    notice: str | None


def search_settings(config: Settings, workdir: pathlib.Path) -> Tuned:
    """Run the trials of `config.tune` on the first seed, or continue a search that was stopped.

    The data are prepared once, in `workdir`, for all trials. Each trial has `trials/N/` with its `config.json`,
    `metrics.jsonl` and `trial.json`. No figure of the test part is computed.

    Args:
      config: resolved and checked configuration.
      workdir: directory of the search; if it exists, it must have the same configuration.

    Raises:
      UserError: if the space, the data or the configuration has a mistake, if every trial failed, or if another
        process searches in `workdir`.
      Stopped: SIGTERM or SIGINT came; everything is saved, and the same call continues.
    """
    plan = _plan(config)
    with sole_writer(workdir):
        return _tuned(config, workdir, plan)


class _Plan(NamedTuple):
    """The number of trials, what proposes their settings, and `Tuned.notice`."""

    trials: int
    propose: Propose
    notice: str | None


def _plan(config: Settings) -> _Plan:
    if config.tune.search == "tpe":
        proposer = tpe.Proposer(config)
        return _Plan(proposer.count, proposer, search_space.shortage(proposer.count, config.tune.trials))
    settings, notice = search_space.candidates(config)
    return _Plan(len(settings), in_order(settings), notice)


def _tuned(config: Settings, workdir: pathlib.Path, plan: _Plan) -> Tuned:
    check_agreement(config, workdir)
    layout = RunLayout(workdir)
    if layout.config.exists():
        begun = read_settings(layout.config).tune
        if (begun.space, begun.search) != (config.tune.space, config.tune.search):
            raise UserError(
                f"{workdir} holds a search of another space ({begun.search}: {'; '.join(begun.space) or 'nothing'}); "
                "give another --workdir"
            )
    context = registry.context(config)  # before the data are read: missing devices end the run early
    dataset = experiment.prepare_run(config, workdir, context.cache)
    if plan.notice:
        LOGGER.info("%s", plan.notice)

    def run_trial(folder: pathlib.Path, settings: Constants) -> Fitted:
        own = changed(config, settings)
        if processes.is_main_process():
            write_text(RunLayout(folder).config, to_json(own))
        trial = experiment.Experiment(own, dataset, registry.context(own), layout)
        return trial.fit_trial(own.model.name, folder)

    lower = lower_is_better(config.train.selection)
    trials, best = search_trials(layout.trials, plan.trials, plan.propose, run_trial, lower_is_better=lower)
    notice = plan.notice or search_space.shortage(len(trials), config.tune.trials)
    return Tuned(trials, best, config.train.selection, notice)


def format_tuned(tuned: Tuned) -> str:
    """Return a table of all trials, best first and failed ones last, and the flags for the best settings."""
    sign = 1 if lower_is_better(tuned.metric) else -1
    done = sorted(
        (trial for trial in tuned.trials if trial.selection is not None),
        key=lambda trial: (sign * trial.selection.value, trial.number) if trial.selection else (),
    )
    failed = [trial for trial in tuned.trials if trial.selection is None]
    fields = list(tuned.best.constants)
    rows = [["trial", tuned.metric, "epoch", "seconds", *fields]]
    rows += [[*_figures(trial), *(str(trial.constants[field]) for field in fields)] for trial in [*done, *failed]]
    lines = format_table(rows)
    lines += [f"trial {trial.number} failed: {trial.failure}" for trial in failed]
    lines += [tuned.notice] if tuned.notice else []
    return "\n".join([*lines, "", f"the best on validation is trial {tuned.best.number}:", overrides(tuned.best)])


def overrides(trial: Trial) -> str:
    """Return a trial's settings as flags to append to the main command."""
    return shlex.join(f"--config.{field}={_word(value)}" for field, value in trial.constants.items())


def _figures(trial: Trial) -> list[str]:
    if trial.selection is None:
        return [str(trial.number), "failed", "-", "-"]
    seconds = trial.timing.get("train_seconds")
    return [
        str(trial.number),
        f"{trial.selection.value:.4f}",
        str(trial.selection.epoch),
        "-" if seconds is None else f"{seconds:.1f}",
    ]


def _word(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
