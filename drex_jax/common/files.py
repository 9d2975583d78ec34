"""Small files of a run directory, written atomically."""

from __future__ import annotations

import contextlib
import json
import math
import os
import pathlib
from collections.abc import Collection, Generator
from typing import Any, BinaryIO

import orjson

from drex_jax.common.errors import UserError

MAX_JSON_BYTES = 256 << 20  # of one file; a run writes far less
MAX_JSON_LEVELS = 100  # nested lists and objects


def write_json(path: pathlib.Path, value: Any) -> None:
    """Write a JSON file atomically; a float that is not finite becomes null."""
    write_text(path, json.dumps(_finite(value), indent=2, allow_nan=False) + "\n")


def write_text(path: pathlib.Path, text: str) -> None:
    """Write a text file atomically."""
    with replacing(path) as file:
        file.write(text.encode())


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Generator[BinaryIO]:
    """Open a temporary file that is renamed to `path` once it is written and synced; on an exception it is removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read_json(path: pathlib.Path, keys: Collection[str]) -> dict[str, Any]:
    """Return the object in a JSON file, which must have `keys`.

    Raises:
      UserError: the file is missing or damaged.
    """
    try:
        value = json_of(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); the run directory is not complete") from None
    except ValueError:
        raise UserError(f"{path}: damaged; it should be JSON as the run wrote it") from None
    if not isinstance(value, dict) or not value.keys() >= set(keys):
        raise UserError(f"{path}: damaged; it should be a JSON object with {' '.join(keys)}, as the run wrote it")
    return value


def json_of(path: pathlib.Path) -> Any:
    """Return the value in a JSON file that may come from an untrusted source.

    Raises:
      OSError: the file cannot be read.
      ValueError: the file is not JSON, or exceeds `MAX_JSON_BYTES` or `MAX_JSON_LEVELS`.
    """
    if path.stat().st_size > MAX_JSON_BYTES:
        raise ValueError(f"above {MAX_JSON_BYTES:,} bytes")
    return parsed(path.read_bytes())


def parsed(text: bytes) -> Any:
    """Return the value of a JSON text.

    Raises:
      ValueError: the text is not JSON, or exceeds `MAX_JSON_LEVELS`.

    >>> parsed(b'{"a": [1, 2.5]}')
    {'a': [1, 2.5]}
    """
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:  # orjson refuses lone surrogates, which stand in paths that are not UTF-8
        try:
            value = json.loads(text, parse_constant=_number, parse_float=_number)
        except RecursionError:
            raise ValueError("nested too deep") from None
    if _deeper(value, MAX_JSON_LEVELS):
        raise ValueError(f"more than {MAX_JSON_LEVELS} levels")
    return value


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is no number of JSON")
    return value


def _deeper(value: Any, levels: int) -> bool:
    """Return True if a value has more than `levels` levels of nested lists and objects."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return any(levels == 0 or _deeper(element, levels - 1) for element in inner)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
