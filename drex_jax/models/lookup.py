"""Streams whose rows are known beforehand, so that observing a segment is a lookup; and closed-form models."""

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
    """A segment whose rows are known beforehand.

    Attributes:
      user, item: int32 [n], the user and the item of each interaction.
      trace: the rows of its interactions; None: they are read from the states that are passed to `observe`.
      after: all rows after the segment; None: the segment changes no row.
    """

    user: np.ndarray
    item: np.ndarray
    trace: Trace | None = None
    after: States | None = None

    def __len__(self) -> int:
        return len(self.user)


def unchanging(events: Events, sizes: tuple[int, int, int]) -> tuple[Lookup, ...]:
    """Return the train, validation and test segments of a model that does not learn from observed interactions."""
    begins = np.cumsum((0, *sizes))
    return tuple(Lookup(events.user[a:b], events.item[a:b]) for a, b in itertools.pairwise(begins))


class LookupStream(Stream):
    """A stream of `Lookup` segments. It serves closed-form models; subclasses for others add batches and `start`."""

    def __init__(self, model: Model, segments: tuple[Lookup, ...], start: States | None = None):
        """Store the segments. `start`: all rows before the first interaction, needed for a closed-form model."""
        self.model, self._segments, self._start = model, segments, start

    def start(self, params: Params) -> States:
        """Return all rows before the first interaction."""
        assert self._start is not None
        return self._start

    def segments(self) -> tuple[Lookup, ...]:
        """Return the train, validation and test segments."""
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
    """A model without parameters or training: a prediction is the sum of the first entries of both rows."""

    def init(self, key: jax.Array) -> dict[str, Any]:
        """Return no parameters."""
        return {}

    def rate(self, params: Params, user: jax.Array, item: jax.Array) -> jax.Array:
        """Return the predictions [n] of rows [n, E]."""
        return user[:, 0] + item[:, 0]

    def rank(self, params: Params, user: jax.Array, item: jax.Array) -> jax.Array:
        """Return the predictions [n, m] of rows [n, E] and [m, E]."""
        return user[:, :1] + item[:, 0][None, :]

    def stream_of(self, user: np.ndarray, item: np.ndarray, segments: tuple[Lookup, ...]) -> LookupStream:
        """Return a stream that starts with rows `user` [U, E] and `item` [I, E]."""
        return LookupStream(self, segments, States(jnp.asarray(user, jnp.float32), jnp.asarray(item, jnp.float32)))
