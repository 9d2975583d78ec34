"""A finished run as its directory holds it: the configuration, the model's arrays, all that it has met."""

from __future__ import annotations

import pathlib
from typing import Any, NamedTuple

import jax
from flax.errors import FlaxError

from drex_jax.common.errors import UserError
from drex_jax.common.files import read_json
from drex_jax.models.protocol import Model, Params, States
from drex_jax.models.registry import entry_of
from drex_jax.runs import checkpoint
from drex_jax.runs.dataset import open_interactions
from drex_jax.runs.layout import RunLayout, results_of
from drex_jax.serving import update_log
from drex_jax.serving.interaction_log import InteractionLog
from drex_jax.training.settings import Settings, read_settings


class FinishedRun(NamedTuple):
    """The contents of a run directory. Letters: U users, I items, E row size.

    Attributes:
      folder: the directory.
      settings: the configuration.
      model: the model, made of its constants.
      params: the parameters that validation chose.
      states: all rows after the last update, [U, E] and [I, E].
      log: all its interactions, updates included.
      batches: the updates that were committed.
    """

    folder: pathlib.Path
    settings: Settings
    model: Model
    params: Params
    states: States
    log: InteractionLog
    batches: list[dict[str, Any]]


def settings_of(folder: pathlib.Path) -> Settings:
    """Read the configuration of a finished run.

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
    """Open the finished run in a directory; of several seeds, the first.

    Raises:
      UserError: there is none, it is damaged or of another version.
    """
    settings, layout = settings_of(folder), RunLayout(folder)
    if not layout.constants.exists():
        raise UserError(f"{folder} holds a run of an older version (no {layout.constants.name}); train it again")
    interactions, parts = open_interactions(settings, folder)
    model = entry_of(settings.model.name).load().from_constants(read_json(layout.constants, ()))
    arrays = checkpoint.load_arrays(layout.model)
    try:
        params, states = arrays.get("params", {}), States(**arrays["states"])
        _require_rows(layout.model, states, interactions.num_users, interactions.num_items)
    except (KeyError, TypeError, AttributeError, IndexError):
        raise UserError(f"{layout.model} is damaged: it should hold params and states") from None
    _require_arrays(layout, model, params, states)
    batches, saved = update_log.read(folder)
    log = InteractionLog(interactions, len(parts.train), None if saved is None else saved.since)
    if saved is not None:
        states = saved.states
        _require_rows(layout.updates, states, len(log.users), len(log.items))
    return FinishedRun(folder, settings, model, params, states, log, batches)


def _require_arrays(layout: RunLayout, model: Model, params: Params, states: States) -> None:
    """Refuse arrays that the model cannot answer from; nothing is computed."""

    def answers(params: Params, states: States) -> Any:
        user, item = states.user[:1], states.item[:1]
        return model.rank(params, user, item), model.score(params, user, item), model.cold_start(params, states)

    try:
        jax.eval_shape(answers, params, states)
    except (FlaxError, TypeError, ValueError, LookupError, AttributeError):
        raise UserError(
            f"{layout.model}: its arrays are not of the model that {layout.constants.name} records; damaged"
        ) from None


def _require_rows(path: pathlib.Path, states: States, users: int, items: int) -> None:
    found = [side.shape[0] for side in states]
    if found != [users, items]:
        raise UserError(
            f"{path} has rows of {found[0]:,} users and {found[1]:,} items, and the history has {users:,} and "
            f"{items:,}: they are not of one run"
        )
