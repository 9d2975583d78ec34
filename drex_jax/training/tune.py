"""Search over the space that a configuration declares: trained on train, judged on validation, blind to test."""

from __future__ import annotations

import dataclasses
import logging
import pathlib
import shlex
from typing import Any

from drex_jax.common.errors import UserError
from drex_jax.common.files import write_text
from drex_jax.config.tree import to_json
from drex_jax.devices import processes
from drex_jax.metrics.names import lower_is_better
from drex_jax.runs.layout import RunLayout
from drex_jax.runs.lock import sole_writer
from drex_jax.training import experiment, registry, search_space
from drex_jax.training.loop import Fitted
from drex_jax.training.search import Constants, Trial, search_trials
from drex_jax.training.settings import Settings, read_settings

LOGGER = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Tuned:
    """A finished search.

    Attributes:
      trials: all of them, in the order they were run; the first is of the configuration as it is.
      best: the one that does best on validation; of equals, the earlier.
      metric: what validation was asked for.
      notice: what `tune.trials` leaves out, or does not need; None where it is met.
    """

    trials: list[Trial]
    best: Trial
    metric: str
    notice: str | None


def tune(config: Settings, workdir: pathlib.Path) -> Tuned:
    """Tries the settings that `config.tune` asks for on the first seed; goes on where an earlier start was stopped.

    The data are prepared once, in `workdir`, for all trials. Each trial has `trials/N/` with its `config.json`,
    `metrics.jsonl` and `trial.json`. No figure of the test part is computed.

    Args:
      config: resolved and checked.
      workdir: the search's own directory; one that exists must be of the same configuration.

    Raises:
      UserError: a mistake in the space, the data or the configuration, every trial failed, or another process
        searches there.
      Stopped: SIGTERM or SIGINT; everything is saved.
    """
    candidates = search_space.candidates(config)
    with sole_writer(workdir):
        return _tuned(config, workdir, candidates)


def _tuned(config: Settings, workdir: pathlib.Path, candidates: search_space.Candidates) -> Tuned:
    experiment.check_agreement(config, workdir)
    layout = RunLayout(workdir)
    if layout.config.exists():
        begun = read_settings(layout.config).tune
        if (begun.space, begun.search) != (config.tune.space, config.tune.search):
            raise UserError(
                f"{workdir} holds a search of another space ({begun.search}: {'; '.join(begun.space) or 'nothing'}); "
                "give another --workdir"
            )
    context = registry.context(config)  # devices that cannot be had are told of before the data are read
    dataset = experiment.begin(config, workdir, context.cache)
    if candidates.notice:
        LOGGER.info("%s", candidates.notice)

    def run_trial(folder: pathlib.Path, settings: Constants) -> Fitted:
        own = search_space.overridden(config, settings)
        if processes.is_main_process():
            write_text(RunLayout(folder).config, to_json(own))
        return experiment.fit_trial(own.model.name, own, dataset, registry.context(own), folder)

    lower = lower_is_better(config.train.selection)
    trials, best = search_trials(layout.trials, candidates.settings, run_trial, lower_is_better=lower)
    return Tuned(trials, best, config.train.selection, candidates.notice)


def format_tuned(tuned: Tuned) -> str:
    """A table of all trials, the best first, those that failed last; then the flags that give the best settings."""
    sign = 1 if lower_is_better(tuned.metric) else -1
    done = sorted(
        (trial for trial in tuned.trials if trial.selection is not None),
        key=lambda trial: (sign * trial.selection.value, trial.number) if trial.selection else (),
    )
    failed = [trial for trial in tuned.trials if trial.selection is None]
    fields = list(tuned.best.constants)
    rows = [["trial", tuned.metric, "epoch", "seconds", *fields]]
    rows += [[*_figures(trial), *(str(trial.constants[field]) for field in fields)] for trial in [*done, *failed]]
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines += [f"trial {trial.number} failed: {trial.failure}" for trial in failed]
    lines += [tuned.notice] if tuned.notice else []
    return "\n".join([*lines, "", f"the best on validation is trial {tuned.best.number}:", overrides(tuned.best)])


def overrides(trial: Trial) -> str:
    """The flags that give a configuration a trial's settings, to append to the main command."""
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
