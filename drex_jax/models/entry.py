"""The registry entry of a model: how it differs from others when a run is configured, built, served or explained.

Entries import no JAX, so that the command line answers mistakes at once; the implementation is imported when asked for.
"""

from __future__ import annotations

import dataclasses
import enum
import importlib
from collections.abc import Mapping
from typing import Any


class Need(enum.StrEnum):
    """A kind of data that a model requires of the train interactions."""

    RATINGS = "ratings"
    TEXTS = "texts"


class Updates(enum.StrEnum):
    """The ways in which finished runs learn from new interactions."""

    STATES = "states"  # each interaction refines the states of its user and item
    PAIRS = "pairs"  # they join the train pairs from which rows are computed; parameters stay
    COUNTS = "counts"  # an item's row is the number of its interactions


@dataclasses.dataclass(frozen=True)
class ModelEntry:
    """The facts that the package knows about one model without importing it.

    Attributes:
      name: the name in `config.model.name` and in `config.baselines`.
      model: the class of the model, as "module:Class".
      builder: the function that makes a `Stream` from a `Source`, as "module:function"; empty: the class's own `build`.
      groups: the names of the groups of settings that it is built from, in the order in which they are passed.
      reads: the settings of models that it reads: whole groups ("crane") or fields ("ranker.size").
      settings: defaults that differ for this model, by dotted name of the field.
      space: the search space of `drex tune`, as lines of `tune.space`.
      needs: the kinds of data that train must have.
      texts: true if the model reads reviews where the data have them.
      rates: true if it predicts ratings; otherwise it is evaluated by full ranking alone.
      trained: true if it has parameters that are trained, on every seed of a run.
      configurable: true if it can be `config.model.name`.
      baseline: true if it can be one of `config.baselines`.
      ablation_of: the model that equals this baseline except that it also reads texts and vectors.
      training: settings of training that replace the run's own when the model is a baseline.
      penalty: candidates for the constants of a baseline that validation chooses, by name.
      updates: how a finished run learns from new interactions; None: it does not.
    """

    name: str
    model: str
    builder: str = ""
    groups: Mapping[str, type] = dataclasses.field(default_factory=dict)
    reads: tuple[str, ...] = ()
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    space: tuple[str, ...] = ()
    needs: tuple[Need, ...] = ()
    texts: bool = False
    rates: bool = True
    trained: bool = True
    configurable: bool = True
    baseline: bool = False
    ablation_of: str = ""
    training: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    penalty: Mapping[str, tuple[float, ...]] = dataclasses.field(default_factory=dict)
    updates: Updates | None = None

    @property
    def own_settings(self) -> type | None:
        """The class of the group `own`: settings of a user's own model."""
        return self.groups.get("own")

    def reads_field(self, field: str) -> bool:
        """Return True if the model reads a field of a model's group, by dotted name."""
        return field in self.reads or field.partition(".")[0] in self.reads

    def groups_of(self, settings: Any) -> tuple[Any, ...]:
        """Return the groups of settings that the model is built from, taken from all settings of a run."""
        return tuple(getattr(settings, name) for name in self.groups)

    def load(self) -> Any:
        """Import and return the class of the model."""
        return imported(self.model)

    def load_builder(self) -> Any:
        """Import and return the function that makes a stream from a source."""
        return imported(self.builder) if self.builder else self.load().build


def imported(path: str) -> Any:
    """Return the object that "module:name" names.

    Raises:
      ImportError, AttributeError: there is no such object.
    """
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)
