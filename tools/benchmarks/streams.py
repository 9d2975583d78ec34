"""Make the streams that are timed: users and items in time order, without ratings or texts."""

from __future__ import annotations

import dataclasses
import math
import pathlib
import tempfile
from collections.abc import Sequence

import numpy as np

from drex_jax.cli import command as command_lib
from drex_jax.common.errors import UserError
from drex_jax.runs import dataset

MOST_IDS = 2**31 - 1  # users and items are int32


@dataclasses.dataclass(frozen=True)
class Stream:
    """A stream of interactions in time order.

    Attributes:
      name: the name in results.
      user: int32 [N] in [0, num_users).
      item: int32 [N] in [0, num_items).
      num_users: rows of the user table; users without an interaction are counted.
      num_items: rows of the item table, counted likewise.
      user_skew: exponent of the Zipf law that users were drawn from; None for real data.
      item_skew: exponent of the Zipf law that items were drawn from; None for real data.
      seed: seed of the draws; None for real data.
    """

    name: str
    user: np.ndarray
    item: np.ndarray
    num_users: int
    num_items: int
    user_skew: float | None = None
    item_skew: float | None = None
    seed: int | None = None

    def __len__(self) -> int:
        return len(self.user)

    def head(self, count: int) -> Stream:
        """Return the first `count` interactions, with all users and items."""
        return dataclasses.replace(self, user=self.user[:count], item=self.item[:count])


def synthetic(
    interactions: int,
    users: int | None = None,
    items: int | None = None,
    user_skew: float = 0.5,
    item_skew: float = 0.8,
    seed: int = 0,
) -> Stream:
    """Draw users and items independently, number k with probability proportional to (k + 1) ** -skew.

    All users are drawn before all items by `Generator.choice`, so the arguments determine the stream.

    Args:
      interactions: N.
      users: number of users; None: N // 10, at least 1.
      items: number of items; None: N // 20, at least 1.
      user_skew: exponent of the users' Zipf law; 0 is uniform.
      item_skew: exponent of the items' Zipf law; 0 is uniform.
      seed: seed of `numpy.random.default_rng`.

    Raises:
      UserError: an argument is out of range.
    """
    users = max(interactions // 10, 1) if users is None else users
    items = max(interactions // 20, 1) if items is None else items
    for name, count in (("interactions", interactions), ("users", users), ("items", items)):
        if not 1 <= count <= MOST_IDS:
            raise UserError(f"{name} must be between 1 and {MOST_IDS:,}, not {count:,}")
    for name, skew in (("user_skew", user_skew), ("item_skew", item_skew)):
        if not (math.isfinite(skew) and skew >= 0):
            raise UserError(f"{name} must be a finite number, 0 or greater, not {skew}")
    if seed < 0:
        raise UserError(f"seed must be 0 or greater, not {seed}")
    rng = np.random.default_rng(seed)
    drawn = [
        rng.choice(count, interactions, p=_zipf(count, skew)).astype(np.int32)
        for count, skew in ((users, user_skew), (items, item_skew))
    ]
    return Stream("synthetic", drawn[0], drawn[1], users, items, user_skew, item_skew, seed)


def from_config(reference: str, overrides: Sequence[str] = ()) -> Stream:
    """Return the train interactions of an experiment, in the order of learning.

    The data are read and split as by `drex_jax.main`, in a temporary folder, without texts.

    Args:
      reference: `FILE` or `FILE:ARGUMENT`, as for --config.
      overrides: arguments of the form `--config.FIELD=VALUE`.

    Raises:
      UserError: the experiment or its data cannot be read, or there is no train interaction.
    """
    with tempfile.TemporaryDirectory() as folder:
        argv = ["", f"--config={reference}", f"--workdir={folder}", *overrides, "--config.text.enabled=false"]
        command = command_lib.parse(argv)
        if command is None:
            raise UserError("--help and --config do not go together")
        config = command.settings
        prepared = dataset.prepare(config, pathlib.Path(folder))
        train = prepared.sizes[0]
        events = prepared.events
        if not train:
            raise UserError(f"{reference}: its training split is empty")
        return Stream(
            name=prepared.interactions.name,
            user=np.array(events.user[:train], np.int32),
            item=np.array(events.item[:train], np.int32),
            num_users=events.num_users,
            num_items=events.num_items,
        )


def _zipf(count: int, skew: float) -> np.ndarray:
    p = 1 / np.arange(1, count + 1) ** skew
    return p / p.sum()
