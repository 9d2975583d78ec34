"""Many processes that do one run: joined by `jax.distributed`, each runs the same command over all their devices.

All take the same decisions in the same order, for each step is a collective. So what only one of them knows (a signal,
a clock, a full disk, a file that only the first one has seen) is agreed on before anybody acts on it; only the first
writes files; and where one fails alone, `leave` takes the others with it instead of leaving them waiting for ever.
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

# Public `jax.distributed` has initialize, is_initialized and shutdown. Its client is missing: the key-value store and
# the barrier with a time limit, which do not need the devices. Looked for in `jax`, `jax.extend` and `jax.experimental`
# of JAX 0.10.2 (`multihost_utils` has collectives of devices alone, and takes the client from the same private module).
from jax._src import distributed
from jax.experimental import multihost_utils

from drex_jax.common import files
from drex_jax.common.errors import UserError

LONG = 24 * 3600 * 1000  # milliseconds: waiting ends when all are there or one is dead, not by the clock
SHARED_SECONDS = 70.0  # NFS may go on for a minute to say that a file is not there
POLL_SECONDS = 0.5
GRACE_SECONDS = 3.0  # for a process to end by itself, where all of them fail alike
TOGETHER_MILLISECONDS = 5_000
ENDED = "drex_jax/ended"
_numbers = itertools.count()  # barriers are used once


def connect(wanted: bool) -> None:
    """Joins the processes of a run (`jax.distributed`), as Cloud TPU, SLURM, GKE and Open MPI set them up.

    Elsewhere JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID say who is who. To be called before
    anything else asks JAX for its devices.

    Raises:
      UserError: they cannot be joined.
    """
    if not wanted or jax.distributed.is_initialized():
        return
    places: dict[str, Any] = {}
    if "JAX_COORDINATOR_ADDRESS" in os.environ:
        try:
            places = {
                "coordinator_address": os.environ["JAX_COORDINATOR_ADDRESS"],
                "num_processes": int(os.environ["JAX_NUM_PROCESSES"]),
                "process_id": int(os.environ["JAX_PROCESS_ID"]),
            }
        except (KeyError, ValueError) as error:
            raise UserError(
                f"beside JAX_COORDINATOR_ADDRESS set JAX_NUM_PROCESSES and JAX_PROCESS_ID, whole numbers ({error})"
            ) from None
    jax.config.update("jax_enable_preemption_service", False)  # it would take SIGTERM from the training loop
    try:
        jax.distributed.initialize(**places)
    except (ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"devices.distributed=true: the processes of this run cannot be joined ({reason}); "
            "one process alone needs --config.devices.distributed=false"
        ) from None
    _watcher.start()
    atexit.register(_stop_watching)  # before JAX takes its client away


def count() -> int:
    """How many processes `connect` joined; 1 without it, and then JAX is not asked for its devices."""
    return jax.process_count() if jax.distributed.is_initialized() else 1


def is_main_process() -> bool:
    """Whether this process is the one that writes files."""
    return count() == 1 or jax.process_index() == 0


def wait() -> None:
    """Waits until all processes are here, however long that takes; signals are answered meanwhile.

    Unlike a collective of the devices, some of which give up after half a minute.
    """
    if count() == 1:
        return
    arrived: Future[None] = Future()
    barrier = f"drex_jax/{next(_numbers)}"

    def stand() -> None:
        try:
            arrived.set_result(_client().wait_at_barrier(barrier, LONG))
        except Exception as error:
            arrived.set_exception(error)

    threading.Thread(target=stand, daemon=True).start()  # the main thread has signals to answer
    arrived.result()


def agree(*flags: bool) -> tuple[bool, ...]:
    """For each flag whether any process has it set; all processes get the same answer."""
    if count() == 1:
        return flags
    return tuple(bool(flag) for flag in multihost_utils.process_allgather(np.array(flags)).any(axis=0))


def whole(array: jax.Array | np.ndarray) -> np.ndarray:
    """An array on the host, whatever devices of whatever processes hold its parts: to be called in all of them."""
    if isinstance(array, jax.Array) and not (array.is_fully_addressable or array.is_fully_replicated):
        array = multihost_utils.process_allgather(array, tiled=True)
    return np.asarray(array)


def exists_on_main_process(path: pathlib.Path) -> bool:
    """Whether the first process sees a file: decisions that hang on one must not differ between processes."""
    return agree(is_main_process() and path.exists())[0]


def await_file(path: pathlib.Path) -> None:
    """Waits until all processes are here and see a file that the first one has written.

    Raises:
      UserError: one does not: the folder is not shared.
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
    """Writes a JSON file, once whatever the number of processes, and waits until all see it."""
    if is_main_process():
        files.write_json(path, value)
    await_file(path)


def leave(status: int) -> None:
    """Ends this process, which failed, and all the others with its exit status; returns where there are no others.

    They end within seconds, whatever they are doing. A process that is killed cannot call this: the others end with an
    error of JAX's, when a connection breaks or heartbeats are missing.
    """
    if count() == 1:
        return
    _watched.set()
    _client().key_value_set(ENDED, f"{status} {jax.process_index()}", allow_overwrite=True)
    _end(status)


def _client() -> Any:
    return distributed.global_state.client


def _end(status: int) -> None:
    """Ends this process at once, without JAX's own way out, which waits minutes for those that are gone."""
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        _client().wait_at_barrier(ENDED, TOGETHER_MILLISECONDS)
        if is_main_process():
            time.sleep(1)  # the others still hear from it that the barrier is passed
    finally:
        os._exit(status)


def _watch() -> None:
    """Ends this process when another has left."""
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
