"""The edge: a checked configuration becomes the frozen options that the packages below take."""

from __future__ import annotations

import dataclasses
from typing import Any

from drex_jax.config import Config
from drex_jax.data.loading import DataOptions, SyntheticOptions


def data_options(config: Config) -> DataOptions:
    """What `drex_jax.data.loading.load` takes, from `config.data`."""
    fields: dict[str, Any] = config.to_dict()["data"]
    known = {field.name for field in dataclasses.fields(DataOptions)}
    chosen = {name: value for name, value in fields.items() if name in known}
    chosen["synthetic"] = SyntheticOptions(
        **{name.removeprefix("num_"): value for name, value in fields["synthetic"].items()}
    )
    return DataOptions(**chosen)
