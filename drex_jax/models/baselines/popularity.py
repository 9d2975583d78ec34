"""Popularity: rank items by their number of interactions so far."""

from __future__ import annotations

import dataclasses
import itertools

import jax.numpy as jnp
import numpy as np

from drex_jax.common.streams import occurrences
from drex_jax.data.events import Events
from drex_jax.models.baselines.bias import after_each
from drex_jax.models.lookup import ClosedForm, Lookup, LookupStream
from drex_jax.models.protocol import States, Trace
from drex_jax.models.source import Source


@dataclasses.dataclass(frozen=True)
class Popularity(ClosedForm):
    """Rank items by their number of interactions so far. It predicts no ratings."""

    rates = False

    def stream(self, events: Events, sizes: tuple[int, int, int]) -> LookupStream:
        """Return the stream over a data set."""
        begins = np.cumsum((0, *sizes))
        no_user = np.zeros((events.num_users, 1), np.float32)
        count = np.zeros((events.num_items, 1), np.float32)
        start, segments = count, []
        for begin, end in itertools.pairwise(begins):
            user, item = events.user[begin:end], events.item[begin:end]
            before = count[item] + occurrences(item)[:, None].astype(np.float32)
            count = count + np.bincount(item, minlength=events.num_items)[:, None].astype(np.float32)
            trace = Trace(*map(jnp.asarray, (no_user[user], before, after_each(item, before, count))))
            segments.append(Lookup(user, item, trace, States(jnp.asarray(no_user), jnp.asarray(count))))
        return self.stream_of(no_user, start, tuple(segments))

    @classmethod
    def build(cls, source: Source) -> LookupStream:
        """Return the stream for a run."""
        return cls().stream(source.events, source.sizes)
