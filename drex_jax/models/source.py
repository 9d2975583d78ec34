"""The settings, data and devices that a model is built from."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from drex_jax.common.cache import Cache
from drex_jax.data.events import Events
from drex_jax.devices.mesh import Devices
from drex_jax.models.drex.step_costs import Costs
from drex_jax.text.bert.pieces import WordPieces
from drex_jax.text.vocabulary import Vocabulary


@dataclasses.dataclass(frozen=True)
class Context:
    """The machine that the models of a run are built for.

    Attributes:
      devices: the devices that models run on.
      costs: the step costs of the recurrence on these devices.
      cache: the cache of schedules between runs.
    """

    devices: Devices
    costs: Costs
    cache: Cache


@dataclasses.dataclass(frozen=True)
class Source:
    """Everything that one model is built from.

    Attributes:
      settings: all settings of the run.
      groups: the groups of settings that the model's entry names.
      events: all interactions, in the order of learning.
      sizes: the numbers of train, validation and test interactions.
      rating_range: the rating scale; None: the data have no ratings.
      vocabulary: the vocabulary of the texts; None: the data have no texts.
      seed: the seed of the random draws in batches.
      context: devices, costs and cache.
      constants: constants of the model that validation chose, by name.
    """

    settings: Any
    groups: tuple[Any, ...]
    events: Events
    sizes: tuple[int, int, int]
    rating_range: tuple[float, float] | None
    vocabulary: Vocabulary | WordPieces | None
    seed: int
    context: Context
    constants: Mapping[str, float] = dataclasses.field(default_factory=dict)

    @property
    def train(self) -> Events:
        """The train interactions."""
        return self.events[: self.sizes[0]]

    def bias_arguments(self) -> tuple[Any, ...]:
        """Return the arguments of `running_bias.fit_static_bias` and `fit_running_bias`, from train and validation."""
        train, validation, _ = self.sizes
        events = self.events
        seen = slice(0, train + validation)
        columns = events.user[seen], events.item[seen], events.rating[seen]
        return *columns, train, events.num_users, events.num_items, self.rating_range or (0.0, 0.0)
