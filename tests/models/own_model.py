"""Define a custom model in one file: factors of users and items, and a prior for popular items.

    python -m drex_jax.main --config=experiments/quickstart.py --config.model.name=tests.models.own_model:PopularFactors

A score is <p_u, q_i> + w log(1 + n_i), with n_i the number of train users of item i. It is trained on pairs by BPR.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np

from drex_jax.common.settings import number, setting, whole
from drex_jax.devices.axis import Axis
from drex_jax.models.pairwise import Pairs, Pairwise, Rows, TableSizes, TrainPairs, xavier


@dataclasses.dataclass(frozen=True)
class PopularFactorsSettings:
    """The settings of this model (group `own`). Every pairwise ranker has `batch_size` and `l2`."""

    size: int = setting(16, whole(1), "entries of a factor")
    prior: float = setting(0.5, number(0.0), "weight of the popularity prior before training")
    batch_size: int = setting(256, whole(1), "pairs of a batch")
    l2: float = setting(1e-3, number(0.0), "weight of the squared factors of a batch")


@dataclasses.dataclass(frozen=True)
class PopularFactors(Pairwise):
    """Score by rows [D + 1]: a user's factors and the prior's weight, an item's factors and its popularity."""

    settings: PopularFactorsSettings

    Settings = PopularFactorsSettings  # the class of the configuration group `own`
    updates = "pairs"  # a finished run takes new pairs into account; see `over` and `grown`

    @classmethod
    def over(cls, pairs: TrainPairs, *groups: Any) -> tuple[Self, np.ndarray]:
        """Return the model and its constants: the popularity of items, float32 [I, 1]."""
        (settings,) = groups
        count = np.bincount(pairs.item, minlength=pairs.num_items)
        return cls(settings, TableSizes.of(pairs)), np.log1p(count).astype(np.float32)[:, None]

    def init(self, key: jax.Array) -> dict[str, jax.Array]:
        """Return new parameters: `user` [U, D], `item` [I, D] and `weight` [1]."""
        user, item = jax.random.split(key)
        size = self.settings.size
        return {
            "user": xavier(user, self.sizes.users, size),
            "item": xavier(item, self.sizes.items, size),
            "weight": jnp.full(1, self.settings.prior),
        }

    def all_rows(self, params: dict[str, jax.Array], constants: Any, carry: Any) -> tuple[jax.Array, jax.Array]:
        """Return rows of all users [U, D + 1] and items [I, D + 1]."""
        weight = jnp.broadcast_to(params["weight"], (self.sizes.users, 1))
        return jnp.concatenate([params["user"], weight], 1), jnp.concatenate([params["item"], constants], 1)

    def rows(
        self, params: dict[str, jax.Array], constants: Any, carry: Any, pairs: Pairs, key: jax.Array, axis: Axis
    ) -> Rows:
        """Return the rows of a batch, with L2 on the factors."""
        user, item = self.all_rows(params, constants, carry)
        own = user[pairs.user], item[pairs.item], item[pairs.negative]
        return Rows(*own, penalised=[rows[:, :-1] for rows in own])

    def grown(self, params: dict[str, jax.Array], known: TableSizes) -> dict[str, jax.Array]:
        """Return the parameters with zero factors for users and items that are new since training."""
        more = {"user": self.sizes.users - known.users, "item": self.sizes.items - known.items}
        return params | {name: jnp.pad(params[name], ((0, count), (0, 0))) for name, count in more.items()}
