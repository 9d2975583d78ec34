"""Files of JSON reviews, one a line: read in blocks, on all cores, each block once.

A file of more than one block is read by processes of their own, which keep what they have read; this one takes it from
there, mapped into memory. So a start that was interrupted goes on, another run over the same file reads nothing anew,
and the texts of a large file are not in this process's memory.
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
    """Chunks of the reviews in file order.

    Args:
      path: the file, plain or gzip.
      form: what its lines should be.
      scale: the lowest and the highest rating.
      quarantine: told of bad rows.
      cache: keeps what was read of large files; only then are there other processes.
    """
    blocks = whole_lines(path, quarantine, BLOCK_BYTES)
    beginning = list(itertools.islice(blocks, 2))
    everything = itertools.chain(beginning, blocks)
    if len(beginning) == 1:
        found = ((number, json_decode.decode(lines, form, scale)) for number, lines in everything)
    elif cache is no_cache:
        found = ((number, _kept(lines, form, scale, cache)) for number, lines in everything)
    else:
        found = _on_all_cores(everything, form, scale, cache)
    for number, arrays in found:
        chunk, rejected = json_decode.chunk_of(arrays)
        for each in rejected:
            quarantine.record(path, number + each.line, each.reason, each.found)
        yield chunk


def _kept(lines: bytes, form: Format, scale: tuple[float, float], cache: Cache) -> dict[str, np.ndarray]:
    """What a block holds, read or as it was read before."""
    return cache(
        "reviews",
        {"lines": np.frombuffer(lines, np.uint8)},
        {"format": form.name, "scale": scale},
        json_decode.VERSION,
        lambda: json_decode.decode(lines, form, scale),
    )


def _read(lines: bytes, form: Format, scale: tuple[float, float], cache: Cache) -> None:
    """Of a process that reads."""
    _kept(lines, form, scale, cache)


def _on_all_cores(
    blocks: Iterator[tuple[int, bytes]], form: Format, scale: tuple[float, float], cache: Cache
) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """As `_kept` of each block in turn, made by processes that work ahead."""
    cores = available_cores()
    spawned = multiprocessing.get_context("spawn")  # a fork of a process that has threads may hang
    pending: collections.deque[tuple[int, bytes, concurrent.futures.Future | None]] = collections.deque()

    def oldest() -> tuple[int, dict[str, np.ndarray]]:
        number, lines, future = pending.popleft()
        if future is not None:
            with contextlib.suppress(BrokenProcessPool):  # then this process reads
                future.result()
        return number, _kept(lines, form, scale, cache)

    with concurrent.futures.ProcessPoolExecutor(cores, spawned, _begin) as pool:
        for number, lines in blocks:
            try:
                future = pool.submit(_read, lines, form, scale, cache)
            except BrokenProcessPool:
                future = None
            pending.append((number, lines, future))
            if len(pending) > cores:
                yield oldest()
        while pending:
            yield oldest()


def _begin() -> None:
    """Of a process that reads: the one that asked speaks for all, and is the one to be interrupted."""
    logging.disable()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
