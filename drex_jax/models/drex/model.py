"""DReX as pure functions of its parameters, independent of the data (arXiv 2602.19702).

docs/faithfulness.md separates the paper's choices from ours. An interaction is first scored from its two states, and
only then updates them. The scan reads no other states. Heads, losses and negatives are computed after the scan, from
the stacked states before each interaction.

Letters: n interactions of a window, U users, I items, D state size, E = D + 2, F features.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from drex_jax.common.side import Side
from drex_jax.devices.axis import ALONE, Axis
from drex_jax.models import losses
from drex_jax.models.constants import unrecorded
from drex_jax.models.drex import recurrence, window
from drex_jax.models.drex.network import AUXILIARY, Modality, Network, NetworkOptions
from drex_jax.models.protocol import Loss, Model, Params, States
from drex_jax.models.running_bias import RunningBias
from drex_jax.text import encoder as text_encoder
from drex_jax.text.encoder import TextEncoder

DAY = 86400.0


@dataclasses.dataclass(frozen=True)
class DReXOptions:
    """Sizes, constants fitted on train, and options of training and computation.

    Attributes:
      network: the sizes and parts of the network.
      bias: the running bias.
      rating_mean, rating_deviation: the mean and standard deviation of the train ratings.
      rating_weight, ranking_weight: the weights of the two losses.
      ranking_loss: `sampled_softmax` or `bpr`.
      negatives: the number of negatives of each interaction.
      offset_dropout: the share of offsets that a training step leaves out.
      bptt_windows: the number of windows of the train stream.
      implementation, products: options of the recurrence.
      packing: the packing of windows.
      known_users, known_items: the numbers of users and items in train; only they have an offset.
      vector_widths: the widths of the network's vector modalities, in their order.
    """

    network: NetworkOptions
    bias: RunningBias
    rating_mean: float = 0.0
    rating_deviation: float = 1.0
    rating_weight: float = 1.0
    ranking_weight: float = 0.0
    ranking_loss: str = unrecorded("sampled_softmax")
    negatives: int = unrecorded(32)
    offset_dropout: float = unrecorded(0.5)
    bptt_windows: int = unrecorded(1)
    implementation: recurrence.Implementation = unrecorded(recurrence.Implementation.AUTO)  # noqa: RUF009
    products: str = unrecorded("float32")
    packing: window.Packing = unrecorded(window.DEFAULT_PACKING)  # noqa: RUF009
    known_users: int = unrecorded(0)
    known_items: int = unrecorded(0)
    vector_widths: tuple[int, ...] = unrecorded(())


class Keys(NamedTuple):
    """The random keys of a training step."""

    text: jax.Array
    offset: jax.Array
    network: jax.Array


class WindowBatch(NamedTuple):
    """A training window and its negatives (None without a ranking loss)."""

    window: window.Window
    negatives: window.Negatives | None


@dataclasses.dataclass(frozen=True)
class DReX(Model):
    """Rows of all users and items, how interactions refine them, and what they predict."""

    options: DReXOptions

    def __post_init__(self) -> None:
        """Raise `ValueError` for a head without a weight or a weight without a head."""
        options = self.options
        if (options.rating_weight > 0, options.ranking_weight > 0) != (options.network.rating, options.network.ranking):
            raise ValueError(
                "a network has a rating head and a ranking head where, and only where, their weight is above 0"
            )

    @functools.cached_property
    def network(self) -> Network:
        """The network: features, weights of the recurrence, and heads."""
        return Network(self.options.network)

    @property
    def rates(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride] (depends on the options)
        """True if the model has a rating head."""
        return self.options.network.rating

    @property
    def text_encoder(self) -> TextEncoder | None:
        """The encoder of reviews; None if the model reads no texts."""
        return self.options.network.text_encoder if self.options.network.vocabulary_size else None

    @property
    def modalities(self) -> tuple[str, ...]:
        """The modalities of an interaction: `text`, vectors by name, `rating`, `time`."""
        options = self.options.network
        known = (("rating", options.rating_modality), ("time", options.time_modality))
        text = ("text",) if options.vocabulary_size else ()
        return (*text, *options.vector_modalities, *(name for name, read in known if read))

    def init(self, key: jax.Array) -> Params:
        """Return new parameters: network, text encoder (if any) and offsets (if any, zeros)."""
        network_key, text_key = jax.random.split(key)
        params = {"network": self.network.init(network_key, self._sample(), method="everything")["params"]}
        options = self.options.network
        if self.text_encoder is not None:
            params["text"] = text_encoder.init(self.text_encoder, text_key)
        if options.offsets:
            params["user_offset"] = jnp.zeros((self.options.known_users, options.state_size))
            params["item_offset"] = jnp.zeros((self.options.known_items, options.state_size))
        return params

    def loss(self, params: Params, carry: States, batch: WindowBatch, key: jax.Array, axis: Axis = ALONE) -> Loss:
        """Return the loss of one window.

        Its gradient is exact through all updates of the window; the initial states are constants. Texts, features and
        predictions are sharded over the devices, and so are the lanes of each step if the packing splits them.
        """
        options, events = self.options, batch.window
        keys = Keys(*jax.random.split(key, 3))
        user_before, item_stack, after = self.scan(params, carry, events, keys, axis)
        user_before, item_before = axis.shard(user_before), axis.shard(item_stack)
        rows = axis.shard(jnp.arange(len(item_stack)))

        def scores(method: str, *arguments: jax.Array) -> jax.Array:
            return self._apply(params, method, *arguments, rows, rngs={"dropout": keys.network})

        total = jnp.zeros(())
        sums: dict[str, jax.Array] = {}
        if options.rating_weight:
            target = (axis.shard(jnp.asarray(events.rating)) - options.rating_mean) / options.rating_deviation
            rated = axis.shard(jnp.asarray(events.valid)) & ~jnp.isnan(target)
            if options.network.residual:
                target = target - self._base(user_before, item_before)
            error = losses.squared_error(scores("rate", user_before, item_before), target, rated, axis)
            total += options.rating_weight * error
            sums["rating_loss"] = error * options.rating_deviation**2
        if batch.negatives is not None:
            stack = jnp.concatenate([item_stack, after.item])
            picks = jnp.concatenate([rows[:, None], axis.shard(jnp.asarray(batch.negatives.state))], 1)  # own first
            preferences = scores("prefer", user_before, stack, picks)
            positive, negative = preferences[:, 0], preferences[:, 1:]
            valid = axis.shard(jnp.asarray(batch.negatives.valid))
            ranking = losses.RANKING_LOSSES[options.ranking_loss](positive, negative, valid, axis)
            total += options.ranking_weight * ranking
            sums["ranking_loss"] = ranking
        return total, (jax.lax.stop_gradient(after), sums)

    def rows(self, params: Params, side: Side, auxiliary: np.ndarray) -> jax.Array:
        """Return the initial rows [m, E] of the first m users or items, with their inputs `auxiliary`, [m, 2].

        A state is the learned shared vector; users and items of train add their offset. The auxiliary inputs, float32,
        are the running bias and log1p count.
        """
        start, offset = params["network"][f"{side}_start"], params.get(f"{side}_offset")
        states = jnp.broadcast_to(start, (len(auxiliary), len(start)))
        if offset is not None:
            states = states.at[: len(offset)].add(offset)
        return jnp.concatenate([states, auxiliary], axis=1)

    def cold_start(self, params: Params, states: States) -> tuple[jax.Array, jax.Array]:
        """Return the rows [E] of a user and an item before their first interaction, without an offset."""
        network, nothing = params["network"], jnp.zeros(AUXILIARY)
        return jnp.append(network["user_start"], nothing), jnp.append(network["item_start"], nothing)

    def directions(self, items: jax.Array) -> jax.Array:
        """Return the states [I, D] in rows [I, E], minus their mean.

        The running bias and the count say nothing about similarity. The mean of all states would make all cosines
        large.
        """
        states = items[:, : self.options.network.state_size]
        return states - states.mean(0)

    def observe_window(
        self, axis: Axis, params: Params, carry: States, events: window.Window
    ) -> tuple[States, jax.Array, jax.Array]:
        """Replay a window; this is the program of one device.

        Returns:
          The states after the window, and the user and item rows before each interaction, [n, E] each.
        """
        user, item, carry = self.scan(params, carry, events, None, axis)
        return carry, user, item

    def scan(
        self, params: Params, carry: States, events: window.Window, keys: Keys | None, axis: Axis
    ) -> tuple[jax.Array, jax.Array, States]:
        """Return the rows before each interaction, user [n, E] and item [n, E], and the states after all interactions.

        `keys`: the random keys of a training step; None turns dropout off.
        """
        options = self.options.network
        size = options.state_size
        text = None
        if options.vocabulary_size:
            text_key = None if keys is None else keys.text
            encoder = options.text_encoder
            text = text_encoder.encode(encoder, params["text"], events.text, len(events.rating), text_key, axis)
        rngs = None if keys is None else {"dropout": keys.network}
        numbers = None if keys is None else axis.shard(jnp.arange(len(events.rating)))
        features = self._apply(params, "features", self._modalities(events, text, axis), numbers, rngs=rngs)
        weights = self._apply(params, "weights")
        tables = []
        for side, rows, fresh in (
            ("user", events.user_rows, events.user_fresh),
            ("item", events.item_rows, events.item_fresh),
        ):
            states = getattr(carry, side).at[rows].get(mode="clip")[:, :size]
            start = jnp.broadcast_to(params["network"][f"{side}_start"], states.shape)
            if options.offsets:
                table = params[f"{side}_offset"]
                offset = table.at[rows].get(mode="fill", fill_value=0.0)
                if keys is not None:
                    side_key = jax.random.fold_in(keys.offset, side == "item")
                    kept = jax.random.bernoulli(side_key, 1 - self.options.offset_dropout, (len(rows), 1))
                    offset = jnp.where(kept, offset, 0.0)
                start = start + offset
            tables.append(jnp.where(fresh[:, None], start, states))
        width = events.layout.lanes.shape[2]
        tables.append(jnp.zeros((2 * width, size)))  # two rows for every lane, for empty lanes
        how = recurrence.RecurrenceOptions(
            self.options.implementation, self.options.products, axis if self.options.packing.split else ALONE
        )
        layout = jax.tree.map(jnp.asarray, events.layout)
        table, before = recurrence.refine(weights, jnp.concatenate(tables), axis.all_gather(features), layout, how)
        log_count = jnp.log1p(events.counts)
        rows = [
            jnp.concatenate([before[:, side], events.bias[:, side : side + 1], log_count[:, side : side + 1]], 1)
            for side in (0, 1)
        ]
        users = len(events.user_rows)
        items = users + len(events.item_rows)
        user_after = jnp.concatenate([table[:users], events.user_auxiliary], axis=1)
        item_after = jnp.concatenate([table[users:items], events.item_auxiliary], axis=1)
        after = States(
            carry.user.at[events.user_rows].set(user_after, mode="drop"),
            carry.item.at[events.item_rows].set(item_after, mode="drop"),
        )
        return rows[0], rows[1], after

    def rate(self, params: Params, user: jax.Array, item: jax.Array) -> jax.Array:
        """Return predicted ratings [n] of rows [n, E]."""
        standard = self._apply(params, "rate", user, item)
        if self.options.network.residual:
            standard = standard + self._base(user, item)
        return self.options.rating_mean + self.options.rating_deviation * standard

    def score(self, params: Params, user: jax.Array, item: jax.Array) -> jax.Array:
        """Return the predicted ratings [n] of rows [n, E]; without a rating head, the scores of the ranking head."""
        if self.rates:
            return self.rate(params, user, item)
        return self._apply(params, "prefer", user, item, jnp.arange(len(item))[:, None])[:, 0]

    def rank(self, params: Params, user: jax.Array, item: jax.Array) -> jax.Array:
        """Return the scores [n, m] of the ranking head; without one, predicted ratings up to a constant per user."""
        scores = self._apply(params, "rank", user, item)
        if self.options.network.residual and not self.options.network.ranking:
            size = self.options.network.state_size
            scores = scores + item[None, :, size] / self.options.rating_deviation
        return scores

    def _base(self, user: jax.Array, item: jax.Array) -> jax.Array:
        """Return the running bias's prediction minus the mean, in standard units, from rows [n, E]."""
        size = self.options.network.state_size
        return (user[..., size] + item[..., size]) / self.options.rating_deviation

    def _apply(self, params: Params, method: str, *args: Any, **kwargs: Any) -> Any:
        return self.network.apply({"params": params["network"]}, *args, method=method, **kwargs)

    def _modalities(self, events: window.Window, text: jax.Array | None, axis: Axis = ALONE) -> dict[str, Modality]:
        """Return this device's shard of the modalities of interactions, by name. `text`: [n, F], encoded reviews."""
        options = self.options.network

        def own(values: Any) -> jax.Array:
            return axis.shard(jnp.asarray(values))

        n = len(events.rating)
        everywhere = own(np.ones(n, bool))
        modalities: dict[str, Modality] = {}
        if options.rating_modality:
            rating = ((own(events.rating) - self.options.rating_mean) / self.options.rating_deviation)[:, None]
            surprise = rating - own(events.bias).sum(1, keepdims=True) / self.options.rating_deviation
            values = jnp.concatenate([rating, surprise], 1) if options.residual else rating
            modalities["rating"] = Modality(values, ~jnp.isnan(rating[:, 0]))
        if options.time_modality:
            gap = own(events.gap)
            first = jnp.isnan(gap)
            days = jnp.log1p(jnp.where(first, 0.0, gap) / DAY)
            values = jnp.concatenate([days / 4, first.astype(jnp.float32), jnp.log1p(own(events.counts)) / 4], 1)
            modalities["time"] = Modality(values, everywhere)
        for name in options.vector_modalities:
            vectors = own(events.vectors[name])
            modalities[name] = Modality(vectors, ~jnp.isnan(vectors).any(1))
        if options.vocabulary_size:
            present = jnp.zeros(n, bool)
            for row in events.text.row:
                present = present.at[row].set(True, mode="drop")
            text = jnp.zeros((n, options.feature_size)) if text is None else text
            modalities["text"] = Modality(own(text), own(present))
        if not modalities:  # the only information is then that the interaction happened
            modalities["event"] = Modality(everywhere.astype(jnp.float32)[:, None], everywhere)
        return modalities

    def _sample(self) -> dict[str, Modality]:
        """Return the modalities of one interaction, zeros: the network's parameters depend on their widths."""
        options = self.options.network
        widths = dict(zip(options.vector_modalities, self.options.vector_widths, strict=True))
        widths |= {"rating": 1 + options.residual} if options.rating_modality else {}
        widths |= {"time": 6} if options.time_modality else {}
        widths |= {"text": options.feature_size} if options.vocabulary_size else {}
        return {
            name: Modality(jnp.zeros((1, width)), jnp.ones(1, bool)) for name, width in (widths or {"event": 1}).items()
        }
