"""Runs with several processes, joined by `jax.distributed`: each runs the same command over all their devices.

Each step is a collective, so all processes must take the same decisions in the same order. If only one process knows
something (a signal, a time limit, a file), all processes agree on it first (`agree`). Only the first process writes
files. If one process fails, `leave` ends the others, which would otherwise wait for ever.
"""

from __future__ import annotations

import atexit
import itertools
import os
import pathlib
import sys
import threading
import time
from concurrent.futures import Future
from typing import Any

import jax
import numpy as np

# Public `jax.distributed` has initialize, is_initialized and shutdown, but not its client. We need the client's
# key-value store and its barrier with a time limit, which do not need the devices. No public module of JAX 0.10.2 has
# them (`jax`, `jax.extend`, `jax.experimental`; `multihost_utils` has only collectives of devices, and takes the client
# from the same private module).
from jax._src import distributed
from jax.experimental import multihost_utils

from drex_jax.common import files
from drex_jax.common.errors import UserError

LONG = 24 * 3600 * 1000  # milliseconds; a wait ends when all processes arrive or one is dead, not by a timeout
SHARED_SECONDS = 70.0  # NFS may report for a minute that a new file does not exist
POLL_SECONDS = 0.5
GRACE_SECONDS = 3.0  # time for a process to end by itself if all of them fail alike
TOGETHER_MILLISECONDS = 5_000
ENDED = "drex_jax/ended"
_numbers = itertools.count()  # a barrier's name can be used only once


def connect(wanted: bool) -> None:
    """Join the processes of a run with `jax.distributed`, as Cloud TPU, SLURM, GKE and Open MPI configure it.

    Elsewhere JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID configure it. Must be called before anything
    asks JAX for its devices.

    Args:
      wanted: false does nothing.

    Raises:
      UserError: the processes cannot be joined.
    """
    if not wanted or jax.distributed.is_initialized():
        return
    addresses: dict[str, Any] = {}
    if "JAX_COORDINATOR_ADDRESS" in os.environ:
        try:
            addresses = {
                "coordinator_address": os.environ["JAX_COORDINATOR_ADDRESS"],
                "num_processes": int(os.environ["JAX_NUM_PROCESSES"]),
                "process_id": int(os.environ["JAX_PROCESS_ID"]),
            }
        except (KeyError, ValueError) as error:
            raise UserError(
                f"beside JAX_COORDINATOR_ADDRESS set JAX_NUM_PROCESSES and JAX_PROCESS_ID, whole numbers ({error})"
            ) from None
    jax.config.update("jax_enable_preemption_service", False)  # it would catch SIGTERM instead of the training loop
    try:
        jax.distributed.initialize(**addresses)
    except (ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"devices.distributed=true: the processes of this run cannot be joined ({reason}); "
            "one process alone needs --config.devices.distributed=false"
        ) from None
    _watcher.start()
    atexit.register(_stop_watching)  # before JAX closes its client


def count() -> int:
    """Return the number of processes; 1 if not distributed (without initialising JAX)."""
    return jax.process_count() if jax.distributed.is_initialized() else 1


def is_main_process() -> bool:
    """Return True in the process that writes files."""
    return count() == 1 or jax.process_index() == 0


def wait() -> None:
    """Wait until all processes arrive here, without a timeout, while signals are handled.

    Collectives of devices are not used for this, because some of them time out after half a minute.
    """
    if count() == 1:
        return
    arrived: Future[None] = Future()
    barrier = f"drex_jax/{next(_numbers)}"

    def arrive() -> None:
        try:
            arrived.set_result(_client().wait_at_barrier(barrier, LONG))
        except Exception as error:
            arrived.set_exception(error)

    threading.Thread(target=arrive, daemon=True).start()  # the main thread must handle signals
    arrived.result()


def agree(*flags: bool) -> tuple[bool, ...]:
    """Return for each flag whether it is set in any process; all processes get the same answer."""
    if count() == 1:
        return flags
    return tuple(bool(flag) for flag in multihost_utils.process_allgather(np.array(flags)).any(axis=0))


def whole(array: jax.Array | np.ndarray) -> np.ndarray:
    """Gather an array from all devices and processes to the host. Must be called in all processes."""
    if isinstance(array, jax.Array) and not (array.is_fully_addressable or array.is_fully_replicated):
        array = multihost_utils.process_allgather(array, tiled=True)
    return np.asarray(array)


def exists_on_main_process(path: pathlib.Path) -> bool:
    """Return whether the first process sees a file; all processes get the same answer."""
    return agree(is_main_process() and path.exists())[0]


def await_file(path: pathlib.Path) -> None:
    """Wait until all processes are here and see a file that the first one has written.

    Raises:
      UserError: a process does not see it: the folder is not shared.
    """
    wait()
    until = time.monotonic() + SHARED_SECONDS
    while not path.exists() and time.monotonic() < until:
        time.sleep(POLL_SECONDS)
    wait()
    if agree(not path.exists())[0]:
        raise UserError(
            f"{path}: written by the first process of this run and not seen by all; "
            "--workdir must be on a file system that they share"
        )


def write_json(path: pathlib.Path, value: Any) -> None:
    """Write a JSON file in the first process, and wait until all processes see it."""
    if is_main_process():
        files.write_json(path, value)
    await_file(path)


def leave(status: int) -> None:
    """End this process, which failed, and all others with the same exit status. With one process it just returns.

    The others end within seconds, whatever they are doing. A killed process cannot call this: the others then end with
    an error of JAX, when a connection breaks or heartbeats are missing.
    """
    if count() == 1:
        return
    _watched.set()
    _client().key_value_set(ENDED, f"{status} {jax.process_index()}", allow_overwrite=True)
    _end(status)


def _client() -> Any:
    return distributed.global_state.client


def _end(status: int) -> None:
    """End this process at once. JAX's own exit would wait minutes for processes that have ended."""
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        _client().wait_at_barrier(ENDED, TOGETHER_MILLISECONDS)
        if is_main_process():
            time.sleep(1)  # the others still ask this process whether the barrier is passed
    finally:
        os._exit(status)


def _watch() -> None:
    """End this process when another one has called `leave`."""
    while not _watched.wait(POLL_SECONDS):
        try:
            status, process = map(int, _client().key_value_try_get(ENDED).split())
        except jax.errors.JaxRuntimeError:  # no such key
            continue
        if not _watched.wait(GRACE_SECONDS):
            print(f"drex_jax: ended by process {process} of this run, whose output says why", file=sys.stderr)
            _end(status)


def _stop_watching() -> None:
    _watched.set()
    _watcher.join()


_watched = threading.Event()
_watcher = threading.Thread(target=_watch, daemon=True)
