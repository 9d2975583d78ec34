"""One content-addressed store on disk: what took long to make, kept under a hash of everything it depends on.

An entry is one file, `kind/key.arrays`: arrays one after another, each at a multiple of 64 bytes and in C order, then a
JSON footer (names, dtypes, shapes, offsets, checksums), then the footer's own checksum, its length and a magic word. As
the footer comes last and files are published by rename, an entry is whole or it is not there; as an entry is one file,
a reader never sees half of one entry and half of another.

The hash is SHA-256: with the instructions that processors have for it (x86 since 2019, 64-bit ARM) it is the fastest
of hashlib, 1.0 to 1.4 GB/s on a core where BLAKE2b reached 0.65.
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
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

LOGGER = logging.getLogger(__name__)

ROOM = 16 << 30  # bytes of all that runs keep between them; the least recently used go first
_FORMAT = 1  # part of every key
_MAGIC = b"drexarr1"
_TRAILER = struct.Struct("<32sQ8s")  # the footer's SHA-256, its length, the magic word
_ALIGN = 64
_MAP_FROM_BYTES = 4 << 20  # a smaller entry is read: a map holds a file descriptor, of which a process has few
_CHUNK_BYTES = 1 << 20
_DEAD_AFTER_SECONDS = 24 * 3600  # a partial file that nobody has written to for so long has no writer


class _DamagedError(Exception):
    """Why an entry is not what was written."""


class Store:
    """Results on disk, found again by what they were made from. Safe for any number of threads and processes.

    It may be deleted at any time, in whole or in part (`rm -r`): that costs time, never results, and arrays already
    handed out stay valid (POSIX keeps a mapped file until its last user is gone).

    Args:
      folder: made when the first entry is written; `size()` and `du` say how much it holds.
      max_bytes: room for all entries together; after each new entry the least recently used go until the rest fits
        (the new one always stays). None: no bound; see `trim`.
      verify_bytes: entries up to this size have the checksums of their arrays verified whenever they are opened (at
        about 1 GB/s); of larger ones only the footer and the length.
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
        """What `make()` returns, from disk if it was made before for the same kind, inputs, options and version.

        A damaged entry is made anew, with one warning. Where the disk cannot be read or written, the result comes
        straight from `make`, with one warning a store: a cache never stops a run. What `make` raises passes through
        and leaves nothing behind.

        Args:
          kind: the folder of the entry: letters, digits, `_` and `-`.
          inputs: arrays of any shape and layout, possibly memory-mapped; names, dtypes, shapes and bytes count.
          options: whatever else the result depends on: None, booleans, numbers, strings, and sequences and
            string-keyed mappings of them. Tuples and lists count as the same.
          version: of the code behind `make`; raise it when its results change.
          make: a deterministic function of all that. Two processes may both call it; they get equal results.

        Returns:
          Read-only arrays in C order; those of an entry of 4 MiB or more are memory-mapped.

        Raises:
          ValueError: `kind` is not a folder's name.
          TypeError: an option is of another type; an array holds Python objects or has a dtype that its short name
            does not tell (structured, bfloat16: view it as a plain one).
        """
        key = _key(kind, inputs, options, version)
        entry = self._folder / kind / f"{key}.arrays"
        fault = ""
        try:
            found = self._read(entry, key)
        except FileNotFoundError:
            pass
        except (OSError, _DamagedError) as error:
            fault = str(error)
        else:
            with contextlib.suppress(OSError):  # when it was last used; a read-only store need not know
                os.utime(entry)
            return found
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
            LOGGER.warning("%s was damaged and is made anew: %s", entry, fault)
        return stored

    def size(self) -> int:
        """Bytes of all entries."""
        return sum(size for _, size, _ in self._entries())

    def trim(self, max_bytes: int, keep: Path | None = None) -> None:
        """Removes the least recently used entries until the rest takes at most `max_bytes`; 0 removes all but `keep`.

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
        """When last used, bytes and file of every entry, least recently used first."""
        entries = []
        for path in self._folder.glob("*/*.arrays"):
            with contextlib.suppress(FileNotFoundError):  # removed by another process since
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
            raise _DamagedError("the footer does not fit its checksum")
        described = json.loads(footer)
        if described["key"] != key:
            raise _DamagedError("it is another entry under this one's name")
        arrays = {}
        for name, dtype, shape, offset, checksum in described["arrays"]:
            if np.dtype(dtype).hasobject:  # of which bytes would be taken for addresses
                raise _DamagedError(f"array {name!r} holds Python objects")
            arrays[name] = np.ndarray(shape, dtype, data, offset)
            if size <= self._verify_bytes and _digest(arrays[name]) != checksum:
                raise _DamagedError(f"array {name!r} does not fit its checksum")
        return arrays

    def _publish(self, entry: Path, key: str, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Writes an entry beside its place, opens it, and only then gives it its name."""
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
        """Removes, once a store, what processes that were killed while writing have left."""
        if self._swept:
            return
        self._swept = True
        for path in self._folder.glob("*/*.partial"):
            with contextlib.suppress(OSError):  # just published or swept by another process, or another user's
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
    """An option as values that JSON tells apart."""
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
    """The array, if its dtype's short name tells all about it."""
    array = np.asarray(array)
    if array.dtype.hasobject or np.dtype(array.dtype.str) != array.dtype:
        raise TypeError(f"array {name!r} of dtype {array.dtype} cannot be stored; view it as a plain dtype")
    return array


def _frozen(array: np.ndarray) -> np.ndarray:
    """A read-only view in C order, as from disk."""
    array = np.ascontiguousarray(array).reshape(array.shape)  # the first makes a scalar a vector
    array.flags.writeable = False
    return array


def _chunks(array: np.ndarray) -> Iterator[memoryview]:
    """The bytes of an array in C order; each piece is valid until the next is asked for. Copies one piece at most."""
    if not array.nbytes:
        return
    items = max(1, _CHUNK_BYTES // array.itemsize)
    contiguous: Any = [["readonly", "contig"]]
    chunks: Any = np.nditer(array, ["external_loop", "buffered"], contiguous, order="C", buffersize=items)
    for chunk in chunks:
        yield chunk.view(np.uint8).data


def _digest(array: np.ndarray) -> str:
    digest = hashlib.sha256()
    for chunk in _chunks(array):
        digest.update(chunk)
    return digest.hexdigest()


def _write(path: Path, key: str, arrays: Mapping[str, np.ndarray]) -> None:
    described = []
    with path.open("xb") as file:
        for name, array in arrays.items():
            file.write(bytes(-file.tell() % _ALIGN))
            offset, digest = file.tell(), hashlib.sha256()
            for chunk in _chunks(array):
                file.write(chunk)
                digest.update(chunk)
            described.append([name, array.dtype.str, array.shape, offset, digest.hexdigest()])
        footer = json.dumps({"key": key, "arrays": described}).encode()
        file.write(footer + _TRAILER.pack(hashlib.sha256(footer).digest(), len(footer), _MAGIC))
        file.flush()
        os.fsync(file.fileno())


Arrays = dict[str, np.ndarray]


class Cache(Protocol):
    """Keeps arrays that are a function of others: `Store.arrays`."""

    def __call__(
        self,
        kind: str,
        inputs: Mapping[str, np.ndarray],
        options: Mapping[str, Any],
        version: int,
        make: Callable[[], Mapping[str, np.ndarray]],
    ) -> Arrays: ...


def no_cache(
    kind: str,
    inputs: Mapping[str, np.ndarray],
    options: Mapping[str, Any],
    version: int,
    make: Callable[[], Mapping[str, np.ndarray]],
) -> Arrays:
    """A `Cache` that forgets."""
    return dict(make())
