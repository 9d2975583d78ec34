"""Read files of JSON reviews, one on each line: in blocks, on all cores, each block once.

Worker processes read a file of more than one block and store the decoded blocks in the cache; this process takes them
from there, memory-mapped. So an interrupted start continues, another run over the same file decodes nothing again, and
the texts of a large file are not in the memory of this process.
"""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import itertools
import logging
import multiprocessing
import signal
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np

from drex_jax.common.cache import Cache, no_cache
from drex_jax.common.cores import available_cores
from drex_jax.data.readers import json_decode
from drex_jax.data.readers.chunk import Chunk
from drex_jax.data.readers.json_decode import Format
from drex_jax.data.readers.lines import whole_lines
from drex_jax.data.readers.quarantine import Quarantine

BLOCK_BYTES = 32 << 20


def read(
    path: Path, form: Format, scale: tuple[float, float], quarantine: Quarantine, cache: Cache = no_cache
) -> Iterator[Chunk]:
    """Yield chunks of the reviews in file order.

    Args:
      path: the file, plain or gzip.
      form: format of its lines.
      scale: the lowest and the highest rating.
      quarantine: receives the bad rows.
      cache: keeps the decoded blocks of large files; worker processes are used only with a cache.
    """
    blocks = whole_lines(path, quarantine, BLOCK_BYTES)
    beginning = list(itertools.islice(blocks, 2))
    everything = itertools.chain(beginning, blocks)
    if len(beginning) == 1 or cache is no_cache:
        decoded = ((number, json_decode.decode(lines, form, scale)) for number, lines in everything)
    else:
        decoded = _on_all_cores(everything, form, scale, cache)
    for number, arrays in decoded:
        chunk, rejected = json_decode.reviews_of(arrays)
        for row in rejected:
            quarantine.record(path, number + row.line, row.reason, row.value)
        yield chunk


def _cached(lines: bytes, form: Format, scale: tuple[float, float], cache: Cache) -> dict[str, np.ndarray]:
    """Return a decoded block, from the cache if it was decoded before."""
    return cache(
        "reviews",
        {"lines": np.frombuffer(lines, np.uint8)},
        {"format": form.name, "scale": scale},
        json_decode.VERSION,
        lambda: json_decode.decode(lines, form, scale),
    )


def _fill_cache(lines: bytes, form: Format, scale: tuple[float, float], cache: Cache) -> None:
    """Decode a block into the cache (in a worker process, so nothing is returned)."""
    _cached(lines, form, scale, cache)


def _on_all_cores(
    blocks: Iterator[tuple[int, bytes]], form: Format, scale: tuple[float, float], cache: Cache
) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """Yield the decoded blocks in order; worker processes decode ahead."""
    cores = available_cores()
    spawned = multiprocessing.get_context("spawn")  # a forked process may hang, as this one has threads
    pending: collections.deque[tuple[int, bytes, concurrent.futures.Future[None] | None]] = collections.deque()

    def oldest() -> tuple[int, dict[str, np.ndarray]]:
        number, lines, future = pending.popleft()
        if future is not None:
            with contextlib.suppress(BrokenProcessPool):  # then this process decodes
                future.result()
        return number, _cached(lines, form, scale, cache)

    with concurrent.futures.ProcessPoolExecutor(cores, spawned, _begin) as pool:
        for number, lines in blocks:
            try:
                future = pool.submit(_fill_cache, lines, form, scale, cache)
            except BrokenProcessPool:
                future = None
            pending.append((number, lines, future))
            if len(pending) > cores:
                yield oldest()
        while pending:
            yield oldest()


def _begin() -> None:
    """Initialise a worker process: logging and interrupts are left to the main process."""
    logging.disable()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
