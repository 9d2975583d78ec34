"""A content-addressed cache on disk: results that take long to compute, stored under a hash of all their inputs.

An entry is one file, `kind/key.arrays`: the arrays one after another (in C order, each at a multiple of 64 bytes), a
JSON footer (names, dtypes, shapes, offsets, checksums), and a trailer (checksum and length of the footer, a magic
word). The footer is written last and a file gets its name by rename, so an entry is either complete or absent. An entry
is a single file, so a reader never sees parts of two entries.

Why our own format: safetensors has no byte strings, dates or big-endian numbers and aligns to 8 bytes. The metadata of
an Arrow IPC file has no checksum, so a flipped offset in an entry larger than `verify_bytes` would be served.

The hash is SHA-256. With the instructions that processors have for it (x86 since 2019, 64-bit ARM) it is the fastest
hash in hashlib: 1.0 to 1.4 GB/s on one core, where BLAKE2b reached 0.65.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import mmap
import os
import re
import secrets
import struct
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

LOGGER = logging.getLogger(__name__)

ROOM = 16 << 30  # bytes shared by the entries of all runs; the least recently used are removed first
_FORMAT = 1  # part of every key
_MAGIC = b"drexarr1"
_TRAILER = struct.Struct("<32sQ8s")  # the footer's SHA-256, its length, the magic word
_ALIGN = 64
_MAP_FROM_BYTES = 4 << 20  # smaller entries are read: a map holds a file descriptor, and a process has few
_DEAD_AFTER_SECONDS = 24 * 3600  # a partial file that did not change for so long has no writer any more


class _DamagedError(Exception):
    """The content of an entry is damaged; the message says why."""


class Store:
    """Results on disk, found by the inputs they were computed from. Safe for any number of threads and processes.

    The folder, or any part of it, may be deleted at any time (`rm -r`). That costs time but never results, and arrays
    already returned stay valid (POSIX keeps a mapped file until its last user is gone).

    Args:
      folder: created with the first entry; `du` says how much it holds.
      max_bytes: limit for all entries together. After each new entry the least recently used ones are removed until
        the rest fits (the new one always stays). None: no limit; see `trim`.
      verify_bytes: entries up to this size have the checksums of their arrays verified whenever they are opened (at
        about 1 GB/s). Of larger entries only the footer and the length are verified.
    """

    def __init__(self, folder: Path, max_bytes: int | None = None, verify_bytes: int = 256 << 20):
        self._folder = Path(folder)
        self._max_bytes = max_bytes
        self._verify_bytes = verify_bytes
        self._swept = False
        self._unusable = False

    def arrays(
        self,
        kind: str,
        inputs: Mapping[str, np.ndarray],
        options: Mapping[str, Any],
        version: int,
        make: Callable[[], Mapping[str, np.ndarray]],
    ) -> dict[str, np.ndarray]:
        """Return the result of `make()`, from disk if it was stored for the same kind, inputs, options and version.

        A damaged entry is computed again, with one warning. If the disk cannot be read or written, the result comes
        straight from `make`, with one warning for each store: the cache never stops a run. An exception raised by
        `make` passes through and nothing is stored.

        Args:
          kind: folder of the entry: letters, digits, `_` and `-`.
          inputs: arrays of any shape and layout, possibly memory-mapped; names, dtypes, shapes and bytes count.
          options: everything else that the result depends on: None, booleans, numbers, strings, and sequences and
            string-keyed mappings of them. A tuple equals a list.
          version: version of the code in `make`; increase it when its results change.
          make: a deterministic function of the above. Two processes may both call it; they get equal results.

        Returns:
          Read-only arrays in C order; those of an entry of 4 MiB or more are memory-mapped.

        Raises:
          ValueError: `kind` is not a folder name.
          TypeError: an option has another type; an array holds Python objects, or its dtype is not fully described by
            its short name (structured, bfloat16: view it as a plain dtype).
        """
        key = _key(kind, inputs, options, version)
        entry = self._folder / kind / f"{key}.arrays"
        fault = ""
        try:
            stored = self._read(entry, key)
        except FileNotFoundError:
            pass
        except (OSError, _DamagedError) as error:
            fault = str(error)
        else:
            with contextlib.suppress(OSError):  # the time of last use; a read-only store cannot record it
                os.utime(entry)
            return stored
        made = {name: _plain(name, array) for name, array in make().items()}
        try:
            stored = self._publish(entry, key, made)
            self._sweep()
            if self._max_bytes is not None:
                self.trim(self._max_bytes, entry)
        except (OSError, _DamagedError) as error:
            if not self._unusable:
                self._unusable = True
                LOGGER.warning("%s cannot keep results, which are made for this run only: %s", self._folder, error)
            return {name: _frozen(array) for name, array in made.items()}
        if fault:
            LOGGER.warning("%s was damaged and is computed again: %s", entry, fault)
        return stored

    def trim(self, max_bytes: int, keep: Path | None = None) -> None:
        """Remove the least recently used entries until the rest takes at most `max_bytes`; 0 removes all but `keep`.

        Raises:
          OSError: an entry cannot be removed.
        """
        entries = self._entries()
        total = sum(size for _, size, _ in entries)
        for _, size, path in entries:
            if total > max_bytes and path != keep:
                path.unlink(missing_ok=True)
                total -= size

    def _entries(self) -> list[tuple[int, int, Path]]:
        """Return (time of last use, bytes, file) of every entry, least recently used first."""
        entries = []
        for path in self._folder.glob("*/*.arrays"):
            with contextlib.suppress(FileNotFoundError):  # removed by another process in the meantime
                status = path.stat()
                entries.append((status.st_mtime_ns, status.st_size, path))
        return sorted(entries)

    def _read(self, path: Path, key: str) -> dict[str, np.ndarray]:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size >= _MAP_FROM_BYTES else file.read()
        end = len(data) - _TRAILER.size
        checksum, length, magic = _TRAILER.unpack_from(data, end) if end >= 0 else (b"", 0, b"")
        if magic != _MAGIC:
            raise _DamagedError("it does not end as it should")
        footer = data[end - length : end]
        if hashlib.sha256(footer).digest() != checksum:
            raise _DamagedError("the footer does not match its checksum")
        described = json.loads(footer)
        if described["key"] != key:
            raise _DamagedError("the file holds another entry")
        arrays = {}
        for name, dtype, shape, offset, checksum in described["arrays"]:
            if np.dtype(dtype).hasobject:  # their bytes would be interpreted as addresses
                raise _DamagedError(f"array {name!r} holds Python objects")
            arrays[name] = np.ndarray(shape, dtype, data, offset)
            if size <= self._verify_bytes and _digest(arrays[name]) != checksum:
                raise _DamagedError(f"array {name!r} does not match its checksum")
        return arrays

    def _publish(self, entry: Path, key: str, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Write an entry to a temporary file, open it, and only then give it its name."""
        entry.parent.mkdir(parents=True, exist_ok=True)
        partial = entry.with_name(f"{key}.{secrets.token_hex(8)}.partial")
        try:
            _write(partial, key, arrays)
            stored = self._read(partial, key)
            partial.replace(entry)
            folder = os.open(entry.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        finally:
            partial.unlink(missing_ok=True)
        return stored

    def _sweep(self) -> None:
        """Remove the partial files of killed processes; done once by each store."""
        if self._swept:
            return
        self._swept = True
        for path in self._folder.glob("*/*.partial"):
            with contextlib.suppress(OSError):  # just published or removed by another process, or owned by another user
                if time.time() - path.stat().st_mtime > _DEAD_AFTER_SECONDS:
                    path.unlink()


def _key(kind: str, inputs: Mapping[str, np.ndarray], options: Mapping[str, Any], version: int) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_-]+", kind):
        raise ValueError(f"kind {kind!r} is not a folder's name; use letters, digits, _ and -")
    arrays = {name: _plain(name, array) for name, array in inputs.items()}
    described = [[name, array.dtype.str, array.shape, _digest(array)] for name, array in sorted(arrays.items())]
    named = [_FORMAT, kind, version, _canonical(options), described]
    return hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()


def _canonical(option: Any) -> Any:
    """Return an option as values that JSON can distinguish."""
    if isinstance(option, np.generic):
        option = option.item()
    if isinstance(option, Mapping) and all(isinstance(name, str) for name in option):
        return {name: _canonical(value) for name, value in option.items()}
    if isinstance(option, list | tuple):
        return [_canonical(value) for value in option]
    if option is None or isinstance(option, bool | int | float | str):
        return option
    raise TypeError(f"option {option!r} of type {type(option).__name__} has no place in a key; see Store.arrays")


def _plain(name: str, array: Any) -> np.ndarray:
    """Return the array if the short name of its dtype describes it fully; raise TypeError otherwise."""
    array = np.asarray(array)
    if array.dtype.hasobject or np.dtype(array.dtype.str) != array.dtype:
        raise TypeError(f"array {name!r} of dtype {array.dtype} cannot be stored; view it as a plain dtype")
    return array


def _frozen(array: np.ndarray) -> np.ndarray:
    """Return a read-only view in C order, like an array from disk."""
    array = np.ascontiguousarray(array).reshape(array.shape)  # `ascontiguousarray` turns a scalar into a vector
    array.flags.writeable = False
    return array


def _bytes(array: np.ndarray) -> memoryview:
    """Return the bytes of an array in C order; only an array in another order is copied."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def _digest(array: np.ndarray) -> str:
    return hashlib.sha256(_bytes(array)).hexdigest()


def _write(path: Path, key: str, arrays: Mapping[str, np.ndarray]) -> None:
    described = []
    with path.open("xb") as file:
        for name, array in arrays.items():
            file.write(bytes(-file.tell() % _ALIGN))
            described.append([name, array.dtype.str, array.shape, file.tell(), _digest(array)])
            file.write(_bytes(array))
        footer = json.dumps({"key": key, "arrays": described}).encode()
        file.write(footer + _TRAILER.pack(hashlib.sha256(footer).digest(), len(footer), _MAGIC))
        file.flush()
        os.fsync(file.fileno())


Arrays = dict[str, np.ndarray]
Make = Callable[[], Mapping[str, np.ndarray]]
Cache = Callable[[str, Mapping[str, np.ndarray], Mapping[str, Any], int, Make], Arrays]
"""A function that memoises `make`, such as `Store.arrays`: (kind, inputs, options, version, make) -> arrays."""


def no_cache(
    kind: str, inputs: Mapping[str, np.ndarray], options: Mapping[str, Any], version: int, make: Make
) -> Arrays:
    """Call `make`: a `Cache` that stores nothing."""
    return dict(make())
