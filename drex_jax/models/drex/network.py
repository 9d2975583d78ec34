"""The parameters of DReX, and the features of an interaction and predictions from two states as functions of them.

Letters: n interactions, F features, D state size, E = D + 2 the inputs of a head from one side (state, running bias,
log1p count).
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from drex_jax.devices.dropout import drop
from drex_jax.models.drex import recurrence
from drex_jax.text.bert.network import Architecture, Bert
from drex_jax.text.encoder import TextEncoder

AUXILIARY = 2  # running bias and log1p count
USERS_AT_ONCE = 8  # users that the mlp head scores at a time: its hidden layer is [users, items, hidden]
LONGEST_MEMORY = 32.0  # initial memory of the slowest unit, in interactions


@dataclasses.dataclass(frozen=True)
class NetworkOptions:
    """The sizes and parts of the network. Fields are those of `drex_jax.models.drex.settings`."""

    state_size: int = 32
    feature_size: int = 32
    head: str = "dot"
    hidden_size: int = 64
    partner: bool = True
    rating_modality: bool = True
    time_modality: bool = True
    vector_modalities: tuple[str, ...] = ()
    offsets: bool = True
    residual: bool = False
    dropout: float = 0.0
    rating: bool = True
    ranking: bool = False
    vocabulary_size: int = 0  # 0: no text modality
    text_width: int = 64
    text_dropout: float = 0.1
    token_width: int = 0  # width of given token features; 0: embeddings are learned
    bert: Architecture | None = None  # a BERT that computes token features and is trained
    bert_dtype: str = "float32"

    @property
    def text_encoder(self) -> TextEncoder:
        """The review encoder with these options."""
        bert = None if self.bert is None else Bert(self.bert, jnp.dtype(self.bert_dtype))
        width = self.token_width if self.bert is None else self.bert.width
        return TextEncoder(self.vocabulary_size, self.text_width, self.feature_size, self.text_dropout, width, bert)


class Modality(NamedTuple):
    """One modality of n interactions.

    Attributes:
      values: [n, width]; any value, including NaN, where the modality is absent.
      present: bool [n], true where an interaction has the modality.
    """

    values: jax.Array
    present: jax.Array


def _drop(module: nn.Module, values: jax.Array, rate: float, rows: jax.Array | None) -> jax.Array:
    """Apply dropout to values [n, ...] of the rows numbered `rows`; with None or a rate of 0, return them unchanged."""
    if rows is None or rate == 0:
        return values
    return drop(module.make_rng("dropout"), values, rows, rate)


class Fusion(nn.Module):
    """Fuse the modalities of interactions to features e [n, F]; an absent modality has a learned null (our choice)."""

    options: NetworkOptions

    @nn.compact
    def __call__(self, modalities: dict[str, Modality], rows: jax.Array | None) -> jax.Array:
        """Return features [n, F] from modalities by name. `rows`: int32 [n], row numbers for dropout, in training."""
        size = self.options.feature_size
        parts, bits = [], []
        for name, (values, present) in sorted(modalities.items()):
            present = present[:, None]
            null = self.param(f"{name}_null", nn.initializers.normal(0.1), (size,))
            encoded = nn.gelu(nn.Dense(size, name=f"{name}_encoder")(jnp.where(present, values, 0.0)))
            parts.append(jnp.where(present, encoded, null))
            bits.append(present.astype(jnp.float32))
        fused = nn.gelu(nn.Dense(size, name="fuse")(jnp.concatenate(parts + bits, axis=1)))
        return _drop(self, fused, self.options.dropout, rows)


class Head(nn.Module):
    """The score of a user row and an item row.

    `dot` (DReX) is linear biases of each side plus an inner product of projections. `mlp` (DReX-MLP) is the same biases
    plus a two-layer perceptron of both sides and their product. `pairs` scores every user row with every item row.
    """

    options: NetworkOptions

    def setup(self):
        options = self.options
        size = options.state_size
        self.user_bias = nn.Dense(1, use_bias=False, kernel_init=nn.initializers.normal(0.02))
        self.item_bias = nn.Dense(1, kernel_init=nn.initializers.normal(0.02))
        self.user_projection = nn.Dense(size, use_bias=False)
        self.item_projection = nn.Dense(size, use_bias=False)
        if options.head == "mlp":
            self.user_hidden = nn.Dense(options.hidden_size)
            self.item_hidden = nn.Dense(options.hidden_size, use_bias=False)
            self.product_hidden = nn.Dense(options.hidden_size, use_bias=False)
            self.out = nn.Dense(1, use_bias=False)

    def _visible(self, side: jax.Array, rows: jax.Array | None) -> jax.Array:
        """Return the columns of [n, ..., E] that the head reads: the auxiliaries only if it is residual."""
        size = self.options.state_size
        state = _drop(self, side[..., :size], self.options.dropout, rows)
        return jnp.concatenate([state, side[..., size:]], -1) if self.options.residual else state

    def __call__(self, user: jax.Array, item: jax.Array, rows: jax.Array | None = None) -> jax.Array:
        """Return the scores [n] of paired rows [n, E]. `rows`: int32 [n], row numbers for dropout, in training."""
        user, item = self._visible(user, rows), self._visible(item, rows)
        p, q = self.user_projection(user), self.item_projection(item)
        score = (self.user_bias(user) + self.item_bias(item))[:, 0]
        if self.options.head == "dot":
            return score + (p * q).sum(-1) * self.options.state_size**-0.5
        hidden = self.user_hidden(user) + self.item_hidden(item) + self.product_hidden(p * q)
        return score + self.out(nn.gelu(hidden))[:, 0]

    def against(self, user: jax.Array, item: jax.Array, picks: jax.Array, rows: jax.Array | None = None) -> jax.Array:
        """Return the scores [n, m] of user rows [n, E], each with the m rows of `item` [R, E] at `picks` [n, m].

        A row that is picked many times is projected once, and has one dropout mask. `rows` is as in `__call__`.
        """
        user = self._visible(user, rows)
        item = self._visible(item, None if rows is None else jnp.arange(len(item)))
        p, q = self.user_projection(user), self.item_projection(item)[picks]  # [n, D], [n, m, D]
        score = self.user_bias(user) + self.item_bias(item)[picks, 0]
        if self.options.head == "dot":
            return score + jnp.einsum("nd,nmd->nm", p, q) * self.options.state_size**-0.5
        product = (p[:, None] * q).reshape(-1, q.shape[-1])  # [n m, D]: one matrix product
        hidden = self.product_hidden(product).reshape(*picks.shape, -1)
        hidden = hidden + self.user_hidden(user)[:, None] + self.item_hidden(item)[picks]
        return score + self.out(nn.gelu(hidden))[..., 0]

    def pairs(self, user: jax.Array, item: jax.Array) -> jax.Array:
        """Return the scores [n, m] of user rows [n, E] and item rows [m, E]."""
        user, item = self._visible(user, None), self._visible(item, None)
        p, q = self.user_projection(user), self.item_projection(item)
        score = self.user_bias(user) + self.item_bias(item).T
        if self.options.head == "dot":
            return score + (p @ q.T) * self.options.state_size**-0.5
        item_hidden = self.item_hidden(item)  # [m, hidden]

        def one_user(row: tuple[jax.Array, jax.Array]) -> jax.Array:
            hidden = row[0] + item_hidden + self.product_hidden(row[1] * q)
            return self.out(nn.gelu(hidden))[:, 0]

        return score + jax.lax.map(one_user, (self.user_hidden(user), p), batch_size=USERS_AT_ONCE)


class Cells(nn.Module):
    """The weights of both gated recurrent units."""

    options: NetworkOptions

    @nn.compact
    def __call__(self) -> recurrence.Weights:
        size, features = self.options.state_size, self.options.feature_size
        init = nn.initializers.lecun_normal()

        def cell(side: str) -> recurrence.CellParams:
            own = self.param(f"{side}_own", init, (size, 3 * size))
            if not self.options.partner:
                return recurrence.CellParams(own, jnp.zeros_like(own))
            return recurrence.CellParams(own, self.param(f"{side}_partner", init, (size, 3 * size)))

        # Units start with memories from 1 to LONGEST_MEMORY interactions (Tallec and Ollivier, 2018): z = T / (T + 1).
        memory = jnp.log(jnp.geomspace(1.0, LONGEST_MEMORY, size))
        bias = jnp.zeros((3, 2, size)).at[1].set(memory).reshape(-1)
        return recurrence.Weights(
            self.param("features", init, (features, 6 * size)),
            self.param("bias", lambda _: bias),
            recurrence.fused_weights(cell("user"), cell("item")),
        )


class Network(nn.Module):
    """All modules with parameters. The tables of offsets are not part of it; the model adds them."""

    options: NetworkOptions

    def setup(self):
        self.fusion = Fusion(self.options)
        self.cells = Cells(self.options)
        if self.options.rating:
            self.rating_head = Head(self.options)
        if self.options.ranking:
            self.ranking_head = Head(self.options)
        state = nn.initializers.normal(0.3)
        self.user_start = self.param("user_start", state, (self.options.state_size,))
        self.item_start = self.param("item_start", state, (self.options.state_size,))

    def features(self, modalities: dict[str, Modality], rows: jax.Array | None = None) -> jax.Array:
        """Return interaction features [n, F]. Here and below, `rows` is int32 [n], row numbers, only in training."""
        return self.fusion(modalities, rows)

    def weights(self) -> recurrence.Weights:
        """Return the weights of the recurrence."""
        return self.cells()

    def rate(self, user: jax.Array, item: jax.Array, rows: jax.Array | None = None) -> jax.Array:
        """Return ratings [n] in standard units from rows [n, E]."""
        return self.rating_head(user, item, rows)

    def prefer(self, user: jax.Array, item: jax.Array, picks: jax.Array, rows: jax.Array | None = None) -> jax.Array:
        """Return ranking scores [n, m] of rows [n, E], each with the rows of [R, E] at `picks` [n, m]."""
        return self.ranking_head.against(user, item, picks, rows)

    def rank(self, user: jax.Array, item: jax.Array) -> jax.Array:
        """Return scores [n, m] of rows [n, E] and [m, E], by the ranking head or, without one, the rating head."""
        return (self.ranking_head if self.options.ranking else self.rating_head).pairs(user, item)

    def everything(self, modalities: dict[str, Modality]) -> None:
        """Use every parameter once, for `init`."""
        features = self.features(modalities)
        self.weights()
        row = jnp.zeros((features.shape[0], self.options.state_size + AUXILIARY))
        if self.options.rating:
            self.rate(row, row)
        if self.options.ranking:
            self.prefer(row, row, jnp.zeros((len(row), 1), int))
