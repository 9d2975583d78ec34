"""A finished run in memory that goes on: what it has learned since it was loaded, and what of that is saved."""

from __future__ import annotations

import contextlib
import functools
import os
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from drex_jax.common.errors import UserError
from drex_jax.common.side import Side
from drex_jax.models import scoring
from drex_jax.models.protocol import States
from drex_jax.serving.finished_run import FinishedRun
from drex_jax.serving.lists import Lists
from drex_jax.serving.rows import CheckedRows, Refusal
from drex_jax.serving.saving import save_run
from drex_jax.serving.update_log import PendingUpdate
from drex_jax.serving.updaters import CannotUpdateError, Updater, updater_for


class UpdateReport(NamedTuple):
    """The result of `Recommender.update`.

    Attributes:
      applied: number of rows that were applied.
      refused: the other rows, in their order.
    """

    applied: int
    refused: list[Refusal]


class LiveRun:
    """A run with the states of its users and items now. Letters: n users or items, I items, E row size.

    Attributes:
      run: the run as it was loaded or last saved; its log grows with updates.
      is_view: True for a view of an earlier moment, which cannot be updated or saved.
    """

    def __init__(self, run: FinishedRun, is_view: bool = False):
        self.run, self.is_view = run, is_view
        states = States(jnp.asarray(run.states.user), jnp.asarray(run.states.item))
        self._states: States | None = states  # None: to be taken from the updater
        self._cold_start = dict(zip(Side, run.model.cold_start(run.params, states), strict=True))
        self._pending: PendingUpdate | None = PendingUpdate()  # None: an update was interrupted

    @functools.cached_property
    def updater(self) -> Updater:
        """Applies new interactions to the run.

        Raises:
          CannotUpdateError: the model cannot be updated.
        """
        return updater_for(self.run)

    @property
    def updater_or_none(self) -> Updater | None:
        """The updater; None if the model cannot be updated."""
        with contextlib.suppress(CannotUpdateError):
            return self.updater
        return None

    @property
    def states(self) -> States:
        """The states of all users and items, on the device; later updates do not change these arrays.

        Raises:
          UserError: an update was interrupted.
        """
        self.pending  # noqa: B018 (raises)
        if self._states is None:
            now = self.updater.states
            self._states = States(jnp.array(now.user), jnp.array(now.item))  # a copy: the updater changes its arrays
        return self._states

    def rows(self, numbers: np.ndarray, side: Side) -> jax.Array:
        """Return the rows [n, E] of users or of items by number; the cold-start row for number -1."""
        gather = scoring.gather_user_rows if side is Side.USER else scoring.gather_rows
        return gather(getattr(self.states, side), self._cold_start[side], numbers)

    def lists(self) -> Lists:
        """Return what makes lists of recommendations as of now."""
        run = self.run
        sizes = len(run.log), len(run.log.items)
        return Lists(
            run.model, run.params, self.states, self._cold_start[Side.USER], run.log, *sizes, met_alone=self.is_view
        )

    @property
    def pending(self) -> PendingUpdate:
        """What was applied since the last commit.

        Raises:
          UserError: an update was interrupted.
        """
        if self._pending is None:
            raise UserError("an update was interrupted half way: load the run again, which is as it was, and repeat it")
        return self._pending

    def require_present(self) -> None:
        """Raise `UserError` if this is a view of an earlier moment."""
        if self.is_view:
            raise UserError("a view of an earlier moment cannot be updated or saved")

    def batch_of(self, sha256: str) -> str:
        """Return in which batch a table was applied, as words of a message; empty if it was not."""
        if sha256 in self.pending.sha256:
            return "and not saved yet"
        found = (batch for batch in self.run.batches if sha256 in batch["sha256"])
        return next((f"as batch {batch['batch']} at {batch.get('at')}" for batch in found), "")

    def apply(self, checked: CheckedRows, sha256: str | None) -> UpdateReport:
        """Append new interactions to the log and learn from them.

        Args:
          checked: the rows.
          sha256: fingerprint of the table that they come from, if it is one.

        Raises:
          UserError: this is a view, the model cannot be updated, or an update was interrupted.
        """
        self.require_present()
        updater = self.updater
        pending, self._pending = self.pending, None  # remains None if this is interrupted
        new = self.run.log.append_valid(checked)
        if len(new.rows):
            updater.advance(new)
            self._states = None
        refused = sorted([*checked.refused, *new.refused])
        self._pending = pending.plus(len(new.rows), len(refused), sha256)
        return UpdateReport(len(new.rows), refused)

    def save(self, folder: str | os.PathLike[str] | None) -> None:
        """Commit what was applied; arguments and errors as of `Recommender.save`."""
        self.require_present()
        self.run = save_run(self.run, folder, self.pending, self.states)
        self._pending = PendingUpdate()

    def as_of(self, moment: float) -> LiveRun:
        """Return a view of the run just before a moment, in seconds since 1970."""
        states, then, updater = self.states, self.run.log.before(moment), self.updater_or_none
        if updater is not None:  # without one, states never change
            states = updater.as_of(then)
        return LiveRun(self.run._replace(log=then, states=states), is_view=True)
