"""CRANE as its public code (version of 2025-01) computes it, for comparison: the paper describes something else.

FREEDOM's two graphs, without its loss on features. What is added to an item's row is one product of the graph of items
with the items' fused features: two linear layers each, multi-head attention, the mean over modalities. The attention's
sequence axis is the items, so that no modality ever reads another, and its cost is quadratic in the items;
`ReleasedAxisFixed` lets each item attend over its own modalities instead. The released code leaves out the attention
where there is one modality alone and uses embeddings in its place; here one is as good as several.

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
MAX_ITEMS = 32_768  # of a catalogue whose items attend to each other: a step is 2^30 scores a head and modality
BLOCK_SCORES = 1 << 24  # of all heads and modalities, that exist at a time


@dataclasses.dataclass(frozen=True)
class Released(TwoGraphs):
    """`crane_released`: items attend to each other."""

    called = "crane_released"
    axis_fixed: ClassVar[bool] = False

    @classmethod
    def over(cls, pairs: TrainPairs, *groups: Any) -> tuple[Self, Constants]:
        """Return the model and both graphs.

        Raises:
          UserError: no item features, too many items to attend to each other, or a size that `HEADS` does not divide.
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
        """Return linear layers and `attention`.

        Layers are `first` and `second`, by modality, and, in `attention`, `into` (queries, keys, values) and `out`,
        each (weights, bias). They start as PyTorch starts them.
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
        """Return the fused features of the items that are alike."""
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
    """`crane_released_axis_fixed`: each item attends over its own modalities."""

    axis_fixed = True


def attend(weights: dict[str, Any], x: jax.Array, present: jax.Array) -> jax.Array:
    """Multi-head self-attention (Vaswani et al., 2017) within each of n sequences, in blocks of queries.

    Scores exist for a block at a time, on the way back as well, where they are computed again.

    Args:
      weights: `into` ([D, 3D], [3D]) makes queries, keys and values, `out` ([D, D], [D]) the result of all heads.
      x: [n, S, D].
      present: bool [n, S]; others are attended to by none.

    Returns:
      [n, S, D].
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
