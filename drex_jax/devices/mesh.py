"""The devices of a run and their mesh; no other file uses JAX devices or meshes.

A model's program is written for one device of an axis (`drex_jax.devices.axis`). `Devices.compile` runs it on all
devices, with `jax.shard_map` or `jax.pmap`, and the results are equal. Inputs and outputs are replicated; only sharded
rows must be divisible by the number of devices.

With several processes (`drex_jax.devices.processes`) each runs the same commands over all their devices.
"""

from __future__ import annotations

import copy
import math
import os
import pathlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from drex_jax.common.errors import UserError
from drex_jax.devices import processes
from drex_jax.devices.axis import ALONE, Axis, Program

AXIS, REPLICAS = "devices", "replicas"
HOST_SHARE = 4 << 30  # bytes for constants on a device that does not report its memory
DEVICE_SHARE = 3  # on other devices, constants use at most a third of the memory


def cache_folder(chosen: str | None = None) -> pathlib.Path:
    """Return the folder of compiled programs and cached results: `chosen`, or `drex_jax` in the user's cache folder."""
    return pathlib.Path(chosen or pathlib.Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "drex_jax")).expanduser()


def keep_programs(folder: pathlib.Path) -> None:
    """Cache compiled programs in a folder, unless JAX has another cache folder already."""
    if jax.config.values["jax_compilation_cache_dir"] is None:
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


class Devices:
    """The devices of a run.

    Attributes:
      mapping: `shard_map`, `pmap` or `none` (the first device alone).
      axis: the devices as a program sees them.
      kind: the kind of device, as JAX names it.
      platform: the platform, such as `cpu` or `gpu`.
    """

    def __init__(self, mapping: str = "none", count: int = 0):
        """Use the first `count` devices; 0 uses all of them, or one if `mapping` is `none`.

        Raises:
          UserError: there are fewer devices, or the mapping cannot use them.
        """
        present = jax.devices()
        count = count or (1 if mapping == "none" else len(present))
        if count > len(present):
            raise UserError(f"devices.count={count}: JAX finds {len(present)} here ({present[0].device_kind})")
        if mapping == "none" and count > 1:
            raise UserError(f"devices.mapping=none runs on one device, not {count}; use shard_map, or count=1")
        if jax.process_count() > processes.count():
            raise UserError(f"JAX finds {jax.process_count()} processes here: set --config.devices.distributed=true")
        if processes.count() > 1 and (mapping != "shard_map" or count != len(present)):
            raise UserError(
                f"{processes.count()} processes need devices.mapping=shard_map over all {len(present)} devices"
            )
        self._devices = present[:count]
        self._constants: dict[int, tuple[np.ndarray, jax.Array]] = {}
        self._own = next(device for device in self._devices if device.process_index == jax.process_index())
        limit = self._own_limit()
        self._room = HOST_SHARE if limit is None else limit // DEVICE_SHARE
        self.mapping = mapping
        self._groups(1)
        self.kind = self._devices[0].device_kind
        self.platform = self._devices[0].platform

    def __len__(self) -> int:
        return len(self._devices)

    def _groups(self, groups: int) -> None:
        """Arrange the devices in groups; the devices of a group share a batch."""
        shape = (groups, len(self) // groups)
        self._mesh = jax.make_mesh(shape, (REPLICAS, AXIS), axis_types=(AxisType.Auto,) * 2, devices=self._devices)
        self.axis = ALONE if len(self) == 1 and self.mapping != "pmap" else Axis(AXIS, shape[1])

    def spread_over(self, replicas: int) -> Devices:
        """Return the same devices in groups, so that each group trains an equal part of the `replicas`.

        The number of groups divides both the replicas and the devices. With `pmap` or several processes there is one
        group.
        """
        groups = math.gcd(replicas, len(self)) if self.mapping == "shard_map" and processes.count() == 1 else 1
        spread = copy.copy(self)
        spread._groups(groups)
        spread._constants = {}
        return spread

    def _sharding(self, spread: bool) -> NamedSharding:
        return NamedSharding(self._mesh, PartitionSpec(REPLICAS) if spread else PartitionSpec())

    def _mapped(self, program: Program, spread: Any = None) -> Any:
        """Return a jitted function of a tuple of arguments; see `compile_for`."""
        if self.axis is ALONE:
            return jax.jit(lambda arguments: program(ALONE, *arguments))
        if self.mapping == "pmap":
            return jax.pmap(
                lambda _, arguments: program(self.axis, *arguments),
                axis_name=AXIS,
                in_axes=(0, None),
                out_axes=None,  # pyright: ignore[reportArgumentType] (None: replicated)
                devices=self._devices,
            )
        replicated, grouped = PartitionSpec(), PartitionSpec(REPLICAS)
        sharded = jax.shard_map(
            lambda arguments: program(self.axis, *arguments),
            mesh=self._mesh,
            in_specs=(
                replicated if spread is None else jax.tree.map(lambda one: grouped if one else replicated, spread),
            ),
            out_specs=replicated if spread is None else grouped,
            check_vma=False,  # programs use `Axis` wherever devices differ
        )
        return jax.jit(sharded)

    def _call(self, mapped: Any) -> Callable[..., Any]:
        if self.mapping == "pmap":
            number = np.arange(len(self))  # pmap wants an argument that differs between devices
            return lambda *arguments: mapped(number, arguments)
        return lambda *arguments: mapped(arguments)

    def compile(self, program: Program) -> Callable[..., Any]:
        """Return program(axis, *arguments) as a function of the arguments, compiled at the first call with a shape."""
        return self._call(self._mapped(program))

    def compile_for(self, program: Program, *arguments: Any, spread: Any = None) -> Callable[..., Any]:
        """Compile a program now, for the shapes of `arguments`; the result accepts no other shapes.

        Args:
          program: the program of one device.
          arguments: example arguments.
          spread: for each argument, or each of its arrays: true if its leading axis is split over the groups of
            devices. All results are split then. None: arguments and results are replicated.
        """
        mapped = self._mapped(program, spread)
        leading = (np.arange(len(self)),) if self.mapping == "pmap" else ()
        return self._call(mapped.lower(*leading, arguments).compile())

    def place(self, tree: Any, spread: bool = False) -> Any:
        """Put a tree of arrays on all devices: replicated, or with the leading axis `spread` over the groups."""
        sharding = self._sharding(spread)

        def from_host(leaf: Any) -> jax.Array:
            values = np.asarray(leaf)
            return jax.make_array_from_callback(values.shape, sharding, lambda index: values[index])

        return jax.tree.map(from_host, tree) if processes.count() > 1 else jax.device_put(tree, sharding)

    def _constant(self, leaf: Any) -> Any:
        """Put a leaf of a batch on all devices. A read-only array is copied once and kept while there is room."""
        if not isinstance(leaf, np.ndarray) or leaf.flags.writeable:
            return self.place(leaf)
        kept = self._constants.get(id(leaf))
        if kept is not None:
            return kept[1]
        placed = self.place(leaf)
        if leaf.nbytes <= self._room:
            self._room -= leaf.nbytes
            self._constants[id(leaf)] = (leaf, placed)  # keeps the array alive, so that its id stays unique
        return placed

    def feed(self, batches: Iterator[Any]) -> Iterator[Any]:
        """Yield batches on the devices; a thread prepares the next batch while the caller uses the current one.

        Read-only NumPy arrays are constants: they stay on the devices from epoch to epoch while there is room.
        """
        with ThreadPoolExecutor(1) as pool:

            def load() -> Any:
                batch = next(batches, None)
                return None if batch is None else jax.tree.map(self._constant, batch)

            ahead = pool.submit(load)
            while (batch := ahead.result()) is not None:
                ahead = pool.submit(load)
                yield batch

    def memory(self) -> int | None:
        """Return the bytes of memory of a device; of a CPU device, its share of the host's; None if unknown."""
        limit = self._own_limit()
        if limit is not None or self.platform != "cpu":
            return limit
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // len(self)

    def _own_limit(self) -> int | None:
        """Return the bytes of memory that the device reports."""
        return (self._own.memory_stats() or {}).get("bytes_limit")
