"""The optimizer (Optax): Adam, and a learning rate of their own for parameters that do not begin anew."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from drex_jax.models.protocol import Params


def adam(
    learning_rate: float, warmup_steps: int, decay: str, weight_decay: float, clip_norm: float, total: int
) -> optax.GradientTransformation:
    """Adam under a warm-up and, if asked, a cosine to a twentieth of the peak; gradients clipped by their global norm.

    Weights decay, if at all, in matrices alone: not in biases, starting states and other vectors.

    Args:
      learning_rate: its peak.
      warmup_steps: until the peak, at most half of all.
      decay: `cosine`, or a constant rate.
      weight_decay: of AdamW; 0: none.
      clip_norm: 0: gradients are not clipped.
      total: steps of the whole training.
    """
    peak, warmup = learning_rate, min(warmup_steps, total // 2)
    if decay == "cosine":
        rate = optax.warmup_cosine_decay_schedule(peak / (warmup + 1), peak, warmup, total, peak / 20)
    else:
        rate = optax.warmup_constant_schedule(peak / (warmup + 1), peak, warmup)
    steps = [optax.clip_by_global_norm(clip_norm)] if clip_norm else []
    if weight_decay:
        matrices = partial(jax.tree.map, lambda leaf: leaf.ndim > 1)
        return optax.chain(*steps, optax.adamw(rate, weight_decay=weight_decay, mask=matrices))
    return optax.chain(*steps, optax.adam(rate))


class Pretrained(NamedTuple):
    """Parameters that training begins with, in place of new ones.

    Attributes:
      params: nested dictionaries, a part of the model's.
      learning_rate: their peak.
    """

    params: Params
    learning_rate: float

    def put_into(self, params: Params) -> Params:
        """Replace new parameters by the pretrained ones of the same name."""
        return _with(params, self.params)

    def slowed(self, learning_rate: float) -> optax.GradientTransformation:
        """Scale the updates of pretrained parameters: Adam's updates are proportional to its learning rate."""
        share = self.learning_rate / learning_rate
        return optax.stateless(lambda updates, _: _scaled(updates, self.params, share))


def _with(params: Params, others: Params) -> Params:
    return {name: each if name not in others else _put(each, others[name]) for name, each in params.items()}


def _put(each: Params | jax.Array, other: Params | jax.Array) -> Params | jax.Array:
    return _with(each, other) if isinstance(each, dict) else jnp.asarray(other, each.dtype)


def _scaled(updates: Params, theirs: Params, share: float) -> Params:
    def one(name: str, each: Params | jax.Array) -> Params | jax.Array:
        if name not in theirs:
            return each
        return _scaled(each, theirs[name], share) if isinstance(each, dict) else each * share

    return {name: one(name, each) for name, each in updates.items()}
