"""The recurrence: two gated recurrent units update a user state and an item state with every interaction.

For the features e of an interaction and the states u and i just before it (both cells read both states):

    r, z = sigmoid(e A_rz + a_rz + u U_rz + i W_rz)
    n    = tanh(e A_n + a_n + i W_n + r * (u U_n))
    u+   = z * u + (1 - z) * n

and the same for the item with the roles exchanged. `refine` runs them over a schedule in one `lax.scan` of one static
shape. The implementations of `Implementation` agree up to the order in which sums are rounded:

* `sequential`: one interaction at a time with automatic differentiation; the simple, slow reference.
* `autodiff`: the steps of the schedule with automatic differentiation.
* `blocked`: our own. Steps come in blocks. The features of a block are projected in one product. A step is one gather,
  one product for both cells, the gates and one scatter. The gradient is written by hand: only the states before each
  interaction are saved, the gates of a block are recomputed in one product, the reverse scan carries the cotangents of
  the table, and the gradient of the weights is one product for each block. The data of a block fit a core's cache.

If the body of a scan indexes its input inside an element-wise loop, XLA's CPU backend compiles it into scalar code,
because the index might alias the output. `_scan_ahead` carries the input of the next step instead: a step is three
times faster on CPU, and no slower on accelerators.

Letters: n interactions of a window, S = C * K steps in C blocks, B lanes a step, D state size, F features, R rows of
the table.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from drex_jax.devices.axis import ALONE, Axis


class Implementation(enum.Enum):
    """The implementations of `refine`; the docstring of the module explains them."""

    AUTO = "auto"
    SEQUENTIAL = "sequential"
    AUTODIFF = "autodiff"
    BLOCKED = "blocked"

    def resolve(self) -> Implementation:
        """Replace AUTO by `blocked`, the fastest on every device kind and shape measured so far."""
        return Implementation.BLOCKED if self is Implementation.AUTO else self


class CellParams(NamedTuple):
    """The weights of one cell.

    Attributes:
      own: [D, 3D], weights of the state that the cell updates; columns r, z, n.
      partner: [D, 3D], weights of the partner's state (zeros if it is not read); columns r, z, n.
    """

    own: jax.Array
    partner: jax.Array


class Weights(NamedTuple):
    """The weights of both cells for two products. A column group has the D columns of the user, then of the item.

    Attributes:
      features: [F, 6D], weights of e; groups r, z, n.
      bias: [6D], biases; groups r, z, n.
      states: [2D, 8D], weights of [u, i] (`fused_weights`); groups r, z, the partner's part of n, the own part of n.
    """

    features: jax.Array
    bias: jax.Array
    states: jax.Array


class Layout(NamedTuple):
    """The lanes and table rows in which the interactions of a window run.

    Attributes:
      lanes: int32 [C, K, B], the interaction in each lane; n in an empty lane.
      rows: int32 [C, K, B, 2], the user and item row of each lane. The 2B rows of a step must all differ, so an empty
        lane has two rows of its own.
      slots: int32 [n], position of each interaction in the flattened lanes; any value for padding.
    """

    lanes: Any
    rows: Any
    slots: Any


class RecurrenceOptions(NamedTuple):
    """Options of `refine`.

    Attributes:
      implementation: the implementation.
      products: dtype of the factors of matrix products ("float32" or "bfloat16"); sums and states are always float32.
      axis: the devices that share the lanes of each step; ALONE runs all lanes on every device. Only `blocked` can
        split lanes.
    """

    implementation: Implementation = Implementation.AUTO
    products: str = "float32"
    axis: Axis = ALONE


def fused_weights(user: CellParams, item: CellParams) -> jax.Array:
    """Return the weights of [u, i] for both cells as one matrix, [2D, 8D]; columns as in `Weights.states`.

    Blocks without a parameter (the own state in the partner's part of n, the partner's state in the own part) are
    zeros.
    """
    size = user.own.shape[0]
    zero = jnp.zeros((size, size), user.own.dtype)
    user_own, user_partner, item_own, item_partner = (
        [weights[:, gate * size : (gate + 1) * size] for gate in range(3)] for weights in (*user, *item)
    )
    of_user = [user_own[0], item_partner[0], user_own[1], item_partner[1], zero, item_partner[2], user_own[2], zero]
    of_item = [user_partner[0], item_own[0], user_partner[1], item_own[1], user_partner[2], zero, zero, item_own[2]]
    return jnp.concatenate([jnp.concatenate(of_user, axis=1), jnp.concatenate(of_item, axis=1)], axis=0)


def refine(
    weights: Weights, table: jax.Array, features: jax.Array, layout: Layout, options: RecurrenceOptions
) -> tuple[jax.Array, jax.Array]:
    """Run all interactions of a window. Each one sees the same states as in time order.

    If lanes are split, this is the program of one device (`drex_jax.devices.axis`): all devices pass the same values,
    and each gets its part of every cotangent.

    Args:
      weights: weights of both cells.
      table: [R, D], the states of users and items, and two more rows for each lane (with any finite values).
      features: [n, F], features of the interactions.
      layout: where each interaction runs.
      options: how to compute.

    Returns:
      The table after all interactions, [R, D], and the states before each interaction, [n, 2, D] (any value for
      padding).

    Raises:
      ValueError: the width is not divisible by the number of devices, or the implementation cannot split lanes.
    """
    implementation = options.implementation.resolve()
    if implementation is Implementation.BLOCKED:
        return _blocked(options.products, options.axis, weights, table, features, layout)
    if options.axis.size > 1:
        raise ValueError(f"the lanes of {implementation.value} cannot be split over devices; blocked's can")
    if implementation is Implementation.SEQUENTIAL:
        return _sequential(weights, table, features, layout, options.products)
    return _autodiff(weights, table, features, layout, options.products)


def residual_bytes(num_interactions: int, lanes: int, state_size: int, feature_size: int) -> int:
    """Return about how many bytes `blocked` saves for the gradient of a window, without its table.

    Args:
      num_interactions: n.
      lanes: S * B.
      state_size: D.
      feature_size: F.
    """
    a_lane = 2 * state_size + feature_size  # states before, and cotangent of the features
    an_interaction = 2 * (2 * state_size + feature_size)  # states before and features, each with its cotangent
    return 4 * (lanes * (a_lane + 3) + num_interactions * an_interaction)


def _dot(a: jax.Array, b: jax.Array, products: str) -> jax.Array:
    """Return the product [n, k] @ [k, m], summed in float32."""
    if products == "bfloat16":
        a, b = a.astype(jnp.bfloat16), b.astype(jnp.bfloat16)
    return jnp.dot(a, b, precision=lax.Precision.HIGHEST, preferred_element_type=jnp.float32)


class _Gates(NamedTuple):
    """The gate values of both cells, [..., 2D] (user, item)."""

    r: jax.Array
    z: jax.Array
    n: jax.Array
    own: jax.Array  # the own part of n, before r multiplies it


def _gates(inputs: jax.Array, products: jax.Array) -> _Gates:
    """Return the gates from projected features [..., 6D] and products of the states [..., 8D]."""
    both = inputs.shape[-1] // 3
    r = jax.nn.sigmoid(inputs[..., :both] + products[..., :both])
    z = jax.nn.sigmoid(inputs[..., both : 2 * both] + products[..., both : 2 * both])
    own = products[..., 3 * both :]
    n = jnp.tanh(inputs[..., 2 * both :] + products[..., 2 * both : 3 * both] + r * own)
    return _Gates(r, z, n, own)


def _after(weights: jax.Array, states: jax.Array, inputs: jax.Array, products: str) -> jax.Array:
    """Update states [B, 2D] with inputs [B, 6D]."""
    gates = _gates(inputs, _dot(states, weights, products))
    return gates.z * states + (1 - gates.z) * gates.n


def _take(table: jax.Array, rows: jax.Array) -> jax.Array:
    """Return the states in rows [B, 2], which all differ, as [B, 2D]."""
    taken = table.at[rows].get(mode="promise_in_bounds", unique_indices=True)
    return taken.reshape(rows.shape[0], -1)


def _put(table: jax.Array, rows: jax.Array, states: jax.Array) -> jax.Array:
    """Return the table with states [B, 2D] written into rows [B, 2], which all differ."""
    states = states.reshape(*rows.shape, -1)
    return table.at[rows].set(states, mode="promise_in_bounds", unique_indices=True)


def _with_empty(values: jax.Array) -> jax.Array:
    """Append a row of zeros, which empty lanes read: [n + 1, ...]."""
    return jnp.concatenate([values, jnp.zeros((1, *values.shape[1:]), values.dtype)])


def _project(weights: Weights, features: jax.Array, products: str) -> jax.Array:
    """Return projected features [..., 6D]."""
    return _dot(features, weights.features, products) + weights.bias


def _sequential(
    weights: Weights, table: jax.Array, features: jax.Array, layout: Layout, products: str
) -> tuple[jax.Array, jax.Array]:
    n = len(features)
    stands = layout.lanes.reshape(-1)[layout.slots] == jnp.arange(n)
    rows = layout.rows.reshape(-1, 2)[layout.slots]
    rows = jnp.where(stands[:, None], rows, len(table) - 2 + jnp.arange(2))  # padding writes to two unused rows

    def body(table: jax.Array, event: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        inputs, row = event
        before = _take(table, row)
        return _put(table, row, _after(weights.states, before, inputs, products)), before.reshape(2, -1)

    return lax.scan(body, table, (_project(weights, features, products), rows[:, None]))


def _autodiff(
    weights: Weights, table: jax.Array, features: jax.Array, layout: Layout, products: str
) -> tuple[jax.Array, jax.Array]:
    blocks, steps, width = layout.lanes.shape
    inputs = _with_empty(_project(weights, features, products))[layout.lanes.reshape(blocks * steps, width)]

    def body(table: jax.Array, step: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        inputs, rows = step
        before = _take(table, rows)
        return _put(table, rows, _after(weights.states, before, inputs, products)), before

    table, before = lax.scan(body, table, (inputs, layout.rows.reshape(blocks * steps, width, 2)))
    return table, before.reshape(blocks * steps * width, 2, -1)[layout.slots]


def _scan_ahead(
    body: Callable[[Any, Any, Any], tuple[Any, Any]], carry: Any, ahead: Any, inputs: Any, reverse: bool = False
) -> tuple[Any, Any]:
    """Scan body(carry, ahead[t], inputs[t]) -> (carry, output); `ahead` is loaded one step before its use."""
    length = jax.tree.leaves(inputs)[0].shape[0]
    first, move = (length - 1, -1) if reverse else (0, 1)

    def load(t: jax.Array | int) -> Any:
        return jax.tree.map(lambda values: lax.dynamic_index_in_dim(values, t, keepdims=False), ahead)

    def ahead_body(state: tuple[Any, Any, jax.Array], inputs: Any) -> tuple[tuple[Any, Any, jax.Array], Any]:
        carry, loaded, t = state
        carry, output = body(carry, loaded, inputs)
        t = jnp.clip(t + move, 0, length - 1)
        return (carry, load(t), t), output

    (carry, _, _), outputs = lax.scan(ahead_body, (carry, load(first), jnp.int32(first)), inputs, reverse=reverse)
    return carry, outputs


def _blocked_forward(
    products: str, axis: Axis, weights: Weights, table: jax.Array, features: jax.Array, layout: Layout
) -> tuple[jax.Array, jax.Array]:
    """Return the final table, and the states before each lane of this device, [C, K, B', 2D]."""
    padded = _with_empty(features)

    def block(table: jax.Array, inputs: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        lanes, rows = inputs
        own = axis.shard(lanes, 1)
        projected = _project(weights, padded[own.reshape(-1)], products).reshape(*own.shape, -1)

        def step(table: jax.Array, inputs: jax.Array, rows: jax.Array) -> tuple[jax.Array, jax.Array]:
            before = _take(table, axis.shard(rows))
            after = _after(weights.states, before, inputs, products)
            return _put(table, rows, axis.all_gather(after)), before

        return _scan_ahead(step, table, projected, rows)

    return lax.scan(block, table, (layout.lanes, layout.rows))


_Residuals = tuple[Weights, jax.Array, Layout, jax.Array]  # weights, features, layout, states before each lane


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _blocked(
    products: str, axis: Axis, weights: Weights, table: jax.Array, features: jax.Array, layout: Layout
) -> tuple[jax.Array, jax.Array]:
    return _blocked_fwd(products, axis, weights, table, features, layout)[0]


def _blocked_fwd(
    products: str, axis: Axis, weights: Weights, table: jax.Array, features: jax.Array, layout: Layout
) -> tuple[tuple[jax.Array, jax.Array], _Residuals]:
    table, before = _blocked_forward(products, axis, weights, table, features, layout)
    lanes = axis.all_gather(before, 2)
    states = lanes.reshape(layout.lanes.size, 2, -1)[layout.slots]
    return (table, states), (weights, features, layout, before)


def _blocked_bwd(
    products: str, axis: Axis, residuals: _Residuals, cotangents: tuple[jax.Array, jax.Array]
) -> tuple[Weights, jax.Array, jax.Array, None]:
    weights, features, layout, before = residuals
    _, steps, own_width, both = before.shape
    feature_size = features.shape[1]
    d_table, d_states = (axis.psum(cotangent) for cotangent in cotangents)
    padded, d_padded = _with_empty(features), _with_empty(d_states.reshape(-1, both))
    states_transposed, features_transposed = weights.states.T, weights.features.T

    def by_gate(values: jax.Array, factors: jax.Array) -> jax.Array:
        """Multiply values [..., 2D] by each group of factors [..., 8D]; returns [..., 8D]."""
        return jnp.concatenate([values * factors[..., k * both : (k + 1) * both] for k in range(4)], axis=-1)

    def block(
        carry: tuple[jax.Array, Weights], before: jax.Array, inputs: tuple[jax.Array, jax.Array]
    ) -> tuple[tuple[jax.Array, Weights], jax.Array]:
        d_table, d_weights = carry
        lanes, rows = inputs
        own = axis.shard(lanes, 1)
        flat, e = before.reshape(-1, both), padded[own.reshape(-1)]
        r, z, n, own_part = _gates(_project(weights, e, products), _dot(flat, weights.states, products))
        # With v the cotangent of a new state, the cotangent of each pre-activation is v times a factor computed here.
        through_n = (1 - z) * (1 - n * n)
        factors = jnp.concatenate(
            [through_n * own_part * r * (1 - r), (flat - n) * z * (1 - z), through_n, through_n * r], axis=-1
        )
        ahead = tuple(x.reshape(steps, own_width, -1) for x in (factors, z, d_padded[own]))

        def step(d_table: jax.Array, ahead: tuple[jax.Array, ...], rows: jax.Array) -> tuple[jax.Array, jax.Array]:
            factors, keep, d_seen = ahead
            v = _take(d_table, axis.shard(rows))
            d_before = v * keep + d_seen + _dot(by_gate(v, factors), states_transposed, products)
            return _put(d_table, rows, axis.all_gather(d_before)), v

        d_table, v = _scan_ahead(step, d_table, ahead, rows, reverse=True)
        d_products = by_gate(v.reshape(-1, both), factors)
        d_inputs = d_products[:, : 3 * both]
        d_weights = Weights(
            d_weights.features + _dot(e.T, d_inputs, products),
            d_weights.bias + d_inputs.sum(0),
            d_weights.states + _dot(flat.T, d_products, products),
        )
        d_features = _dot(d_inputs, features_transposed, products).reshape(steps, own_width, feature_size)
        return (d_table, d_weights), d_features

    carry = (d_table, jax.tree.map(jnp.zeros_like, weights))
    (d_table, d_weights), d_features = _scan_ahead(block, carry, before, (layout.lanes, layout.rows), reverse=True)
    d_features = axis.pad_to_global(d_features, 2)
    stands = layout.lanes.reshape(-1)[layout.slots] == jnp.arange(len(features))
    d_features = d_features.reshape(layout.lanes.size, feature_size)[layout.slots]
    return d_weights, axis.only_on_first_device(d_table), jnp.where(stands[:, None], d_features, 0), None


_blocked.defvjp(_blocked_fwd, _blocked_bwd)
