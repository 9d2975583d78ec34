"""All models by name. Imports no JAX."""

from __future__ import annotations

from drex_jax.common.errors import UserError
from drex_jax.models.baselines import entries as baselines
from drex_jax.models.crane import entry as crane
from drex_jax.models.drex import entry as drex
from drex_jax.models.entry import ModelEntry, Need, Updates, imported

ENTRIES: dict[str, ModelEntry] = {entry.name: entry for entry in (*drex.ENTRIES, *crane.ENTRIES, *baselines.ENTRIES)}
CONFIGURABLE = tuple(name for name, entry in ENTRIES.items() if entry.configurable)
BASELINES = tuple(name for name, entry in ENTRIES.items() if entry.baseline)
RANKERS = tuple(name for name, entry in ENTRIES.items() if entry.configurable and not entry.rates)


def entry_of(name: str) -> ModelEntry:
    """Return the entry of a model: one of `ENTRIES`, or that of a user's own class, "my_package.my_file:MyModel".

    Raises:
      UserError: there is no such model, or it cannot be imported.
    """
    if name in ENTRIES:
        return ENTRIES[name]
    if ":" not in name:
        raise UserError(
            f"model.name is {name!r}; it must be one of {' '.join(CONFIGURABLE)}, or a model of your own such as "
            "my_package.my_file:MyModel"
        )
    return _own_entry(name)


def _own_entry(name: str) -> ModelEntry:
    try:
        found = imported(name)
    except Exception as error:  # whatever the user's file raises
        raise UserError(f"model.name is {name!r}, which cannot be imported: {error}") from None
    from drex_jax.models.protocol import Model  # imports JAX, as the user's file does

    if not isinstance(found, type) or not issubclass(found, Model):
        raise UserError(f"model.name is {name!r}, which is not a subclass of drex_jax.models.protocol.Model")
    try:
        needs, updates = tuple(map(Need, found.needs)), Updates(found.updates) if found.updates else None
    except ValueError as error:
        raise UserError(f"model.name is {name!r}, whose `needs` or `updates` are wrong: {error}") from None
    return ModelEntry(
        name=name,
        model=name,
        groups={} if found.Settings is None else {"own": found.Settings},
        reads=("own",),
        needs=needs,
        texts=Need.TEXTS in needs,
        rates=bool(found.rates),
        updates=updates,
    )


def updatable() -> tuple[str, ...]:
    """Return the names of the models whose finished runs learn from new interactions."""
    return tuple(name for name, entry in ENTRIES.items() if entry.configurable and entry.updates is not None)
