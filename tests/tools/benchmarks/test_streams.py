"""The arguments determine a stream, and invalid arguments are refused."""

import pathlib

import numpy as np
import pytest

from drex_jax.common.errors import UserError
from tools.benchmarks import levels, streams


def test_the_default_stream_has_its_known_depth() -> None:
    stream = streams.synthetic(100_000)
    assert (stream.num_users, stream.num_items, len(stream)) == (10_000, 5_000, 100_000)
    assert levels.depth(stream.user, stream.item) == 4_263


@pytest.mark.parametrize("seed", [0, 3])
def test_draws_are_those_of_the_inverse_distribution(seed: int) -> None:
    stream = streams.synthetic(2_000, users=70, items=11, user_skew=1.3, item_skew=0.0, seed=seed)
    rng = np.random.default_rng(seed)
    for drawn, count, skew in ((stream.user, 70, 1.3), (stream.item, 11, 0.0)):
        p = np.array([1 / (k + 1) ** skew for k in range(count)])
        cumulative = np.cumsum(p / p.sum())
        expected = np.searchsorted(cumulative / cumulative[-1], rng.random(2_000), side="right")
        np.testing.assert_array_equal(drawn, expected)
        assert drawn.dtype == np.int32


def test_one_interaction_and_one_user_are_streams() -> None:
    assert (len(streams.synthetic(1)), streams.synthetic(1).num_users, streams.synthetic(1).num_items) == (1, 1, 1)
    assert not streams.synthetic(50, users=1).user.any()


def test_the_head_keeps_the_tables() -> None:
    head = streams.synthetic(50).head(7)
    assert (len(head), head.num_users, head.num_items) == (7, 5, 2)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"interactions": 0}, "interactions"),
        ({"interactions": 10, "users": 0}, "users"),
        ({"interactions": 10, "items": 2**31}, "items"),
        ({"interactions": 10, "user_skew": -0.1}, "user_skew"),
        ({"interactions": 10, "item_skew": float("nan")}, "item_skew"),
        ({"interactions": 10, "seed": -1}, "seed"),
    ],
)
def test_numbers_that_no_stream_has_are_refused(arguments: dict, named: str) -> None:
    with pytest.raises(UserError, match=f"^{named} must be"):
        streams.synthetic(**arguments)


def test_a_stream_of_an_experiment_is_its_training_part(tmp_path: pathlib.Path) -> None:
    events = [(f"u{k % 7}", f"i{k * k % 11}", k) for k in range(100)]
    (tmp_path / "events.csv").write_text("user,item,timestamp\n" + "".join(f"{u},{i},{t}\n" for u, i, t in events))
    experiment = tmp_path / "experiment.py"
    experiment.write_text(
        "from drex_jax.training.settings import base\n"
        "def get_config():\n"
        "    config = base()\n"
        "    config.data.format = 'table'\n"
        f"    config.data.path = {str(tmp_path / 'events.csv')!r}\n"
        "    config.data.columns.rating = ''\n"
        "    config.data.columns.text = ''\n"
        "    return config\n"
    )
    stream = streams.from_config(str(experiment), ["--config.split.validation=0.2", "--config.split.test=0.2"])
    assert (len(stream), stream.num_users) == (60, 7)
    assert (stream.user_skew, stream.item_skew, stream.seed) == (None, None, None)
    known: dict[str, int] = {}
    expected = [known.setdefault(user, len(known)) for user, _, _ in events[:60]]
    np.testing.assert_array_equal(stream.user, expected)
    known = {}
    np.testing.assert_array_equal(stream.item, [known.setdefault(item, len(known)) for _, item, _ in events[:60]])


def test_an_experiment_that_is_not_there_is_named() -> None:
    with pytest.raises(UserError, match=r"nowhere\.py"):
        streams.from_config("nowhere.py")
