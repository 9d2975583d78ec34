"""What DReX computes from its parameters alone, whatever data it learns from (arXiv 2602.19702).

An interaction is scored from its two states first and only then updates them. Only those two are read inside the
scan; heads, losses and negatives read the stacked states before each interaction afterwards.

Letters: n interactions of a window, U users, I items, D state size, E = D + 2, F features.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from drex_jax.common.errors import UserError
from drex_jax.devices.axis import ALONE, Axis
from drex_jax.models.drex import recurrence, window
from drex_jax.models.drex.network import AUXILIARY, Modality, Network, NetworkOptions
from drex_jax.models.protocol import States
from drex_jax.models.running_bias import RunningBias
from drex_jax.text import encoder as text_encoder
from drex_jax.text.bert.network import Architecture

DAY = 86400.0
BIAS = ("mean", "user_shrinkage", "item_shrinkage")
LARGEST = 1 << 24  # of a network's sizes
CONSTANTS = ("rating_mean", "rating_deviation", "rating_weight", "ranking_weight")


@dataclasses.dataclass(frozen=True)
class DReXOptions:
    """How DReX trains. Fields as in `drex_jax.config.defaults`, constants fitted on train."""

    network: NetworkOptions
    bias: RunningBias
    rating_mean: float = 0.0
    rating_deviation: float = 1.0
    rating_weight: float = 1.0
    ranking_weight: float = 0.0
    ranking_loss: str = "sampled_softmax"
    negatives: int = 32
    offset_dropout: float = 0.5
    bptt_windows: int = 1
    implementation: recurrence.Implementation = recurrence.Implementation.AUTO
    products: str = "float32"
    packing: window.Packing = window.DEFAULT_PACKING
    seed: int = 0

    def constants(self) -> dict[str, Any]:
        """What a trained model's predictions depend on, as JSON can hold it."""
        bias = {name: getattr(self.bias, name) for name in BIAS}
        return {
            "network": dataclasses.asdict(self.network),
            "bias": bias,
            **{name: getattr(self, name) for name in CONSTANTS},
        }

    @classmethod
    def of(cls, constants: Any) -> DReXOptions:
        """The options with what `constants` gave.

        Raises:
          UserError: something of it is missing or unknown.
        """
        try:
            network: dict[str, Any] = dict(constants["network"])
            network["vector_modalities"] = tuple(network["vector_modalities"])
            if network.get("bert") is not None:
                network["bert"] = Architecture(**network["bert"])
            bias = RunningBias(**{name: float(constants["bias"][name]) for name in BIAS})
            options = cls(NetworkOptions(**network), bias, **{name: constants[name] for name in CONSTANTS})
            _require_types(options)
            _require_types(options.network)
            return options
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise UserError(f"the constants of a DReX model are damaged ({error!r}); train the run again") from None


def _require_types(options: DReXOptions | NetworkOptions) -> None:
    """Raises TypeError where a field is of another type than its default, ValueError where it is beyond all sizes."""
    for field in dataclasses.fields(options):
        value, default = getattr(options, field.name), field.default
        if field.default not in (dataclasses.MISSING, None) and type(value) is not type(default):
            raise TypeError(f"{field.name} is {value!r}")
        if type(value) is int and not 0 <= value <= LARGEST:
            raise ValueError(f"{field.name} is {value!r}")


class Keys(NamedTuple):
    """What is random in a training step."""

    text: jax.Array
    offset: jax.Array
    network: jax.Array


class Refiner:
    """Rows of everyone, how interactions refine them, and what they predict."""

    ranks = True

    def __init__(self, options: DReXOptions):
        """Raises `ValueError` where a head has no weight or a weight no head."""
        if (options.rating_weight > 0, options.ranking_weight > 0) != (options.network.rating, options.network.ranking):
            raise ValueError(
                "a network has a rating head and a ranking head where, and only where, their weight is above 0"
            )
        self.options = options
        self.network = Network(options.network)
        self.rates = options.network.rating

    def rows(self, params: dict[str, Any], side: str, auxiliary: np.ndarray) -> jax.Array:
        """The first rows [m, E] of the first m users or items (`side`), whose `auxiliary` float32 [m, 2] is known.

        A state is the learned shared vector, plus the offset of those met in train.
        """
        start, offset = params["network"][f"{side}_start"], params.get(f"{side}_offset")
        states = jnp.broadcast_to(start, (len(auxiliary), len(start)))
        if offset is not None:
            states = states.at[: len(offset)].add(offset)
        return jnp.concatenate([states, auxiliary], axis=1)

    def newcomers(self, params: dict[str, Any], carry: States) -> tuple[jax.Array, jax.Array]:
        """The rows [E] of a user and an item before their first interaction, without an offset."""
        network, nothing = params["network"], jnp.zeros(AUXILIARY)
        return jnp.append(network["user_start"], nothing), jnp.append(network["item_start"], nothing)

    def directions(self, item: jax.Array) -> jax.Array:
        """States [I, D] less their mean, of rows [I, E]: running bias and count say nothing of likeness, and what all
        states have in common would make all cosines large.
        """
        states = item[:, : self.options.network.state_size]
        return states - states.mean(0)

    def observe_window(
        self, axis: Axis, params: dict[str, Any], carry: States, events: window.Window
    ) -> tuple[States, jax.Array, jax.Array]:
        """Replays a window, as a program of one device: the carry after it, rows before each, user and item [n, E]."""
        user, item, carry = self.scan(params, carry, events, None, axis)
        return carry, user, item

    def scan(
        self, params: dict[str, Any], carry: States, events: window.Window, keys: Keys | None, axis: Axis
    ) -> tuple[jax.Array, jax.Array, States]:
        """Rows before each interaction, user [n, E] and item [n, E], and the carry after all. `keys`: in training."""
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
        tables.append(jnp.zeros((2 * width, size)))  # two rows for every lane, used where it is empty
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

    def rate(self, params: dict[str, Any], user: jax.Array, item: jax.Array) -> jax.Array:
        """Predicted ratings [n] from rows [n, E]."""
        standard = self._apply(params, "rate", user, item)
        if self.options.network.residual:
            standard = standard + self._base(user, item)
        return self.options.rating_mean + self.options.rating_deviation * standard

    def pairs(self, params: dict[str, Any], user: jax.Array, item: jax.Array) -> jax.Array:
        """Predicted ratings [n] of rows [n, E]; scores of the ranking head where it alone is trained."""
        if self.rates:
            return self.rate(params, user, item)
        return self._apply(params, "prefer", user, item, jnp.arange(len(item))[:, None])[:, 0]

    def rank(self, params: dict[str, Any], user: jax.Array, item: jax.Array) -> jax.Array:
        """Scores [n, m]: of the ranking head where it is trained, else predicted ratings (up to a user's constant)."""
        scores = self._apply(params, "rank", user, item)
        if self.options.network.residual and not self.options.network.ranking:
            size = self.options.network.state_size
            scores = scores + item[None, :, size] / self.options.rating_deviation
        return scores

    def _base(self, user: jax.Array, item: jax.Array) -> jax.Array:
        """The running bias's prediction less the mean, in standard units, from rows [n, E]."""
        size = self.options.network.state_size
        return (user[..., size] + item[..., size]) / self.options.rating_deviation

    def _apply(self, params: dict[str, Any], method: str, *args: Any, **kwargs: Any) -> Any:
        return self.network.apply({"params": params["network"]}, *args, method=method, **kwargs)

    def _modalities(self, events: window.Window, text: jax.Array | None, axis: Axis = ALONE) -> dict[str, Modality]:
        """Everything an interaction brings, by name; this device's own of them. `text`: [n, F]."""
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
        if not modalities:  # an interaction is then the bare fact that it happened
            modalities["event"] = Modality(everywhere.astype(jnp.float32)[:, None], everywhere)
        return modalities
