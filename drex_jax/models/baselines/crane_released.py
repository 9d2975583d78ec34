"""CRANE as in its public code (version of 2025-01), for comparison: the paper describes a different model.

It has the two graphs of FREEDOM, without FREEDOM's loss on features. The content of an item is one product of the graph
of items with the fused features of items: two linear layers for each modality, multi-head attention, the mean over
modalities. The sequence axis of the attention is the items, so no modality attends to another, and the cost is
quadratic in the number of items. In `ReleasedAxisFixed` each item attends over its own modalities instead. With a
single modality the released code replaces the attention by embeddings; ours treats one modality like several.

Letters: I items, M modalities, F features of a modality, D row size, h heads, S the length of a sequence.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp

from drex_jax.common.errors import UserError
from drex_jax.models.baselines.two_graphs import Constants, TwoGraphs, linear
from drex_jax.models.graph.propagation import propagate
from drex_jax.models.pairwise import TrainPairs, xavier
from drex_jax.models.protocol import Params

HEADS = 4  # as in the released code
MAX_ITEMS = 32_768  # items that can attend to each other: a step has 2^30 scores for each head and modality
BLOCK_SCORES = 1 << 24  # attention scores in memory at a time, over all heads and modalities


@dataclasses.dataclass(frozen=True)
class Released(TwoGraphs):
    """The model `crane_released`, in which items attend to each other."""

    called = "crane_released"
    axis_fixed: ClassVar[bool] = False

    @classmethod
    def over(cls, pairs: TrainPairs, *groups: Any) -> tuple[Self, Constants]:
        """Return the model and both graphs.

        Raises:
          UserError: the data have no item features or too many items for the attention, or the size is not divisible
            by `HEADS`.
        """
        size = groups[0].size
        if size % HEADS:
            raise UserError(f"ranker.size = {size}: crane_released needs a multiple of its {HEADS} heads")
        if not cls.axis_fixed and pairs.num_items > MAX_ITEMS:
            raise UserError(
                f"crane_released compares all items with each other, at most {MAX_ITEMS:,}, and these data have "
                f"{pairs.num_items:,}: use crane_released_axis_fixed or crane"
            )
        return super().over(pairs, *groups)

    def init_content(self, key: jax.Array) -> dict[str, Any]:
        """Return the linear layers and `attention`, initialised as in PyTorch.

        The layers are `first` and `second` by modality, and, in `attention`, `into` (queries, keys, values) and `out`.
        Each is (weights, bias).
        """
        widths, size = self.widths, self.settings.size
        first, second, into, out = jax.random.split(key, 4)
        keys = [jax.random.split(each, len(widths)) for each in (first, second)]
        return {
            "first": [_layer(k, width, size) for k, width in zip(keys[0], widths, strict=True)],
            "second": [_layer(k, size, size) for k in keys[1]],
            "attention": {
                "into": (xavier(into, size, 3 * size), jnp.zeros(3 * size)),
                "out": (linear(out, size, size), jnp.zeros(size)),
            },
        }

    def content(self, params: Params, constants: Constants) -> jax.Array:
        """Return the fused features of each item's neighbours."""
        projected = jnp.stack(
            [
                _apply(second, _apply(first, values))
                for values, first, second in zip(params["features"], params["first"], params["second"], strict=True)
            ]
        )  # [M, I, D]
        present = jnp.asarray(constants.present)
        if self.axis_fixed:
            attended = attend(params["attention"], projected.swapaxes(0, 1), present.T).swapaxes(0, 1)
        else:
            attended = attend(params["attention"], projected, present)
        attended = jnp.where(present[:, :, None], attended, 0.0)
        fused = attended.sum(0) / jnp.maximum(present.sum(0), 1)[:, None]
        return propagate(constants.semantic, fused)


@dataclasses.dataclass(frozen=True)
class ReleasedAxisFixed(Released):
    """The model `crane_released_axis_fixed`, in which each item attends over its own modalities."""

    axis_fixed = True


def attend(weights: dict[str, Any], x: jax.Array, present: jax.Array) -> jax.Array:
    """Apply multi-head self-attention (Vaswani et al., 2017) within each of n sequences, in blocks of queries.

    Only the scores of one block are in memory at a time; the backward pass computes them again.

    Args:
      weights: `into` ([D, 3D], [3D]) gives queries, keys and values, `out` ([D, D], [D]) the output from all heads.
      x: [n, S, D], the inputs.
      present: bool [n, S]; positions that are not present are masked as keys.

    Returns:
      The outputs, [n, S, D].
    """
    n, length, size = x.shape
    heads = _apply(weights["into"], x).reshape(n, length, 3, HEADS, size // HEADS)
    query, key, value = (heads[:, :, part].swapaxes(1, 2) for part in range(3))  # [n, h, S, D / h]
    query = query / math.sqrt(size // HEADS)
    mask = present[:, None, None, :]

    @jax.checkpoint
    def block_of(query: jax.Array) -> jax.Array:
        scores = jnp.where(mask, query @ key.swapaxes(2, 3), -1e30)
        return jax.nn.softmax(scores, axis=-1) @ value

    block = min(length, max(1, BLOCK_SCORES // (n * HEADS * length)))
    num_blocks = -(-length // block)
    padded = jnp.pad(query, ((0, 0), (0, 0), (0, num_blocks * block - length), (0, 0)))
    blocks = padded.reshape(n, HEADS, num_blocks, block, -1).transpose(2, 0, 1, 3, 4)
    attended = jax.lax.map(block_of, blocks).transpose(1, 0, 3, 2, 4)
    return _apply(weights["out"], attended.reshape(n, num_blocks * block, size)[:, :length])


def _layer(key: jax.Array, rows: int, columns: int) -> tuple[jax.Array, jax.Array]:
    first, second = jax.random.split(key)
    bound = 1 / math.sqrt(rows)
    return linear(first, rows, columns), jax.random.uniform(second, (columns,), minval=-bound, maxval=bound)


def _apply(layer: tuple[jax.Array, jax.Array], x: jax.Array) -> jax.Array:
    return x @ layer[0] + layer[1]
