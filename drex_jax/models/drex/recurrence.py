"""The two gated recurrent units that refine a user state and an item state with every interaction.

For interaction features x (already projected), the states u and i just before it (design: both cells read both):

    r, z = sigmoid(x_rz + u U_rz + i W_rz)
    n    = tanh(x_n + i W_n + r * (u U_n))
    u+   = z * u + (1 - z) * n

and the same for the item with the roles exchanged. `scan_states` runs them over a schedule in one `lax.scan` of one
static shape: a step gathers its states, takes one fused product for both cells, and scatters. Its gradient is written
by hand: only the states before each interaction are kept, the gates are recomputed in one large product, the reverse
scan carries the tables' cotangents, and the weight gradient is one product afterwards. `sequential_states` is the
slow, obvious twin.

Letters: N interactions, S steps, B lanes a step, D state size, R table rows.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax


class CellParams(NamedTuple):
    """One cell. `own` reads the state that it refines, `partner` the other side's (zeros where it is not read).

    Attributes:
      own: [D, 3D], columns r, z, n.
      partner: [D, 3D], columns r, z, n.
    """

    own: jax.Array
    partner: jax.Array


def fused_weights(user: CellParams, item: CellParams) -> jax.Array:
    """[2D, 8D]: both cells as one product of [u, i].

    Columns of each cell: r, z, the partner's part of n, the own part of n (which r multiplies). The blocks that the
    equations do not have (the own state into the former, the partner into the latter) are zeros here, so no gradient
    reaches a parameter through them.
    """
    size = user.own.shape[0]
    zero = jnp.zeros((size, size), user.own.dtype)

    def columns(own, partner):
        own_rows = jnp.concatenate([own[:, : 2 * size], zero, own[:, 2 * size :]], axis=1)
        partner_rows = jnp.concatenate([partner, zero], axis=1)
        return own_rows, partner_rows

    user_own, user_partner = columns(*user)
    item_own, item_partner = columns(*item)
    return jnp.concatenate(
        [jnp.concatenate([user_own, item_partner], axis=1), jnp.concatenate([user_partner, item_own], axis=1)], axis=0
    )


class _Gates(NamedTuple):
    """Gate values of both cells, [..., 2, D] (user, item)."""

    r: jax.Array
    z: jax.Array
    n: jax.Array
    own: jax.Array  # the own part of n, before r multiplies it


def _gates(inputs: jax.Array, products: jax.Array) -> _Gates:
    """Gates from projected features [..., 6D] and fused products [..., 8D]."""
    size = inputs.shape[-1] // 6
    x = inputs.reshape(*inputs.shape[:-1], 2, 3, size)
    g = products.reshape(*products.shape[:-1], 2, 4, size)
    r = jax.nn.sigmoid(x[..., 0, :] + g[..., 0, :])
    z = jax.nn.sigmoid(x[..., 1, :] + g[..., 1, :])
    n = jnp.tanh(x[..., 2, :] + g[..., 2, :] + r * g[..., 3, :])
    return _Gates(r, z, n, g[..., 3, :])


def _step(weights: jax.Array, states: jax.Array, inputs: jax.Array) -> jax.Array:
    """One update: states [B, 2, D], inputs [B, 6D] -> new states [B, 2, D]."""
    products = jnp.dot(states.reshape(states.shape[0], -1), weights, precision=lax.Precision.HIGHEST)
    gates = _gates(inputs, products)
    return gates.z * states + (1 - gates.z) * gates.n


def sequential_states(
    weights: jax.Array, tables: jax.Array, inputs: jax.Array, rows: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """One interaction at a time, plain autodiff: the reference.

    Args:
      weights: [2D, 8D] of `fused_weights`.
      tables: [R, D], users' and items' states in one table.
      inputs: [N, 6D] projected features, in time order.
      rows: int32 [N, 2], the user's and the item's row of each interaction.

    Returns:
      (tables after all [R, D], states before each [N, 2, D]).
    """

    def body(tables, event):
        x, row = event
        before = tables[row]
        return tables.at[row].set(_step(weights, before[None], x[None])[0]), before

    return lax.scan(body, tables, (inputs, rows))


@jax.custom_vjp
def scan_states(
    weights: jax.Array, tables: jax.Array, inputs: jax.Array, rows: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """All interactions of a schedule, a step at a time.

    Args:
      weights: [2D, 8D] of `fused_weights`.
      tables: [R, D], users' and items' states in one table. An empty lane needs two rows of its own (any content).
      inputs: [S, B, 6D] projected features in schedule order; empty lanes hold anything finite.
      rows: int32 [S, B, 2], each lane's user and item row; within a step all 2B rows differ.

    Returns:
      (tables after all [R, D], states before each [S, B, 2, D]).
    """
    return _scan_forward(weights, tables, inputs, rows)


def _scan_forward(weights, tables, inputs, rows):
    def body(tables, step):
        x, row = step
        before = tables.at[row].get(mode="promise_in_bounds", unique_indices=True)  # [B, 2, D]
        after = _step(weights, before, x)
        return tables.at[row].set(after, mode="promise_in_bounds", unique_indices=True), before

    return lax.scan(body, tables, (inputs, rows))


def _scan_fwd(weights, tables, inputs, rows):
    tables, before = _scan_forward(weights, tables, inputs, rows)
    return (tables, before), (weights, inputs, rows, before)


def _scan_bwd(residuals, cotangents):
    weights, inputs, rows, before = residuals
    d_tables, d_before = cotangents
    steps, width, _, size = before.shape
    flat = before.reshape(steps * width, 2 * size)
    products = jnp.dot(flat, weights, precision=lax.Precision.HIGHEST).reshape(steps, width, 8 * size)
    r, z, n, own = _gates(inputs, products)
    # With v the cotangent of a new state, each pre-activation's cotangent is v times a factor known beforehand.
    through_n = (1 - z) * (1 - n * n)
    through_r = through_n * own * r * (1 - r)
    through_z = (before - n) * z * (1 - z)
    factors = jnp.stack([through_r, through_z, through_n, through_n * r], axis=3)  # [S, B, 2, 4, D]
    transposed = weights.T

    def body(d_tables, step):
        row, factor, keep, d_seen = step
        v = d_tables.at[row].get(mode="promise_in_bounds", unique_indices=True)  # [B, 2, D]
        d_products = v[:, :, None, :] * factor  # [B, 2, 4, D]
        through = jnp.dot(d_products.reshape(width, 8 * size), transposed, precision=lax.Precision.HIGHEST)
        d_states = v * keep + d_seen + through.reshape(width, 2, size)
        return d_tables.at[row].set(d_states, mode="promise_in_bounds", unique_indices=True), d_products

    d_tables, d_products = lax.scan(body, d_tables, (rows, factors, z, d_before), reverse=True)
    d_weights = jnp.dot(flat.T, d_products.reshape(steps * width, 8 * size), precision=lax.Precision.HIGHEST)
    d_inputs = d_products[:, :, :, :3].reshape(steps, width, 6 * size)
    return d_weights, d_tables, d_inputs, None


scan_states.defvjp(_scan_fwd, _scan_bwd)
