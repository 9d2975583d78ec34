"""The only file that knows devices and meshes.

A model's program is written for one device of an axis (`drex_jax.devices.axis`); `Devices.compile` runs it on all of
them, by `jax.shard_map` or by `jax.pmap`, with the same numbers. Arguments and results are alike on all devices, so
nothing that a program shares need divide by them but the rows it takes as its own.

Several processes (`drex_jax.devices.processes`) each run the same commands over all their devices.
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
HOST_SHARE = 4 << 30  # bytes of constants kept on a device that does not say how much memory it has
DEVICE_SHARE = 3  # elsewhere a third of its memory


def cache_folder(chosen: str | None = None) -> pathlib.Path:
    """Where compiled programs and kept results lie: `chosen`, or `drex_jax` in the user's cache folder."""
    return pathlib.Path(chosen or pathlib.Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "drex_jax")).expanduser()


def keep_programs(folder: pathlib.Path) -> None:
    """Keeps compiled programs in a folder between runs, unless JAX has been told of another."""
    if jax.config.values["jax_compilation_cache_dir"] is None:
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


class Devices:
    """The devices of a run.

    Attributes:
      mapping: `shard_map`, `pmap` or `none` (the first device alone).
      axis: what a program sees of them.
      kind: the kind of device, as JAX names it.
    """

    def __init__(self, mapping: str = "none", count: int = 0):
        """`count`: how many to use, the first ones; 0 uses all there are (one where `mapping` is `none`).

        Raises:
          UserError: there are not so many, or the mapping cannot use them.
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
        """Arranges the devices in groups; those of a group share a batch."""
        shape = (groups, len(self) // groups)
        self._mesh = jax.make_mesh(shape, (REPLICAS, AXIS), axis_types=(AxisType.Auto,) * 2, devices=self._devices)
        self.axis = ALONE if len(self) == 1 and self.mapping != "pmap" else Axis(AXIS, shape[1])

    def spread_over(self, replicas: int) -> Devices:
        """The same devices in as many groups as `replicas` divides into evenly: each trains its part of them.

        `pmap` and several processes have one group, which trains all of them.
        """
        groups = math.gcd(replicas, len(self)) if self.mapping == "shard_map" and processes.count() == 1 else 1
        spread = copy.copy(self)
        spread._groups(groups)
        spread._constants = {}
        return spread

    def _sharding(self, spread: bool) -> NamedSharding:
        return NamedSharding(self._mesh, PartitionSpec(REPLICAS) if spread else PartitionSpec())

    def _mapped(self, program: Program, spread: Any = None) -> Any:
        """One compiled function of a tuple of arguments; see `compile_for`."""
        if self.axis is ALONE:
            return jax.jit(lambda arguments: program(ALONE, *arguments))
        if self.mapping == "pmap":
            return jax.pmap(
                lambda _, arguments: program(self.axis, *arguments),
                axis_name=AXIS,
                in_axes=(0, None),
                out_axes=None,  # pyright: ignore[reportArgumentType] (None: alike on all devices)
                devices=self._devices,
            )
        replicated, apart = PartitionSpec(), PartitionSpec(REPLICAS)
        each = jax.shard_map(
            lambda arguments: program(self.axis, *arguments),
            mesh=self._mesh,
            in_specs=(
                replicated if spread is None else jax.tree.map(lambda own: apart if own else replicated, spread),
            ),
            out_specs=replicated if spread is None else apart,
            check_vma=False,  # `Axis` says where devices differ
        )
        return jax.jit(each)

    def _call(self, mapped: Any) -> Callable[..., Any]:
        if self.mapping == "pmap":
            number = np.arange(len(self))  # pmap wants an argument that differs between devices
            return lambda *arguments: mapped(number, arguments)
        return lambda *arguments: mapped(arguments)

    def compile(self, program: Program) -> Callable[..., Any]:
        """The function of the arguments that program(axis, *arguments) is, compiled when first called with a shape."""
        return self._call(self._mapped(program))

    def compile_for(self, program: Program, *arguments: Any, spread: Any = None) -> Callable[..., Any]:
        """The same, compiled now for the shapes of `arguments`; it refuses others.

        Args:
          program: of one device.
          arguments: examples.
          spread: for each argument, or each array of one, whether its leading axis goes over the groups of devices;
            all results then do. None: arguments and results are alike on all devices.
        """
        mapped = self._mapped(program, spread)
        leading = (np.arange(len(self)),) if self.mapping == "pmap" else ()
        return self._call(mapped.lower(*leading, arguments).compile())

    def place(self, tree: Any, spread: bool = False) -> Any:
        """A tree of arrays on all devices: whole on each, or `spread` over their groups by its leading axis."""
        sharding = self._sharding(spread)

        def from_host(leaf: Any) -> jax.Array:
            values = np.asarray(leaf)
            return jax.make_array_from_callback(values.shape, sharding, lambda index: values[index])

        return jax.tree.map(from_host, tree) if processes.count() > 1 else jax.device_put(tree, sharding)

    def _constant(self, leaf: Any) -> Any:
        """A leaf of a batch on all devices; one that never changes is brought there once, while room is left."""
        if not isinstance(leaf, np.ndarray) or leaf.flags.writeable:
            return self.place(leaf)
        kept = self._constants.get(id(leaf))
        if kept is not None:
            return kept[1]
        placed = self.place(leaf)
        if leaf.nbytes <= self._room:
            self._room -= leaf.nbytes
            self._constants[id(leaf)] = (leaf, placed)  # the array itself, so that nothing else gets its id
        return placed

    def feed(self, batches: Iterator[Any]) -> Iterator[Any]:
        """Batches on the devices: the next is prepared by another thread while the caller works with one.

        NumPy arrays that are read-only are constants: they stay on the devices from epoch to epoch, while room is left.
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
        """Bytes of memory that one device has, or the host for devices that share its memory; None if unknown."""
        limit = self._own_limit()
        if limit is not None or self.platform != "cpu":
            return limit
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // len(self)

    def _own_limit(self) -> int | None:
        """Bytes that one device says it has."""
        return (self._own.memory_stats() or {}).get("bytes_limit")
