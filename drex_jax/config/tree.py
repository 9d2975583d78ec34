"""A tree of settings as a configuration that experiments change, as JSON, and back.

A *configuration* is an `ml_collections.ConfigDict`: experiments and `--config.FIELD=VALUE` change it. *Settings* are
frozen dataclasses (`drex_jax.common.settings`), checked once, which everything else reads.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import json
import keyword
import pathlib
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from drex_jax.common.errors import UserError
from drex_jax.common.files import json_of
from drex_jax.common.settings import Entry, Rule, require

Group = TypeVar("Group")


class Field(NamedTuple):
    """One declared field.

    Attributes:
      kind: its type, without `None`.
      default: its value where nothing else is set.
      rule: the values that it accepts.
      help: one line.
    """

    kind: Any
    default: Any
    rule: Rule
    help: str


class OpenField(NamedTuple):
    """A mapping to which a user may add keys. `entries`: the known keys; `others`: the rule for added ones."""

    entries: Mapping[str, Entry]
    others: Rule


@functools.cache
def declared(group: type) -> tuple[tuple[str, Field | OpenField | type], ...]:
    """Return the name and the declaration of each field of a group; for a nested group its class."""
    return tuple(_declarations(group))


def _declarations(group: type) -> Iterator[tuple[str, Field | OpenField | type]]:
    kinds = typing.get_type_hints(group)
    for field in dataclasses.fields(group):
        if "entries" in field.metadata:
            yield field.name, OpenField(field.metadata["entries"], field.metadata["others"])
        elif "rule" in field.metadata:
            kind, default = _without_none(kinds[field.name]), field.default
            yield field.name, Field(kind, default, field.metadata["rule"], field.metadata["help"])
        else:
            yield field.name, kinds[field.name]


def fields_of(group: type, prefix: str = "") -> dict[str, Field]:
    """Every field below a group by its dotted name (`train.epochs`), known keys of open mappings included."""
    fields: dict[str, Field] = {}
    for name, what in declared(group):
        if isinstance(what, Field):
            fields[prefix + name] = what
        elif isinstance(what, OpenField):
            for key, entry in what.entries.items():
                fields[f"{prefix}{name}.{key}"] = Field(str, entry.default, entry.rule, entry.help)
        else:
            fields |= fields_of(what, f"{prefix}{name}.")
    return fields


def config_of(group: type) -> ConfigDict:
    """A new, locked configuration with every field of a group at its default."""
    config = ConfigDict()
    for name, what in declared(group):
        if isinstance(what, Field):
            config[name] = placeholder(what.kind) if what.default is None else what.default
        elif isinstance(what, OpenField):
            config[name] = ConfigDict({key: entry.default for key, entry in what.entries.items()})
        else:
            config[name] = config_of(what)
    return config.lock()


def parse(group: type[Group], config: ConfigDict, prefix: str = "") -> Group:
    """The settings that a configuration holds, each field checked by its rule.

    Args:
      group: a dataclass of settings.
      config: with exactly the fields of the group.
      prefix: dotted name of the group, with a dot at its end, for messages.

    Raises:
      UserError: a field is missing, unknown or has a wrong value; one line names it and what would be right.
    """
    names = dict(declared(group))
    for name in config:
        if name not in names:
            known = [f"{prefix}{known}" for known in fields_of(group)]
            raise UserError(f"unknown configuration field {prefix}{name}; {suggestion(f'{prefix}{name}', known)}")
    values: dict[str, Any] = {}
    for name, what in names.items():
        if name not in config:
            raise UserError(
                f"the configuration has no field {prefix}{name}: start from drex_jax.training.settings.base() and "
                "change values"
            )
        value: Any = config[name]
        if isinstance(what, Field):
            require(prefix + name, value, what.rule)
            values[name] = tuple(value) if what.kind not in (str, int, float, bool) else value
        elif not isinstance(value, ConfigDict):
            raise UserError(f"{prefix}{name} is {value!r}; it must be a group of fields")
        elif isinstance(what, OpenField):
            values[name] = _open_values(what, value, f"{prefix}{name}.")
        else:
            values[name] = parse(what, value, f"{prefix}{name}.")
    return group(**values)


def config_from(settings: Any) -> ConfigDict:
    """The configuration of settings: `parse` gives the same settings again."""
    config = config_of(type(settings))
    for name, value in flatten_settings(settings).items():
        add_key(type(settings), config, name)
        config.update_from_flattened_dict({name: value})
    return config


def flatten(config: ConfigDict) -> dict[str, Any]:
    """Every field by its dotted name (`train.epochs`), in alphabetical order; groups are left out."""
    fields: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, ConfigDict):
            fields.update({f"{name}.{inner}": leaf for inner, leaf in flatten(value).items()})
        else:
            fields[name] = value
    return fields


def flatten_settings(settings: Any, prefix: str = "") -> dict[str, Any]:
    """Every field of settings by its dotted name, in alphabetical order."""
    fields: dict[str, Any] = {}
    for name in sorted(field.name for field in dataclasses.fields(settings)):
        value = getattr(settings, name)
        if dataclasses.is_dataclass(value):
            fields |= flatten_settings(value, f"{prefix}{name}.")
        elif isinstance(value, Mapping):
            fields |= {f"{prefix}{name}.{key}": value[key] for key in sorted(value)}
        elif value is not None or prefix + name in fields_of(type(settings), prefix):
            fields[prefix + name] = value
    return fields


def to_json(settings: Any) -> str:
    """The text of `config.json`: every field with its value, a tuple as a list."""
    return json.dumps(config_from(settings).to_dict(), indent=2) + "\n"


def read_json_into(config: ConfigDict, group: type, path: pathlib.Path) -> ConfigDict:
    """Sets the fields of a configuration to what `to_json` wrote into the file at `path`, and returns it.

    A field that the file lacks keeps its value.

    Raises:
      UserError: the file is missing, is not such JSON, or has a field or a type that this version does not know.
    """
    for name, value in flatten(stored_config(path)).items():
        add_key(group, config, name)
        try:
            config.update_from_flattened_dict({name: tuple(value) if isinstance(value, list) else value})
        except (KeyError, TypeError, ValueError, AttributeError):
            raise UserError(f"{path} has {name} = {value!r}, which this version of drex_jax does not know") from None
    return config


def stored_config(path: pathlib.Path) -> ConfigDict:
    """Return what a `config.json` holds, not checked.

    Raises:
      UserError: the file is missing, or is not JSON of such a form.
    """
    try:
        return ConfigDict(json_of(path))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: the folder {path.parent} holds no run") from None
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is no readable run configuration: {error}") from None


def add_key(group: type, config: ConfigDict, name: str) -> None:
    """Makes room for a key of the user's own in an open mapping, such as `data.columns.image`.

    Does nothing for any other name, and for a key that is there.

    Args:
      group: the dataclass of settings of the configuration.
      config: what is changed.
      name: dotted name of a field.

    Raises:
      UserError: the last part cannot be the name of a field.
    """
    parents, _, key = name.rpartition(".")
    what: Any = group
    for parent in parents.split(".") if parents else ():
        what = dict(declared(what)).get(parent) if isinstance(what, type) else None
        inner: Any = config[parent] if parent in config else ConfigDict()
        config = inner
    if isinstance(what, OpenField) and key not in config:
        if not key.isidentifier() or keyword.iskeyword(key) or hasattr(ConfigDict, key):
            raise UserError(f"{name}: {key!r} cannot name a vector modality; a plain word such as image can")
        with config.unlocked():
            config[key] = ""


def suggestion(name: str, fields: Iterable[str]) -> str:
    """A hint at the field among `fields` that an unknown dotted name may have meant."""
    by_last = {field: field.rsplit(".", 1)[-1] for field in fields}
    last = name.rsplit(".", 1)[-1]
    similar = difflib.get_close_matches(last, by_last.values(), 2, 0.75)
    close = difflib.get_close_matches(name, by_last, 1, 0.7) or [
        field for field in by_last if by_last[field] in similar
    ]
    return f"did you mean {' or '.join(close)}?" if close else "--help lists the fields there are"


def describe(group: type) -> str:
    """A line for each field: name, default and help."""
    lines = []
    for name, field in fields_of(group).items():
        default = "" if field.default is None else json.dumps(field.default)
        lines.append(f"  --config.{name}={default}\n      {field.help}; {field.rule.wants}")
    return "\n".join(lines)


def _open_values(what: OpenField, config: ConfigDict, prefix: str) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, entry in what.entries.items():
        if key not in config:
            raise UserError(f"the configuration has no field {prefix}{key}")
        require(prefix + key, config[key], entry.rule)
    for key, value in config.items():
        require(prefix + key, value, what.entries[key].rule if key in what.entries else what.others)
        values[key] = value
    return values


def _without_none(kind: Any) -> Any:
    """The type without `None`; of `tuple[...]` just `tuple`."""
    if isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union:
        kind = next(part for part in typing.get_args(kind) if part is not type(None))
    return typing.get_origin(kind) or kind
