"""Compare VBPR with a NumPy twin, also for items without features; it refuses data without features."""

import jax
import numpy as np
import pytest

from drex_jax.common.errors import UserError
from drex_jax.models.baselines.vbpr import VBPR
from drex_jax.models.settings import RankerSettings

OPTIONS = RankerSettings(size=4, batch_size=16, l2=0.03)


@pytest.mark.parametrize("modalities", [("image",), ("audio", "image"), ("audio", "image", "text")])
def test_rows_and_loss_are_those_of_a_slow_twin(make_items, first_loss, modalities):
    events, sizes = make_items(modalities)
    stream = VBPR.stream(events, sizes, OPTIONS)
    params = stream.init(jax.random.key(1))
    features = np.concatenate([np.nan_to_num(events.item_vectors[name]) for name in modalities], axis=1)
    items = np.concatenate([params["item"], features @ np.asarray(params["project"])], axis=1)
    users = np.asarray(params["user"])
    carry = stream.start(params)
    np.testing.assert_allclose(carry.user, users, atol=1e-6)
    np.testing.assert_allclose(carry.item, items, atol=1e-5)
    loss, figures, pairs = first_loss(stream, params)
    scores = [(users[pairs.user] * items[other]).sum(1) for other in (pairs.item, pairs.negative)]
    ranking = np.log1p(np.exp(scores[1] - scores[0])).mean()
    rows = users[pairs.user], items[pairs.item], items[pairs.negative]
    assert figures["ranking_loss"] == pytest.approx(ranking, rel=1e-5)
    assert loss == pytest.approx(ranking + 0.03 * sum((each**2).sum(1).mean() for each in rows), rel=1e-5)


def test_without_features_it_refuses(make_items):
    with pytest.raises(UserError, match="VBPR needs features of items"):
        VBPR.stream(*make_items(()), OPTIONS)


def test_a_step_is_the_same_on_several_devices(make_items, same_on_devices):
    same_on_devices(lambda devices: VBPR.stream(*make_items(("image", "text")), OPTIONS, devices=devices))


def test_numbers_of_items_mean_nothing(make_items, permuted):
    """Permuting the items and their parameters permutes the rows likewise."""
    events, sizes = make_items(("audio", "image"))
    order = np.random.default_rng(3).permutation(events.num_items)
    stream, other = VBPR.stream(events, sizes, OPTIONS), VBPR.stream(permuted(events, order), sizes, OPTIONS)
    params = stream.init(jax.random.key(1))
    carry = stream.start(params)
    moved = other.start({**params, "item": params["item"][order]})
    np.testing.assert_allclose(moved.item, carry.item[order], atol=1e-5)


def test_it_learns(make_items, fitted):
    """The loss falls and all values stay finite, with items that lack features."""
    stream = VBPR.stream(*make_items(("audio", "image")), OPTIONS)
    losses, params = fitted(stream, 60)
    assert losses[-1] < 0.6 * losses[0]
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))
