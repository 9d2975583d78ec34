"""Measure the peaks of the device: a large matrix product, and a large array read and written once."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

REPEATS = 7


class Peaks(NamedTuple):
    """The peaks of a device.

    Attributes:
      flops_per_second: floating-point operations a second of a float32 matrix product at full precision.
      bytes_per_second: bytes read and written a second.
    """

    flops_per_second: float
    bytes_per_second: float


def measure(size: int | None = None, megabytes: int | None = None) -> Peaks:
    """Return the best of several products and passes on the default device.

    Args:
      size: rows and columns of the matrices; None: 2,048 on a CPU, 8,192 on an accelerator.
      megabytes: size of the array that is read and written; None: 512 on a CPU, 2,048 on an accelerator.
    """
    on_cpu = jax.default_backend() == "cpu"
    size = size or (2048 if on_cpu else 8192)
    elements = (megabytes or (512 if on_cpu else 2048)) * 2**20 // 4
    matrix = jnp.full((size, size), 1 / size, jnp.float32)
    product = jax.jit(lambda a, b: jnp.dot(a, b, precision=jax.lax.Precision.HIGHEST))
    # In place, because the page faults of a newly allocated array would be measured as well.
    negate = jax.jit(jnp.negative, donate_argnums=0)
    flops = 2 * size**3 / _fastest(lambda b: product(matrix, b), matrix)
    return Peaks(flops, 2 * 4 * elements / _fastest(negate, jnp.ones(elements, jnp.float32)))


def _fastest(function: Callable[[jax.Array], jax.Array], value: jax.Array) -> float:
    """Return the seconds of the fastest call of a chain; each call gets the result of the one before."""
    fastest = float("inf")
    for _ in range(REPEATS + 1):  # the first one compiles; it is never the fastest
        begin = time.perf_counter()
        value = function(value).block_until_ready()
        fastest = min(fastest, time.perf_counter() - begin)
    return fastest
