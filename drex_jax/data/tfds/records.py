"""A review as a record of TFDS: the bytes of a tf.train.Example, made and read here.

They are what TFDS's own serialiser makes (the tests compare them), made seven times as fast, and always the same:
TFDS leaves the order of an example's fields to chance.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from tensorflow_datasets.proto import tf_example_pb2

from drex_jax.data.readers.chunk import Chunk, ChunkBuilder
from drex_jax.data.strings import Strings

VECTORS = "vectors/"  # what TFDS puts before the names of the features in the dictionary "vectors"
_IDS = (("user_id", "user"), ("item_id", "item"), ("text", "text"))
_Example: Any = tf_example_pb2.Example  # pyright: ignore[reportAttributeAccessIssue]


def examples_of(chunk: Chunk, vectors: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The rows of a chunk as a builder's examples; a missing vector is one without elements.

    Args:
      chunk: as a reader yields it.
      vectors: the names of the vectors that examples have.
    """
    columns: list[Sequence[Any]] = [_listed(getattr(chunk, ours)) for _, ours in _IDS]
    columns += [list(chunk.timestamp), list(chunk.rating)]
    names = [*(theirs for theirs, _ in _IDS), "timestamp", "rating"]
    if chunk.split is not None:
        columns.append(chunk.split.tolist())
        names.append("split")
    nothing = np.zeros(0, np.float32)
    for number, row in enumerate(zip(*columns, strict=True)):
        example = dict(zip(names, row, strict=True))
        if vectors:
            found = {name: values[number] for name, values in chunk.vectors.items()}
            example["vectors"] = {
                name: nothing if np.isnan(found.get(name, np.nan)).any() else found[name] for name in vectors
            }
        yield example


def _listed(column: Strings) -> list[bytes]:
    data = column.data.tobytes()
    return [data[begin:end] for begin, end in itertools.pairwise(column.offsets.tolist())]


def encode(example: Mapping[str, Any]) -> bytes:
    """The record of an example."""
    record = _Example()
    feature = record.features.feature
    for name, _ in _IDS:
        feature[name].bytes_list.value.append(example[name])
    feature["timestamp"].bytes_list.value.append(example["timestamp"].tobytes())  # TFDS keeps floats as float32
    feature["rating"].float_list.value.append(example["rating"])
    if "split" in example:
        feature["split"].int64_list.value.append(example["split"])
    for name, vector in example.get("vectors", {}).items():
        values = feature[VECTORS + name].float_list
        values.SetInParent()
        values.value.extend(vector.tolist())
    return record.SerializeToString(deterministic=True)


def decode(records: Sequence[bytes], vectors: Sequence[str], has_split: bool) -> dict[str, np.ndarray]:
    """The rows of some records as arrays: `chunk_of` says what they are.

    Args:
      records: as `encode` made them.
      vectors: the names of the vectors they have.
      has_split: whether they have a split.

    Raises:
      IndexError: a record lacks a field.
    """
    builder = ChunkBuilder(tuple(vectors), has_split)
    for record in records:
        feature = _Example.FromString(record).features.feature
        rows = (np.array(feature[VECTORS + name].float_list.value, np.float32) for name in vectors)
        user, item, text = (feature[name].bytes_list.value[0] for name, _ in _IDS)
        builder.add(
            user,
            item,
            np.frombuffer(feature["timestamp"].bytes_list.value[0], np.float64)[0],
            feature["rating"].float_list.value[0],
            text,
            tuple(row if len(row) else None for row in rows),
            feature["split"].int64_list.value[0] if has_split else 0,
        )
    chunk = builder.take()
    arrays = {"timestamp": chunk.timestamp, "rating": chunk.rating}
    for _, name in _IDS:
        column: Strings = getattr(chunk, name)
        arrays |= {f"{name}.bytes": column.data, f"{name}.offsets": column.offsets}
    if chunk.split is not None:
        arrays["split"] = chunk.split
    return arrays | {VECTORS + name: values for name, values in chunk.vectors.items()}


def chunk_of(arrays: Mapping[str, np.ndarray]) -> Chunk:
    """The chunk whose arrays `decode` gave."""
    user, item, text = (
        Strings(arrays[f"{name}.bytes"], arrays[f"{name}.offsets"]) for name in ("user", "item", "text")
    )
    vectors = {name.removeprefix(VECTORS): values for name, values in arrays.items() if name.startswith(VECTORS)}
    return Chunk(user, item, arrays["timestamp"], arrays["rating"], text, vectors, arrays.get("split"))
