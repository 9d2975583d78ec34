"""Settings: frozen dataclasses whose fields carry their default, their rule and one line of help.

A group of settings stands beside the code that reads it and declares each field once:

    @dataclasses.dataclass(frozen=True)
    class SplitSettings:
        validation: float = setting(0.1, number(above=0.0, below=1.0), "share of all interactions")

`drex_jax.config.tree` turns groups into the configuration that experiments change, and back.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

from drex_jax.common.errors import UserError

LARGEST = 2**31 - 1


@dataclasses.dataclass(frozen=True)
class Rule:
    """The values that one field accepts.

    Attributes:
      accepts: a function that returns True for an accepted value.
      wants: the end of the sentence "it must be ...".
    """

    accepts: Callable[[Any], bool]
    wants: str


def setting(default: Any, rule: Rule, help: str) -> Any:
    """Declare a field of a group of settings.

    Args:
      default: the value if the user sets none.
      rule: the accepted values.
      help: one line for `--help`.
    """
    return dataclasses.field(default=default, metadata={"rule": rule, "help": help})


@dataclasses.dataclass(frozen=True)
class Entry:
    """One key of an open mapping: default, rule and help, as for `setting`."""

    default: Any
    rule: Rule
    help: str


def open_mapping(entries: Mapping[str, Entry], others: Rule) -> Any:
    """Declare a field that is a mapping with known keys, to which a user may add keys.

    Args:
      entries: the known keys.
      others: the rule for the values of added keys.
    """
    metadata = {"entries": dict(entries), "others": others}
    return dataclasses.field(
        default_factory=lambda: {name: entry.default for name, entry in entries.items()}, metadata=metadata
    )


def require(name: str, value: Any, rule: Rule) -> None:
    """Check that a value follows its rule.

    Args:
      name: the dotted name of the field, for the message.
      value: the value to check.
      rule: the rule of the field.

    Raises:
      UserError: the value breaks the rule; the message says what would be right.
    """
    try:
        right = rule.accepts(value)
    except TypeError:
        right = False
    if not right:
        raise UserError(f"{name} is {value!r}; it must be {rule.wants}")


def whole(least: int, most: int = LARGEST) -> Rule:
    """Return a rule that accepts a whole number from `least` to `most`, both included."""
    wants = (
        f"a whole number from {least} to {most}"
        if most < LARGEST
        else f"a whole number, {least} or more and below 2^31"
    )
    return Rule(lambda value: isinstance(value, int) and least <= value <= most, wants)


def number(least: float = -math.inf, below: float = math.inf, *, above: float = -math.inf) -> Rule:
    """Return a rule that accepts a finite number that is >= `least`, > `above` and < `below`."""
    bounds = [f"{least:g} or more"] if least > -math.inf else []
    bounds += [f"above {above:g}"] if above > -math.inf else []
    bounds += [f"below {below:g}"] if below < math.inf else []
    wants = "a finite number" + (", " + " and ".join(bounds) if bounds else "")
    return Rule(lambda value: math.isfinite(value) and least <= value < below and value > above, wants)


def share() -> Rule:
    """Return a rule that accepts a share of a whole: from 0 to 1, both included."""
    return Rule(lambda value: 0.0 <= value <= 1.0, "a share from 0 to 1")


def one_of(*values: str) -> Rule:
    """Return a rule that accepts one of these words."""
    return Rule(lambda value: value in values, ("one of " if len(values) > 1 else "") + " ".join(values))


def some_of(*values: str) -> Rule:
    """Return a rule that accepts a sequence of distinct words among these."""
    return Rule(
        lambda value: set(value) <= set(values) and len(set(value)) == len(value),
        f"different names among {' '.join(values)}",
    )


def optional(rule: Rule) -> Rule:
    """Return a rule that accepts None, and everything that `rule` accepts."""
    return Rule(lambda value: value is None or rule.accepts(value), f"{rule.wants}, or left out")


SWITCH = Rule(lambda value: isinstance(value, bool), "true or false")
WORDS = Rule(lambda value: isinstance(value, str), "a string")
NAMED = Rule(lambda value: isinstance(value, str) and bool(value.strip()), "a string that is not empty")
