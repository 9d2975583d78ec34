"""Small files of a run directory, written whole or not at all."""

from __future__ import annotations

import contextlib
import json
import math
import os
import pathlib
from collections.abc import Collection, Iterator
from typing import Any, BinaryIO

import orjson

from drex_jax.common.errors import UserError

MAX_JSON_BYTES = 256 << 20  # of one file: what a run writes is far below it
MAX_JSON_LEVELS = 100  # lists and objects within one another


def write_json(path: pathlib.Path, value: Any) -> None:
    """Writes a JSON file atomically; a float that is not finite becomes null."""
    write_text(path, json.dumps(_finite(value), indent=2, allow_nan=False) + "\n")


def write_text(path: pathlib.Path, text: str) -> None:
    """Writes a text file atomically: into a neighbour that then takes its name."""
    with replacing(path) as file:
        file.write(text.encode())


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[BinaryIO]:
    """A file to write that takes the name `path` when all is written and on the disk; nothing is left otherwise."""
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
    """The object in a JSON file, which must have `keys`.

    Raises:
      UserError: it is missing or damaged.
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
    """What a JSON file says that need not be trusted.

    Raises:
      OSError: it cannot be read.
      ValueError: it is no JSON, or beyond `MAX_JSON_BYTES` or `MAX_JSON_LEVELS`.
    """
    if path.stat().st_size > MAX_JSON_BYTES:
        raise ValueError(f"above {MAX_JSON_BYTES:,} bytes")
    return parsed(path.read_bytes())


def parsed(text: bytes) -> Any:
    """What a piece of JSON says.

    Raises:
      ValueError: it is none, or beyond `MAX_JSON_LEVELS`.
    """
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:  # it knows no lone surrogates, which paths that are not UTF-8 have
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
    """Whether a value has more levels than so many."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return any(levels == 0 or _deeper(each, levels - 1) for each in inner)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
