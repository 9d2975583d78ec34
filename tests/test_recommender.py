"""A loaded run against the model it was made of: the same scores, the same order; newcomers; runs that are none."""

from __future__ import annotations

import json
import pathlib
import shutil
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from drex_jax import Recommender, build, checkpoint, config, main, train
from drex_jax.dataset import open_dataset
from drex_jax.errors import UserError

USERS, ITEMS = 12, 10
KINDS = ("drex", "drex of rankings", "bpr", "popularity")


def settings(kind: str) -> Any:
    settings: Any = config.base()
    settings.data.synthetic.update(num_interactions=160, num_users=USERS, num_items=ITEMS, seed=1)
    settings.text.enabled = False
    settings.devices.update(count=1, mapping="none")
    settings.baselines = ()
    settings.evaluate.cutoffs = (5,)
    if kind.startswith("drex"):
        settings.model.update(state_size=3, feature_size=3, negatives=3, offsets=kind == "drex")
        settings.train.update(epochs=1, bptt_windows=2, warmup_steps=1)
        if kind == "drex of rankings":
            settings.model.rating_weight = 0.0
            settings.train.selection = "ndcg@5"
        return settings
    settings.model.name = kind
    settings.train.update(epochs=2, bptt_windows=1, selection="ndcg@5")
    if kind == "bpr":
        settings.ranker.update(size=3, batch_size=32)
    return settings


@pytest.fixture(scope="module", params=KINDS)
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    workdir = tmp_path_factory.mktemp("run")
    train.train(settings(request.param), workdir)
    return workdir


@pytest.fixture(scope="module")
def parts(run: pathlib.Path) -> tuple[Recommender, Any, Any, Any, Any]:
    """The recommender, and the twin: data, model, parameters and rows as training has them."""
    options = config.from_json(run / "config.json")
    data = open_dataset(options, run)
    model: Any = build.build(options.model.name, options, data, 0, build.machine(options))
    params = jax.eval_shape(model.init, jax.random.key(0))
    like = {"params": params, "carry": jax.eval_shape(model.start, params)}
    arrays = checkpoint.load_model(run / "model", like)
    return Recommender.load(run), data, model, arrays["params"], arrays["carry"]


def ids(data: Any) -> tuple[list[str], list[str]]:
    return list(data.interactions.user_ids), list(data.interactions.item_ids)


def test_lists_are_the_models_without_what_was_seen(parts: tuple[Any, ...]) -> None:
    recommender, data, model, params, carry = parts
    users, items = ids(data)
    scores = np.asarray(model.rank(params, carry.user, carry.item))
    seen = [set(data.events.item[data.events.user == user].tolist()) for user in range(USERS)]
    assert any(seen)
    lists = recommender.recommend(users, k=ITEMS)
    whole = recommender.recommend(users, k=ITEMS, exclude_seen=False)
    for user in range(USERS):
        order = sorted(range(ITEMS), key=lambda item, user=user: -scores[user, item])
        left = [item for item in order if item not in seen[user]]
        assert sorted(each.item for each in lists[user]) == sorted(items[item] for item in left)
        for found, expected in ((lists[user], left), (whole[user], order)):
            np.testing.assert_allclose([each.score for each in found], scores[user, expected], rtol=1e-5, atol=1e-6)
            for each in found:  # equal scores may stand in any order
                assert each.score == pytest.approx(scores[user, items.index(each.item)], rel=1e-5, abs=1e-6)
        alone = recommender.recommend(users[user], k=2)
        assert [each.item for each in alone] == [each.item for each in lists[user][:2]]
    assert list(recommender.stream(users, ITEMS)) == lists


def test_candidates_are_the_only_ones(parts: tuple[Any, ...]) -> None:
    recommender, data, *_ = parts
    users, items = ids(data)
    found = recommender.recommend(users[0], k=5, exclude_seen=False, candidates=[items[3], items[7]])
    assert {each.item for each in found} == {items[3], items[7]}
    assert recommender.recommend(users[0], candidates=[]) == []
    with pytest.raises(UserError, match="candidates: the run has no item nothing"):
        recommender.recommend(users[0], candidates=[items[0], "nothing"])


def test_blocks_do_not_matter(parts: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    recommender, data, *_ = parts
    users = [*ids(data)[0], "a newcomer"]
    whole = recommender.recommend(users, k=3)
    monkeypatch.setattr("drex_jax.recommender.SCORES", 5 * ITEMS)  # blocks of 5, the last of 3
    for found, expected in zip(recommender.recommend(users, k=3), whole, strict=True):
        assert [each.item for each in found] == [each.item for each in expected]
    assert recommender.recommend([], k=3) == []


def test_predictions_are_the_models(parts: tuple[Any, ...]) -> None:
    recommender, data, model, params, carry = parts
    users, items = ids(data)
    rng = np.random.default_rng(0)
    user, item = rng.integers(0, USERS, 9), rng.integers(0, ITEMS, 9)
    found = recommender.predict([users[u] for u in user], [items[i] for i in item])
    if model.rates:
        expected = np.clip(model.rate(params, carry.user[user], carry.item[item]), *data.interactions.rating_range)
    else:
        expected = np.asarray(model.rank(params, carry.user, carry.item))[user, item]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    with pytest.raises(UserError, match="needs pairs, not 2 users and 1 items"):
        recommender.predict(users[:2], items[:1])
    assert len(recommender.predict([], [])) == 0


def test_somebody_never_seen(parts: tuple[Any, ...]) -> None:
    recommender, data, model, params, carry = parts
    users, items = ids(data)
    assert not recommender.knows_user("nobody")
    assert not recommender.knows_item(123)
    assert recommender.knows_user(users[0])
    assert recommender.knows_item(items[0])
    found = recommender.recommend("nobody", k=ITEMS)
    assert sorted(each.item for each in found) == sorted(items)
    if "network" in params:  # the learned start, without an offset, before any interaction
        size = len(params["network"]["user_start"])
        row = jnp.concatenate([params["network"]["user_start"], jnp.zeros(carry.user.shape[1] - size)])
    elif model.options if hasattr(model, "options") else None:
        row = carry.user.mean(0)
    else:
        row = jnp.zeros(1)
    expected = np.sort(np.asarray(model.rank(params, row[None], carry.item))[0])[::-1]
    np.testing.assert_allclose([each.score for each in found], expected, rtol=1e-5, atol=1e-6)
    assert np.isfinite(recommender.predict(["nobody", users[0], "nobody"], [items[0], "nothing", "nothing"])).all()


def test_alike_items_are_those_of_the_same_direction(parts: tuple[Any, ...]) -> None:
    recommender, data, _, _, carry = parts
    items = ids(data)[1]
    rows = np.asarray(carry.item, np.float64)
    unit = rows / np.maximum(np.linalg.norm(rows, axis=1), 1e-12)[:, None]
    cosine = unit @ unit[4]
    found = recommender.similar_items(items[4], k=ITEMS - 1)
    assert sorted(each.item for each in found) == sorted(set(items) - {items[4]})
    np.testing.assert_allclose([each.score for each in found], np.sort(np.delete(cosine, 4))[::-1], atol=1e-5)
    for each in found:
        assert each.score == pytest.approx(cosine[items.index(each.item)], abs=1e-5)
    with pytest.raises(UserError, match="no item nothing"):
        recommender.similar_items("nothing")
    for k in (0, ITEMS):
        with pytest.raises(UserError, match="from 1 to the 9 other items"):
            recommender.similar_items(items[0], k)


@pytest.mark.parametrize("k", [0, -1, ITEMS + 1])
def test_lengths_that_no_list_can_have(parts: tuple[Any, ...], k: int) -> None:
    with pytest.raises(UserError, match=f"k = {k}; it must be from 1 to the 10 items"):
        parts[0].recommend("anybody", k)


def test_the_command_line_answers(run: pathlib.Path, parts: tuple[Any, ...], capsys: pytest.CaptureFixture) -> None:
    recommender, data, *_ = parts
    user = ids(data)[0][0]
    arguments = ["main", f"--workdir={run}", "--mode=recommend", "--k=3"]
    assert main.run([*arguments, f"--user={user}", "--format=json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["user"], answer["known"]) == (user, True)
    assert [each["item"] for each in answer["recommendations"]] == [
        each.item for each in recommender.recommend(user, 3)
    ]
    assert main.run([*arguments, "--user=no\x1bbody"]) == 0
    printed = capsys.readouterr().out
    assert "no\\x1bbody, whom this run has never met" in printed
    assert len(printed.strip().splitlines()) == 2 + 4
    assert main.run([*arguments[:3], "--user=x", "--k=11"]) == 2
    assert "k = 11; it must be from 1 to the 10 items" in capsys.readouterr().err


def test_folders_that_hold_no_finished_run(run: pathlib.Path, tmp_path: pathlib.Path) -> None:
    def refused(message: str) -> None:
        with pytest.raises(UserError, match=message):
            Recommender.load(tmp_path / "copy")

    refused("holds no run")
    shutil.copytree(run, tmp_path / "copy")
    assert Recommender.load(tmp_path / "copy").recommend("x", 1)
    (tmp_path / "copy" / "scorer.json").unlink()
    refused("of an older version")
    (tmp_path / "copy" / "scorer.json").write_text("{")
    refused("scorer.json: damaged")
    shutil.copy(run / "scorer.json", tmp_path / "copy")
    shutil.rmtree(tmp_path / "copy" / "model")
    refused("no finished model can be read there")
    (tmp_path / "copy" / "results.json").unlink()
    refused("not finished")


def test_a_record_with_a_hole_is_damaged(run: pathlib.Path, tmp_path: pathlib.Path) -> None:
    record = json.loads((run / "scorer.json").read_text())
    if "drex" not in record:
        pytest.skip("this model has no constants")
    shutil.copytree(run, tmp_path / "copy")
    del record["drex"]["bias"]["mean"]
    (tmp_path / "copy" / "scorer.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match="constants of a DReX model are damaged"):
        Recommender.load(tmp_path / "copy")
