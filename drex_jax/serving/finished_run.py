"""A finished run as its directory holds it: the configuration, the model's arrays, all that it has met."""

from __future__ import annotations

import pathlib
from typing import Any, NamedTuple

import jax
from flax.errors import FlaxError

from drex_jax.common.errors import UserError
from drex_jax.common.files import read_json
from drex_jax.models import scoring
from drex_jax.models.protocol import Params, States
from drex_jax.models.scoring import Scorer
from drex_jax.runs import checkpoint
from drex_jax.runs.dataset import open_interactions
from drex_jax.runs.layout import RunLayout, results_of
from drex_jax.serving import update_log
from drex_jax.serving.interaction_log import InteractionLog
from drex_jax.training.settings import Settings, read_settings


class FinishedRun(NamedTuple):
    """What a run directory holds. Letters: U users, I items, E row size.

    Attributes:
      folder: the directory.
      settings: the configuration.
      scorer: of its model.
      params: the parameters that validation chose.
      carry: everyone's rows after the last update, [U, E] and [I, E].
      log: all that it has met, updates included.
      batches: the updates that were committed.
    """

    folder: pathlib.Path
    settings: Settings
    scorer: Scorer
    params: Params
    carry: States
    log: InteractionLog
    batches: list[dict[str, Any]]


def settings_of(folder: pathlib.Path) -> Settings:
    """The configuration of a finished run.

    Raises:
      UserError: there is none, it is not finished, or it is of another version.
    """
    layout = RunLayout(folder)
    if not layout.config.exists():
        raise UserError(
            f"{folder} holds no run (no {layout.config.name}); python -m drex_jax.main --config=... makes one"
        )
    settings = read_settings(layout.config)
    if not layout.results.exists():
        raise UserError(f"{folder} holds a run that is not finished (no {layout.results.name}); run its command again")
    results_of(folder)
    return settings


def open_run(folder: pathlib.Path) -> FinishedRun:
    """The finished run in a directory, of several seeds the first.

    Raises:
      UserError: there is none, it is damaged or of another version.
    """
    settings, layout = settings_of(folder), RunLayout(folder)
    if not layout.scorer.exists():
        raise UserError(f"{folder} holds a run of an older version (no {layout.scorer.name}); train it again")
    interactions, parts = open_interactions(settings, folder)
    scorer = scoring.scorer(settings.model.name, read_json(layout.scorer, ()))
    arrays = checkpoint.load_arrays(layout.model)
    try:
        params, carry = arrays.get("params", {}), States(**arrays["carry"])
        _require_rows(layout.model, carry, interactions.num_users, interactions.num_items)
    except (KeyError, TypeError, AttributeError, IndexError):
        raise UserError(f"{layout.model} is damaged: it should hold params and carry") from None
    _require_arrays(layout, scorer, params, carry)
    batches, saved = update_log.read(folder)
    log = InteractionLog(interactions, len(parts.train), None if saved is None else saved.since)
    if saved is not None:
        carry = saved.carry
        _require_rows(layout.updates, carry, len(log.users), len(log.items))
    return FinishedRun(folder, settings, scorer, params, carry, log, batches)


def _require_arrays(layout: RunLayout, scorer: Scorer, params: Params, carry: States) -> None:
    """Tries, without computing anything, whether the arrays are such that the scorer can answer from them."""

    def answers(params: Params, carry: States) -> Any:
        user, item = carry.user[:1], carry.item[:1]
        return scorer.rank(params, user, item), scorer.pairs(params, user, item), scorer.newcomers(params, carry)

    try:
        jax.eval_shape(answers, params, carry)
    except (FlaxError, TypeError, ValueError, LookupError, AttributeError):
        raise UserError(
            f"{layout.model}: its arrays are not of the model that {layout.scorer.name} records; damaged"
        ) from None


def _require_rows(path: pathlib.Path, carry: States, users: int, items: int) -> None:
    found = [side.shape[0] for side in carry]
    if found != [users, items]:
        raise UserError(
            f"{path} has rows of {found[0]:,} users and {found[1]:,} items, and the history has {users:,} and "
            f"{items:,}: they are not of one run"
        )
