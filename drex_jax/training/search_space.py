"""The search space of `tune.space`, and the settings that a random or a grid search takes from it."""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from drex_jax.common.errors import UserError
from drex_jax.common.settings import Rule
from drex_jax.config import tree
from drex_jax.training.settings import Settings, changed

GROUPS = ("model", "ranker", "crane", "narre", "own", "train")
FIXED = ("model.name", "train.selection", "train.checkpoint_seconds", "train.checkpoint_steps", "train.tensorboard")
DIGITS = 4  # significant digits of a number drawn from a range: short enough to type
MANY = 1000  # draws in a row without a new setting, after which a space counts as used up
_SWITCHES = {"true": True, "false": False}
_RANGE = re.compile(r"(.+?)\.\.(.+)")


@dataclasses.dataclass(frozen=True)
class Dimension:
    """One field of a search space: a list of values, or a range.

    Attributes:
      field: dotted name of the field.
      values: values that it may take; empty for a range.
      low: lower end of the range.
      high: upper end of the range.
    """

    field: str
    values: tuple[Any, ...]
    low: float = 0.0
    high: float = 0.0

    def draw(self, rng: np.random.Generator) -> Any:
        """Draw one of the values, or a number from the range, uniform in its logarithm."""
        if self.values:
            return self.values[int(rng.integers(len(self.values)))]
        return self.rounded(math.exp(rng.uniform(math.log(self.low), math.log(self.high))))

    def rounded(self, value: Any) -> Any:
        """Return a value of the list as it is, and a number of the range with `DIGITS` digits."""
        return value if self.values else min(max(float(f"{value:.{DIGITS}g}"), self.low), self.high)

    def contains(self, value: Any) -> bool:
        """Return True if a value is in the list or the range."""
        return value in self.values if self.values else self.low <= value <= self.high


class Candidates(NamedTuple):
    """The settings of a random or a grid search.

    Attributes:
      settings: values by field, in the order of the trials; the first are the configuration's own.
      notice: a sentence for the user if the number of settings is not `tune.trials`; None if it is.
    """

    settings: list[dict[str, Any]]
    notice: str | None


def parse(config: Settings) -> list[Dimension]:
    """Return the dimensions of `config.tune.space`.

    Raises:
      UserError: if the space is empty, or a line names a field that does not exist, that cannot be tuned or that an
        earlier line named, or a value that the field does not accept.
    """
    if not config.tune.space:
        raise UserError(
            "tune.space is empty: there is nothing to search; the experiment file, or an override such as "
            """--config.tune.space='("train.learning_rate=1e-3..1e-2",)', says what to try"""
        )
    fields = tree.flatten_settings(config)
    dimensions: list[Dimension] = []
    for line in config.tune.space:
        dimension = _dimension(line, fields, tree.fields_of(type(config)))
        if any(dimension.field == other.field for other in dimensions):
            raise UserError(f"tune.space has {dimension.field} twice; one line should have all that it may be")
        dimensions.append(dimension)
    return dimensions


def candidates(config: Settings) -> Candidates:
    """Return the settings of a random or a grid search: the configuration's own, then others, none of them twice.

    `random` draws with `config.seed`; `grid` takes all combinations in order, the last field changing first.

    Raises:
      UserError: as `parse`; or if a grid has a range, or settings of the space are not valid together.
    """
    dimensions, trials = parse(config), config.tune.trials
    fields = tree.flatten_settings(config)
    own = {dimension.field: fields[dimension.field] for dimension in dimensions}
    settings, left = (_grid if config.tune.search == "grid" else _random)(dimensions, own, trials, config.seed)
    if found := next(filter(None, (fault(config, one) for one in settings)), None):
        raise UserError(found)
    if left:
        return Candidates(settings, f"tune.trials={trials} leaves {left:,} of {left + trials:,} settings out")
    return Candidates(settings, shortage(len(settings), trials))


def shortage(count: int, trials: int) -> str | None:
    """Return a sentence for the user if there are fewer settings than `trials`; None otherwise."""
    return f"the space has no more than {count} settings: so many of {trials} trials" if count < trials else None


def _dimension(line: str, fields: dict[str, Any], declared: dict[str, tree.Field]) -> Dimension:
    """Parse one line. `fields` are the configuration's own values: they give each field its type."""
    field, _, words = line.partition("=")
    if field not in fields:
        raise UserError(f"tune.space: unknown configuration field {field}; {tree.suggestion(field, fields)}")
    if field.partition(".")[0] not in GROUPS or field in FIXED:
        raise UserError(
            f"tune.space: {field} cannot be tuned: all trials share the data, the seed and the way they are judged; "
            f"fields of {' '.join(GROUPS)} can, but for {' '.join(FIXED)}"
        )
    own, rule = fields[field], declared[field].rule
    between = _RANGE.fullmatch(words)
    if between is not None:
        if not isinstance(own, float):
            raise UserError(f"tune.space: {line} is a range, which is for real numbers; list its values with commas")
        low, high = (_value(word, own, field, rule) for word in between.groups())
        if not 0 < low < high:
            raise UserError(f"tune.space: {line} must be LOW..HIGH with 0 < LOW < HIGH (drawn by their logarithms)")
        return Dimension(field, (), low, high)
    values = tuple(_value(word, own, field, rule) for word in words.split(","))
    if len(set(values)) < len(values):
        raise UserError(f"tune.space: {line} has a value twice")
    return Dimension(field, values)


def _value(word: str, own: Any, field: str, rule: Rule) -> Any:
    """Convert a word to a value of a field, of the type of `own`."""
    word = word.strip()
    try:
        value = _SWITCHES[word.lower()] if isinstance(own, bool) else type(own)(word)
    except (ValueError, KeyError):
        value = None
    if value is None or not rule.accepts(value):
        raise UserError(f"tune.space: {field} cannot be {word}; it must be {rule.wants}")
    return value


def _random(
    dimensions: list[Dimension], own: dict[str, Any], trials: int, seed: int
) -> tuple[list[dict[str, Any]], int]:
    """Return `own` and drawn settings, and 0: a random search leaves out nothing that was asked for."""
    rng = np.random.default_rng(seed)
    settings, seen, repeats = [own], {tuple(own.values())}, 0
    limit = min(trials, size(dimensions, own))
    while len(settings) < limit and repeats < MANY * limit:
        drawn = {dimension.field: dimension.draw(rng) for dimension in dimensions}
        if tuple(drawn.values()) in seen:
            repeats += 1
            continue
        seen.add(tuple(drawn.values()))
        settings.append(drawn)
    return settings, 0


def _grid(dimensions: list[Dimension], own: dict[str, Any], trials: int, seed: int) -> tuple[list[dict[str, Any]], int]:
    """Return `own` and the first combinations, and the number of those left out."""
    for dimension in dimensions:
        if not dimension.values:
            raise UserError(
                f"tune.search=grid cannot go through {dimension.field}={dimension.low:g}..{dimension.high:g}; "
                "list its values with commas, or take tune.search=random"
            )
    names = list(own)
    combinations = itertools.product(*(dimension.values for dimension in dimensions))
    others = (dict(zip(names, values, strict=True)) for values in combinations)
    settings = [own, *itertools.islice((other for other in others if other != own), trials - 1)]
    return settings, int(size(dimensions, own)) - len(settings)


def size(dimensions: list[Dimension], own: dict[str, Any]) -> float:
    """Return the number of settings including the configuration's own; infinite if a field has a range."""
    if not all(dimension.values for dimension in dimensions):
        return math.inf
    inside = all(dimension.contains(own[dimension.field]) for dimension in dimensions)
    return math.prod(len(dimension.values) for dimension in dimensions) + (not inside)


def fault(config: Settings, settings: Mapping[str, Any]) -> str | None:
    """Return why a configuration is not valid with other values in some fields; None if it is valid."""
    try:
        changed(config, settings)
    except UserError as error:
        listed = ", ".join(f"{field}={value}" for field, value in settings.items())
        return f"tune.space allows {listed}, where {error}"
    return None
