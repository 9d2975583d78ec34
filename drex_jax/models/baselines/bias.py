"""Baselines that predict from the mean and biases: the mean alone, with fitted biases, with running biases."""

from __future__ import annotations

import dataclasses
import itertools

import jax.numpy as jnp
import numpy as np

from drex_jax.common.streams import previous_and_next
from drex_jax.data.events import Events
from drex_jax.models import running_bias
from drex_jax.models.drex import counters
from drex_jax.models.lookup import ClosedForm, Lookup, LookupStream, unchanging
from drex_jax.models.protocol import States, Trace
from drex_jax.models.source import Source


@dataclasses.dataclass(frozen=True)
class GlobalMean(ClosedForm):
    """Predict the mean of the train ratings for every pair."""

    ranks = False

    def stream(self, mean: float, events: Events, sizes: tuple[int, int, int]) -> LookupStream:
        """Return the stream over a data set."""
        user, item = np.full((events.num_users, 1), mean), np.zeros((events.num_items, 1))
        return self.stream_of(user, item, unchanging(events, sizes))

    @classmethod
    def build(cls, source: Source) -> LookupStream:
        """Return the stream for a run."""
        return cls().stream(float(np.nanmean(source.train.rating, dtype=np.float64)), source.events, source.sizes)


@dataclasses.dataclass(frozen=True)
class Bias(ClosedForm):
    """Predict mean + user bias + item bias, fitted on train (`running_bias.StaticBias`)."""

    def stream(self, bias: running_bias.StaticBias, events: Events, sizes: tuple[int, int, int]) -> LookupStream:
        """Return the stream over a data set."""
        return self.stream_of(bias.mean + bias.user[:, None], bias.item[:, None], unchanging(events, sizes))

    @classmethod
    def build(cls, source: Source) -> LookupStream:
        """Return the stream for a run."""
        bias = running_bias.fit_static_bias(*source.bias_arguments())
        return cls().stream(bias, source.events, source.sizes)


@dataclasses.dataclass(frozen=True)
class RunningBias(ClosedForm):
    """Predict mean + user bias + item bias, updated with every rating (`running_bias.RunningBias`)."""

    def stream(self, bias: running_bias.RunningBias, events: Events, sizes: tuple[int, int, int]) -> LookupStream:
        """Return the stream over a data set."""
        past = counters.History.start(events.num_users, events.num_items)
        begins = np.cumsum((0, *sizes))
        segments = []

        def rows(past: counters.History) -> tuple[np.ndarray, np.ndarray]:
            user, item = counters.tables(past, bias)
            return user[:, :1] + np.float32(bias.mean), item[:, :1]

        start = rows(past)
        for begin, end in itertools.pairwise(begins):
            part = events[int(begin) : int(end)]
            before, past = counters.advance(part, past, bias)
            after = rows(past)
            user_before, item_before = before.bias[:, :1] + np.float32(bias.mean), before.bias[:, 1:]
            item_after = after_each(part.item, item_before, after[1])
            trace = Trace(*map(jnp.asarray, (user_before, item_before, item_after)))
            segments.append(Lookup(part.user, part.item, trace, States(*map(jnp.asarray, after))))
        return self.stream_of(*start, tuple(segments))

    @classmethod
    def build(cls, source: Source) -> LookupStream:
        """Return the stream for a run."""
        bias = running_bias.fit_running_bias(*source.bias_arguments())
        return cls().stream(bias, source.events, source.sizes)


def after_each(ids: np.ndarray, before: np.ndarray, final: np.ndarray) -> np.ndarray:
    """Return the rows [n, E] just after each interaction.

    The row after an interaction is the row before the next interaction of the same id, or else the row in `final`.
    """
    _, following = previous_and_next(ids, len(final))
    return np.where((following < len(ids))[:, None], before[np.minimum(following, len(ids) - 1)], final[ids])
