"""The time of a training step by its width, for each kind of device. The width of a schedule is chosen from it.

The choice must be the same in every run, so nothing is timed at the start of a run. The table is the file
`step_costs.json` beside this module. `tools/profile.py --write_costs=FILE` measures a new one, which a user can set.
It maps each device kind, as JAX names it, to its source and its times in microseconds:

    {"cpu": {"source": "measured on ...", "state_sizes": {"64": {"1": 12.5, "2": 20.0}}}}

`gather_microseconds` (optional) is the time to gather the lanes of a step from several devices, in both directions.
The kinds `cpu`, `gpu` and `tpu` are used for every device of their platform that is not in the table itself.
"""

from __future__ import annotations

import json
import math
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from drex_jax.common.errors import UserError
from drex_jax.common.files import json_of, write_text
from drex_jax.models.drex.schedule import StepCosts

SHIPPED = pathlib.Path(__file__).with_name("step_costs.json")
OTHERWISE = "gpu"  # used for an accelerator whose kind and platform are not in the shipped table

Table = dict[str, dict[str, Any]]


class Costs(NamedTuple):
    """The costs of training steps on one kind of device.

    Attributes:
      step: the time of a training step by its width.
      source: where the times are from, for the log: file, device kind, state size, and the file's own source.
      gather: microseconds to gather the lanes of a step from several devices, in both directions; None: not measured,
        so lanes are never split.
    """

    step: StepCosts
    source: str
    gather: float | None = None

    def split_pays(self, width: int, devices: int) -> bool:
        """Return True if a step of `width` lanes is faster when devices share the lanes."""
        shared, whole = np.interp([width / devices, width], self.step.widths, self.step.microseconds)
        return self.gather is not None and bool(shared + self.gather < whole)


def load(device_kind: str, platform: str, state_size: int, path: pathlib.Path | None = None) -> Costs:
    """Return the costs of the device kind, or else of its platform, at the nearest state size.

    The nearest size has the smallest ratio; of two, the smaller one is taken.

    Args:
      device_kind: `jax.Device.device_kind`.
      platform: `jax.Device.platform`.
      state_size: size of the states.
      path: the user's own table; None: the shipped table.

    Raises:
      UserError: the file is missing or damaged, or has neither the device kind nor its platform.
    """
    file = path or SHIPPED
    table = _read(file)
    kinds = [device_kind, platform] if path else [device_kind, platform, OTHERWISE]
    kind = next((kind for kind in kinds if kind in table), None)
    if kind is None:
        raise UserError(
            f"{file} has step costs of {', '.join(table) or 'no device kind'}, not of {device_kind} or {platform}: "
            f"tools/profile.py --write_costs={file} on that device adds them"
        )
    sizes = {int(size): times for size, times in table[kind]["state_sizes"].items()}
    size = min(sorted(sizes), key=lambda size: abs(math.log(size / state_size)))
    times = {int(width): float(time) for width, time in sizes[size].items()}
    source = f"{file.name if path is None else file}, {kind}, state size {size}: {table[kind]['source']}"
    return Costs(StepCosts(tuple(times), tuple(times.values())), source, table[kind].get("gather_microseconds"))


def write(path: pathlib.Path, device_kind: str, source: str, sizes: Mapping[int, StepCosts]) -> None:
    """Add measured times to a file, or replace them there; other device kinds and state sizes stay.

    Args:
      path: the file, which is created if it is missing.
      device_kind: `jax.Device.device_kind`.
      source: a description of the machine.
      sizes: the costs by state size.

    Raises:
      UserError: the file is damaged, or cannot be written.
    """
    table = _read(path) if path.exists() else {}
    times = table.get(device_kind, {"state_sizes": {}})["state_sizes"]
    times |= {
        str(size): {str(width): round(time, 2) for width, time in zip(costs.widths, costs.microseconds, strict=True)}
        for size, costs in sizes.items()
    }
    ascending = {size: times[size] for size in sorted(times, key=int)}
    table[device_kind] = table.get(device_kind, {}) | {"source": source, "state_sizes": ascending}
    try:
        write_text(path, json.dumps(table, indent=1) + "\n")
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}") from None


def _read(path: pathlib.Path) -> Table:
    """Return the checked content of a file."""
    try:
        table = json_of(path)
    except OSError as error:
        raise UserError(f"{path}: the step costs cannot be read ({error.strerror})") from None
    except ValueError:
        raise UserError(f"{path}: damaged; step costs are JSON as tools/profile.py --write_costs writes them") from None
    try:
        for kind in table.values():
            if not isinstance(kind["source"], str) or not kind["state_sizes"]:
                raise ValueError("a kind without a source or without a state size")
            if not 0 < float(kind.get("gather_microseconds", 1)) < math.inf:
                raise ValueError("gather_microseconds is positive and finite")
            for size, times in kind["state_sizes"].items():
                if int(size) < 1:
                    raise ValueError(f"a state size is at least 1, unlike {size}")
                StepCosts(tuple(int(width) for width in times), tuple(float(time) for time in times.values()))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path}: no step costs as tools/profile.py --write_costs writes them ({type(error).__name__}: {error})"
        ) from None
    return table
