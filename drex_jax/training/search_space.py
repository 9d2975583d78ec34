"""The settings that a search tries: from the lines of `tune.space` to candidates."""

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

GROUPS = ("model", "ranker", "crane", "narre", "train")
FIXED = ("model.name", "train.selection", "train.checkpoint_seconds", "train.checkpoint_steps", "train.tensorboard")
DIGITS = 4  # of a number drawn from a range: what people can type
MANY = 1000  # draws in a row that gave nothing new: a range so narrow that its numbers have run out
_SWITCHES = {"true": True, "false": False}
_RANGE = re.compile(r"(.+?)\.\.(.+)")


@dataclasses.dataclass(frozen=True)
class Dimension:
    """One field of a space.

    Attributes:
      field: its dotted name.
      values: those it may take; empty where it has a range.
      low: of a range.
      high: of a range.
    """

    field: str
    values: tuple[Any, ...]
    low: float = 0.0
    high: float = 0.0

    def draw(self, rng: np.random.Generator) -> Any:
        """One of the values, or a number from the range, uniform in its logarithm."""
        if self.values:
            return self.values[int(rng.integers(len(self.values)))]
        drawn = math.exp(rng.uniform(math.log(self.low), math.log(self.high)))
        return min(max(float(f"{drawn:.{DIGITS}g}"), self.low), self.high)


class Candidates(NamedTuple):
    """What to try.

    Attributes:
      settings: values by field; the first are the configuration's own.
      notice: what `tune.trials` leaves out, or does not need; None where it is met.
    """

    settings: list[dict[str, Any]]
    notice: str | None


def parse(config: Settings) -> list[Dimension]:
    """The dimensions of `config.tune.space`.

    Raises:
      UserError: it is empty, or a line names a field that there is not, is not to be tuned or was named before, or a
        value that the field does not accept.
    """
    if not config.tune.space:
        raise UserError(
            "tune.space is empty: there is nothing to search; the experiment file, or an override such as "
            """--config.tune.space='("train.learning_rate=1e-3..1e-2",)', says what to try"""
        )
    fields = tree.flatten_settings(config)
    dimensions: list[Dimension] = []
    for line in config.tune.space:
        dimension = _dimension(line, fields)
        if any(dimension.field == other.field for other in dimensions):
            raise UserError(f"tune.space has {dimension.field} twice; one line should have all that it may be")
        dimensions.append(dimension)
    return dimensions


def candidates(config: Settings) -> Candidates:
    """The settings that `config.tune` asks for: the configuration's own, then others, none of them twice.

    `random` draws them, the same for the same `config.seed`; `grid` takes all in order, the last field changing first.

    Raises:
      UserError: as `parse`; or a grid over a range; or fields that do not go together.
    """
    dimensions, trials = parse(config), config.tune.trials
    fields = tree.flatten_settings(config)
    own = {dimension.field: fields[dimension.field] for dimension in dimensions}
    settings, left = (_grid if config.tune.search == "grid" else _random)(dimensions, own, trials, config.seed)
    for one in settings:
        _require_valid(config, one)
    if left:
        return Candidates(settings, f"tune.trials={trials} leaves {left:,} of {left + trials:,} settings out")
    if len(settings) < trials:
        return Candidates(settings, f"the space has no more than {len(settings)} settings: so many of {trials} trials")
    return Candidates(settings, None)


def overridden(config: Settings, settings: Mapping[str, Any]) -> Settings:
    """A copy of a configuration with other values in some fields, given by their dotted names."""
    return changed(config, settings)


def _dimension(line: str, fields: dict[str, Any]) -> Dimension:
    """What one line says. `fields` are the configuration's own values: a field's type is that of its value."""
    field, _, words = line.partition("=")
    if field not in fields:
        raise UserError(f"tune.space: unknown configuration field {field}; {tree.suggestion(field, fields)}")
    if field.partition(".")[0] not in GROUPS or field in FIXED:
        raise UserError(
            f"tune.space: {field} cannot be tuned: all trials share the data, the seed and the way they are judged; "
            f"fields of {' '.join(GROUPS)} can, but for {' '.join(FIXED)}"
        )
    own, rule = fields[field], tree.fields_of(Settings)[field].rule
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
    """`word` as a value of a field, of the type of `own`."""
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
    """`own` and what is drawn, and 0: a random search leaves nothing out that it was asked for."""
    rng = np.random.default_rng(seed)
    settings, seen, repeats = [own], {tuple(own.values())}, 0
    limit = min(trials, _size(dimensions, own))
    while len(settings) < limit and repeats < MANY * limit:
        drawn = {dimension.field: dimension.draw(rng) for dimension in dimensions}
        if tuple(drawn.values()) in seen:
            repeats += 1
            continue
        seen.add(tuple(drawn.values()))
        settings.append(drawn)
    return settings, 0


def _grid(dimensions: list[Dimension], own: dict[str, Any], trials: int, seed: int) -> tuple[list[dict[str, Any]], int]:
    """`own` and the first of all combinations, and how many are left out."""
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
    return settings, int(_size(dimensions, own)) - len(settings)


def _size(dimensions: list[Dimension], own: dict[str, Any]) -> float:
    """How many settings there are, the configuration's own among them; infinite where a field has a range."""
    if not all(dimension.values for dimension in dimensions):
        return math.inf
    inside = all(own[dimension.field] in dimension.values for dimension in dimensions)
    return math.prod(len(dimension.values) for dimension in dimensions) + (not inside)


def _require_valid(config: Settings, settings: dict[str, Any]) -> None:
    try:
        overridden(config, settings)
    except UserError as error:
        listed = ", ".join(f"{field}={value}" for field, value in settings.items())
        raise UserError(f"tune.space allows {listed}, where {error}") from None
