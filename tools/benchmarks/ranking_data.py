"""Write data sets in MMRec's layout for timing rankers: synthetic ones, or real ones with features added."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from drex_jax.common.errors import UserError
from drex_jax.data.readers import mmrec

USER_SKEW, ITEM_SKEW = 0.5, 0.8  # exponents of the Zipf laws that users and items are drawn from
MODALITIES = ("image", "text")
WIDTHS = (128, 128)  # feature columns of each modality


class Size(NamedTuple):
    """The size of a synthetic data set.

    Attributes:
      users, items: number of users and of items; each has at least one interaction.
      interactions: number of distinct pairs; about 80% are train, 10% validation, 10% test.
    """

    users: int
    items: int
    interactions: int


def write(folder: pathlib.Path, size: Size, widths: Sequence[int] = WIDTHS, seed: int = 0) -> None:
    """Write a synthetic data set with two random modalities, of `widths` columns.

    Users and items are drawn independently by power laws; the first interaction of each user and item is train.

    Raises:
      UserError: `size.interactions` is more than the number of pairs, or too small for all users and items to occur.
    """
    rng = np.random.default_rng(seed)
    pairs = _pairs(rng, size)
    user, item = np.divmod(pairs, size.items)
    split = rng.choice(3, len(pairs), p=(0.8, 0.1, 0.1))
    for side in (user, item):
        split[np.unique(side, return_index=True)[1]] = 0
    lines = [f"{u}\t{i}\t{part}\n" for u, i, part in zip(user.tolist(), item.tolist(), split.tolist(), strict=True)]
    folder.mkdir(parents=True)
    (folder / "made_up.inter").write_text("".join(["userID\titemID\tx_label\n", *lines]))
    add_features(folder, size.items, widths, seed)


def add_features(folder: pathlib.Path, items: int, widths: Sequence[int] = WIDTHS, seed: int = 0) -> None:
    """Write a random array [items, width] for each modality, standard normal."""
    rng = np.random.default_rng((seed, items))
    for name, width in zip(MODALITIES, widths, strict=True):
        np.save(folder / f"{name}_feat.npy", rng.standard_normal((items, width), np.float32))


def with_features(folder: pathlib.Path, source: pathlib.Path, widths: Sequence[int] = WIDTHS) -> bool:
    """Make `folder` a data set with features: links to the files of `source`, and random features if it has none.

    Returns:
      True if the features are random.

    Raises:
      UserError: `source` holds no data set.
    """
    table = mmrec.find(source)
    features = sorted(table.parent.glob("*_feat.npy"))
    folder.mkdir(parents=True)
    for path in (table, *features):
        (folder / path.name).symlink_to(path.resolve())
    if not features:
        add_features(folder, 1 + _largest_item(table), widths)
    return not features


def _largest_item(table: pathlib.Path) -> int:
    try:
        with table.open() as lines:
            column = next(lines).rstrip("\n").split("\t").index(mmrec.ITEM)
            return max(int(line.split("\t")[column]) for line in lines)
    except (OSError, ValueError, IndexError, StopIteration) as error:
        raise UserError(f"{table}: {error}; expected {mmrec.EXPECTED}") from None


def _pairs(rng: np.random.Generator, size: Size) -> np.ndarray:
    """Return distinct pairs user * items + item, int64 [interactions], ascending; all users and items occur."""
    users, items, interactions = size
    longer = max(users, items)
    everyone = np.unique(np.resize(rng.permutation(users), longer) * items + np.resize(rng.permutation(items), longer))
    if not len(everyone) <= interactions <= users * items // 2:
        raise UserError(f"{users:,} users and {items:,} items cannot have {interactions:,} made-up interactions")
    pairs = everyone
    chances = [weights / weights.sum() for weights in (_zipf(users, USER_SKEW), _zipf(items, ITEM_SKEW))]
    while len(pairs) < interactions:
        missing = interactions - len(pairs)
        drawn = rng.choice(users, missing, p=chances[0]) * items + rng.choice(items, missing, p=chances[1])
        pairs = np.union1d(pairs, drawn)  # at most `interactions`
    return pairs


def _zipf(count: int, skew: float) -> np.ndarray:
    return 1 / np.arange(1, count + 1) ** skew
