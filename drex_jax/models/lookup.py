"""Streams whose rows are known beforehand, so that to observe is to look up; and closed-form models."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from drex_jax.data.events import Events
from drex_jax.models.protocol import Model, Params, States, Stream, Trace


@dataclasses.dataclass(frozen=True)
class Lookup:
    """A segment whose rows are known.

    Attributes:
      user, item: int32 [n].
      trace: the rows of its interactions; None: those of the states that it is observed with.
      after: all rows after it; None: nothing changes.
    """

    user: np.ndarray
    item: np.ndarray
    trace: Trace | None = None
    after: States | None = None

    def __len__(self) -> int:
        return len(self.user)


def unchanging(events: Events, sizes: tuple[int, int, int]) -> tuple[Lookup, ...]:
    """Return train, validation and test of a model that does not learn from what it observes."""
    begins = np.cumsum((0, *sizes))
    return tuple(Lookup(events.user[a:b], events.item[a:b]) for a, b in itertools.pairwise(begins))


class LookupStream(Stream):
    """A stream of `Lookup` segments. As it is, that of a closed-form model; others add batches and `start`."""

    def __init__(self, model: Model, segments: tuple[Lookup, ...], start: States | None = None):
        """`start`: all rows before the first interaction, of a closed-form model."""
        self.model, self._segments, self._start = model, segments, start

    def start(self, params: Params) -> States:
        """Return the rows given."""
        assert self._start is not None
        return self._start

    def segments(self) -> tuple[Lookup, ...]:
        """Return train, validation and test."""
        return self._segments

    def observe(self, params: Params, states: States, segment: Lookup) -> tuple[States, Trace]:
        """Look up the rows of a segment."""
        if segment.trace is None or segment.after is None:
            item = states.item[segment.item]
            return states, Trace(states.user[segment.user], item, item)
        return segment.after, segment.trace

    def after(self, params: Params, states: States, segment: Lookup) -> States:
        """Look up the rows after a segment."""
        return states if segment.after is None else segment.after


@dataclasses.dataclass(frozen=True)
class ClosedForm(Model):
    """A model without parameters or training: a prediction is the sum of both rows' first entry."""

    def init(self, key: jax.Array) -> dict[str, Any]:
        """Return no parameters."""
        return {}

    def rate(self, params: Params, user: jax.Array, item: jax.Array) -> jax.Array:
        """Return sums [n] of rows [n, E]."""
        return user[:, 0] + item[:, 0]

    def rank(self, params: Params, user: jax.Array, item: jax.Array) -> jax.Array:
        """Return sums [n, m] of rows [n, E] and [m, E]."""
        return user[:, :1] + item[:, 0][None, :]

    def stream_of(self, user: np.ndarray, item: np.ndarray, segments: tuple[Lookup, ...]) -> LookupStream:
        """Return a stream that starts with rows `user` [U, E] and `item` [I, E]."""
        return LookupStream(self, segments, States(jnp.asarray(user, jnp.float32), jnp.asarray(item, jnp.float32)))
