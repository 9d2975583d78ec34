"""What closed-form baselines share: rows that are known beforehand, so that observing is looking up."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from drex_jax.data.events import Events
from drex_jax.devices.axis import ALONE, Axis
from drex_jax.models.protocol import States, Trace


@dataclasses.dataclass(frozen=True)
class Lookup:
    """A segment whose rows are known.

    Attributes:
      trace: the rows of its interactions; None where they are those of the carry.
      after: everyone's rows after it; None where nothing changes.
      user, item: int32 [n].
    """

    user: np.ndarray
    item: np.ndarray
    trace: Trace | None = None
    after: States | None = None

    def __len__(self) -> int:
        return len(self.user)


def observe(carry: States, segment: Lookup) -> tuple[States, Trace]:
    """The carry after a segment and its trace."""
    if segment.trace is None or segment.after is None:
        item = carry.item[segment.item]
        return carry, Trace(carry.user[segment.user], item, item)
    return segment.after, segment.trace


def after(carry: States, segment: Lookup) -> States:
    """The carry after a segment."""
    return carry if segment.after is None else segment.after


def unchanging(events: Events, sizes: tuple[int, int, int]) -> tuple[Lookup, ...]:
    """Train, validation and test of a model that does not learn from what it observes."""
    begins = np.cumsum((0, *sizes))
    return tuple(Lookup(events.user[a:b], events.item[a:b]) for a, b in itertools.pairwise(begins))


class ClosedForm:
    """A baseline without parameters or training. Subclasses set the rows and say what they predict."""

    rates = True
    ranks = True
    chunk = 1

    def __init__(self, user: np.ndarray, item: np.ndarray, segments: tuple[Lookup, ...]):
        """`user` [U, E] and `item` [I, E]: everyone's rows at the start."""
        self._start = States(jnp.asarray(user, jnp.float32), jnp.asarray(item, jnp.float32))
        self._segments = segments

    def with_seed(self, seed: int) -> ClosedForm:
        """The same: nothing is random."""
        return self

    def init(self, key: jax.Array) -> dict[str, Any]:
        """No parameters."""
        return {}

    def start(self, params: dict[str, Any]) -> States:
        """The rows at the start."""
        return self._start

    def renew(self, params: dict[str, Any], carry: States | None, epoch: int, key: jax.Array) -> States:
        """Everyone's rows at the start: an epoch begins with the first interaction."""
        return self.start(params)

    def steps_per_epoch(self) -> int:
        """No training."""
        return 0

    def batches(self, epoch: int) -> Iterator[Any]:
        """No batches."""
        return iter(())

    def loss(
        self, params: Any, carry: States, batch: Any, key: jax.Array, axis: Axis = ALONE
    ) -> tuple[jax.Array, tuple[States, Mapping]]:
        """Never called: there are no batches."""
        raise TypeError(f"{type(self).__name__} is closed-form and has no loss")

    def step_bytes(self) -> int:
        """There are no steps."""
        return 0

    def segments(self) -> tuple[Lookup, ...]:
        """Train, validation and test."""
        return self._segments

    def observe(self, params: dict[str, Any], carry: States, segment: Lookup) -> tuple[States, Trace]:
        """The carry after a segment and its trace."""
        return observe(carry, segment)

    def after(self, params: dict[str, Any], carry: States, segment: Lookup) -> States:
        """The carry after a segment."""
        return after(carry, segment)

    def rate(self, params: dict[str, Any], user: jax.Array, item: jax.Array) -> jax.Array:
        """The sum of both rows' first column."""
        return user[:, 0] + item[:, 0]

    def rank(self, params: dict[str, Any], user: jax.Array, item: jax.Array) -> jax.Array:
        """The same for every pair."""
        return user[:, :1] + item[:, 0][None, :]
