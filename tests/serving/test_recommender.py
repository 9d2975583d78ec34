"""A loaded run against the model it was made of: the same scores, the same order; newcomers; runs that are none."""

from __future__ import annotations

import collections
import dataclasses
import itertools
import json
import pathlib
import shutil
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from drex_jax import Recommender, main
from drex_jax.cli import answers
from drex_jax.common.errors import UserError
from drex_jax.data.strings import Strings
from drex_jax.data.tokens import Tokens
from drex_jax.models.baselines.popularity import Popularity
from drex_jax.models.drex.stream import WindowStream
from drex_jax.models.pairwise import PairStream
from drex_jax.runs import checkpoint
from drex_jax.runs.dataset import open_dataset
from drex_jax.training import experiment, registry
from drex_jax.training.settings import base, read_settings, settings_of

USERS, ITEMS = 12, 10
KINDS = ("drex", "bpr", "popularity")


def settings(kind: str) -> Any:
    settings: Any = base()
    settings.data.synthetic.update(num_interactions=160, num_users=USERS, num_items=ITEMS, seed=1)
    settings.text.enabled = False
    settings.devices.update(count=1, mapping="none")
    settings.baselines = ()
    settings.evaluate.cutoffs = (5,)
    settings.model.name = kind
    settings.train.update(epochs=2, bptt_windows=1, selection="ndcg@5")
    if kind == "bpr":
        settings.ranker.update(size=3, batch_size=32)
    return settings


@pytest.fixture(scope="module", params=KINDS)
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    if request.param == "drex":
        return request.getfixturevalue("finished_drex")
    workdir = tmp_path_factory.mktemp("run")
    experiment.train(settings_of(settings(request.param)), workdir)
    return workdir


@pytest.fixture(scope="module")
def parts(run: pathlib.Path) -> tuple[Recommender, Any, Any, Any, Any]:
    """The recommender, and the twin: data, model, parameters and rows as training has them."""
    options = read_settings(run / "config.json")
    data = open_dataset(options, run)
    stream: Any = registry.build(options.model.name, options, data, 0, registry.context(options))
    params = jax.eval_shape(stream.init, jax.random.key(0))
    like = {"params": params, "states": jax.eval_shape(stream.start, params)}
    arrays = checkpoint.load_model(run / "model", like)
    return Recommender.load(run), data, stream, arrays["params"], arrays["states"]


def ids(data: Any) -> tuple[list[str], list[str]]:
    return list(data.interactions.user_ids), list(data.interactions.item_ids)


def test_lists_are_the_models_without_what_was_seen(parts: tuple[Any, ...]) -> None:
    recommender, data, stream, params, carry = parts
    users, items = ids(data)
    scores = np.asarray(stream.model.rank(params, carry.user, carry.item))
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
    monkeypatch.setattr("drex_jax.serving.lists.SCORES", 5 * ITEMS)  # blocks of 5, the last of 3
    for found, expected in zip(recommender.recommend(users, k=3), whole, strict=True):
        assert [each.item for each in found] == [each.item for each in expected]
    assert recommender.recommend([], k=3) == []


def test_predictions_are_the_models(parts: tuple[Any, ...]) -> None:
    recommender, data, stream, params, carry = parts
    users, items = ids(data)
    rng = np.random.default_rng(0)
    user, item = rng.integers(0, USERS, 9), rng.integers(0, ITEMS, 9)
    found = recommender.predict([users[u] for u in user], [items[i] for i in item])
    if stream.model.rates:
        expected = np.clip(
            stream.model.rate(params, carry.user[user], carry.item[item]), *data.interactions.rating_range
        )
    else:
        expected = np.asarray(stream.model.rank(params, carry.user, carry.item))[user, item]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    with pytest.raises(UserError, match="needs pairs, not 2 users and 1 items"):
        recommender.predict(users[:2], items[:1])
    assert len(recommender.predict([], [])) == 0


def test_somebody_never_seen(parts: tuple[Any, ...]) -> None:
    recommender, data, stream, params, carry = parts
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
    elif isinstance(stream, PairStream):
        row = carry.user.mean(0)
    else:
        row = jnp.zeros(1)
    expected = np.sort(np.asarray(stream.model.rank(params, row[None], carry.item))[0])[::-1]
    np.testing.assert_allclose([each.score for each in found], expected, rtol=1e-5, atol=1e-6)
    assert np.isfinite(recommender.predict(["nobody", users[0], "nobody"], [items[0], "nothing", "nothing"])).all()


def test_alike_items_are_those_of_the_same_direction(parts: tuple[Any, ...]) -> None:
    recommender, data, stream, _, carry = parts
    items = ids(data)[1]
    rows = np.asarray(carry.item, np.float64)
    if isinstance(stream, WindowStream):  # states alone: not the running bias, not the count
        rows = rows[:, :-2] - rows[:, :-2].mean(0)
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


# What comes after training


def news(recommender: Recommender, n: int = 25) -> list[dict[str, Any]]:
    """Interactions after the last: of old and new users and items, with gaps, some at the same moment."""
    rng = np.random.default_rng(5)
    begin = float(recommender._live.run.log.base.timestamp.max())
    rows = []
    for number in range(n):
        row = {"user": f"user{rng.integers(0, 16)}", "item": f"item{rng.integers(0, 14)}"}
        row["timestamp"] = begin + 1000.0 * (number // 2)
        if rng.random() < 0.7:
            row["rating"] = float(rng.integers(1, 6))
        if rng.random() < 0.5:
            row["text"] = "the battery is good" if rng.random() < 0.5 else "noisy, and <b>late</b>"
        rows.append(row)
    return rows


@pytest.mark.parametrize("cuts", [(), (1, 2, 3, 4, 5, 11, 18)])
def test_updates_are_what_training_on_would_have_made_of_them(
    run: pathlib.Path, parts: tuple[Any, ...], cuts: tuple[int, ...]
) -> None:
    """In one call, one by one and in several; against the model over the whole stream."""
    _, data, stream, params, _ = parts
    recommender = Recommender.load(run)
    rows = news(recommender)
    if isinstance(stream.model, Popularity):
        assert recommender.update(rows) == (len(rows), [])
        counts = collections.Counter([*map(ids(data)[1].__getitem__, data.events.item), *(row["item"] for row in rows)])
        found = recommender.recommend("nobody", k=len(counts))
        assert {each.item: each.score for each in found} == counts
        return
    if not isinstance(stream, WindowStream):
        with pytest.raises(UserError, match="a run of the model bpr cannot be updated"):
            recommender.update(rows)
        return
    for begin, end in itertools.pairwise((0, *cuts, len(rows))):
        assert recommender.update(rows[begin:end]) == (end - begin, [])
    users, items = ids(data)
    for row in rows:
        users += [row["user"]] if row["user"] not in users else []
        items += [row["item"]] if row["item"] not in items else []
    assert len(users) > USERS
    assert len(items) > ITEMS
    old = data.events
    tokens = old.tokens
    if tokens is not None:
        new = data.vocabulary.encode(Strings.of(row.get("text", "") for row in rows), 8)
        offsets = np.concatenate([tokens.offsets, tokens.offsets[-1] + new.offsets[1:]])
        tokens = Tokens(np.concatenate([tokens.ids, new.ids]), offsets, np.concatenate([tokens.cut, new.cut]))
    ratings = np.array([row.get("rating", np.nan) for row in rows], np.float32)
    whole = dataclasses.replace(
        old,
        user=np.append(old.user, [users.index(row["user"]) for row in rows]).astype(np.int32),
        item=np.append(old.item, [items.index(row["item"]) for row in rows]).astype(np.int32),
        timestamp=np.append(old.timestamp, [row["timestamp"] for row in rows]),
        rating=np.append(old.rating, ratings).astype(np.float32),
        tokens=tokens,
        num_users=len(users),
        num_items=len(items),
    )
    twin = WindowStream(stream.model.options, whole, (data.sizes[0], len(whole) - data.sizes[0], 0))
    train_segment, rest, _ = twin.segments()
    carry, _ = twin.observe(params, twin.start(params), train_segment)
    carry, _ = twin.observe(params, carry, rest)
    for found, expected in zip(recommender._live.states, carry, strict=True):
        np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-6)
    assert recommender.knows_user(users[-1])
    assert recommender.knows_item(items[-1])
    seen = {items[item] for item in whole.item[whole.user == len(users) - 1]}
    left = [each.item for each in recommender.recommend(users[-1], k=len(items))]
    assert sorted(left) == sorted(set(items) - seen)


def test_rows_that_cannot_be_applied_are_refused_with_a_reason(run: pathlib.Path, parts: tuple[Any, ...]) -> None:
    _, data, stream, *_ = parts
    if not isinstance(stream, WindowStream):
        pytest.skip("this model cannot be updated")
    table = data.interactions
    last = float(table.timestamp.max())
    last_row = Recommender.load(run)._live.run.log.row(len(table) - 1)
    newest = {name: value for name, value in last_row._asdict().items() if name != "vectors"}
    good = {"user": "user1", "item": "item2", "timestamp": last + 5}
    wrong = {
        "a row must be a mapping": 7,
        "no user": {"item": "a", "timestamp": last},
        "no item": good | {"item": " "},
        "item is neither a string nor an integer: True": good | {"item": True},
        "no time": {"user": "a", "item": "b"},
        "time outside 1900..2200: 1000000000000.0": good | {"timestamp": 1e12},
        "time is not a number: 'now'": good | {"timestamp": "now"},
        "rating is not finite: inf": good | {"rating": np.inf},
        "rating outside 1..5: 99": good | {"rating": 99},
        "text is not a string: 3": good | {"text": 3},
        "invalid UTF-8 in the text": good | {"text": "\ud800"},
        "unknown key 'stars'": good | {"stars": 3},
        "earlier than": good | {"timestamp": float(table.timestamp.min())},
        "the very same interaction was there already": newest,
    }
    recommender = Recommender.load(run)
    before = [np.asarray(side) for side in recommender._live.states]
    report = recommender.update(wrong.values())
    assert report.applied == 0
    for number, (refusal, message) in enumerate(zip(report.refused, wrong, strict=True)):
        assert refusal.row == number
        assert message in refusal.reason
    for side, old in zip(recommender._live.states, before, strict=True):
        np.testing.assert_array_equal(side, old)
    mixed = recommender.update([wrong["no item"], good, good, good | {"rating": 2.0}, good | {"timestamp": last + 4}])
    assert mixed.applied == 2  # another rating at the same moment is another interaction
    for refusal, (row, reason) in zip(mixed.refused, ((0, "no item"), (2, "the very"), (4, "earlier")), strict=True):
        assert refusal.row == row
        assert reason in refusal.reason
    assert recommender.update([good]).refused[0].reason == "the very same interaction was there already"
    assert recommender.update(table).applied == 0  # all of it was there already, or comes too late


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
    assert main.run([*arguments, "--user=nö", "--format=json"]) == 0
    answer, rates = json.loads(capsys.readouterr().out), recommender.rating_range is not None
    ratings = recommender.predict(["nö"] * 3, [each["item"] for each in answer["recommendations"]]).tolist()
    assert [each["rating"] for each in answer["recommendations"]] == (ratings if rates else [None] * 3)
    assert main.run([*arguments, "--user=no\x1bbody"]) == 0
    printed = capsys.readouterr().out
    assert "no\\x1bbody, an unknown user" in printed
    assert len(printed.strip().splitlines()) == 2 + 4 + 2
    assert ("rating is the predicted one, of 1..5" in printed) == rates == ("score  rating" in printed)
    assert main.run([*arguments[:3], "--user=x", "--k=11"]) == 2
    assert "k = 11; it must be from 1 to the 10 items" in capsys.readouterr().err


def test_folders_that_hold_no_finished_run(run: pathlib.Path, tmp_path: pathlib.Path) -> None:
    def refused(message: str) -> None:
        with pytest.raises(UserError, match=message):
            Recommender.load(tmp_path / "copy")

    refused("holds no run")
    shutil.copytree(run, tmp_path / "copy")
    assert Recommender.load(tmp_path / "copy").recommend("x", 1)
    (tmp_path / "copy" / "constants.json").unlink()
    refused("of an older version")
    (tmp_path / "copy" / "constants.json").write_text("{")
    refused("constants.json: damaged")
    shutil.copy(run / "constants.json", tmp_path / "copy")
    shutil.rmtree(tmp_path / "copy" / "model")
    refused("no finished model can be read there")
    (tmp_path / "copy" / "results.json").unlink()
    refused("not finished")


def test_a_record_with_a_hole_or_of_another_model_is_damaged(run: pathlib.Path, tmp_path: pathlib.Path) -> None:
    record = json.loads((run / "constants.json").read_text())
    if "options" not in record:
        pytest.skip("this model has no constants")
    shutil.copytree(run, tmp_path / "copy")

    def refused(message: str) -> None:
        (tmp_path / "copy" / "constants.json").write_text(json.dumps(record))
        with pytest.raises(UserError, match=message):
            Recommender.load(tmp_path / "copy")

    record["options"]["network"]["state_size"] += 1
    refused("its arrays are not of the model that constants.json records")
    del record["options"]["bias"]["mean"]
    refused("the record of the run's model is damaged")


# Explainer


def test_reasons_of_a_pair(run: pathlib.Path, parts: tuple[Any, ...]) -> None:
    recommender, data, stream, *_ = parts
    events, (users, items) = data.events, ids(data)
    row = len(events) - 1
    user, item = int(events.user[row]), int(events.item[row])
    why = recommender.explain(users[user], items[item])
    assert (why.user, why.item) == (users[user], items[item])
    for found, own in ((why.user_interactions, events.user == user), (why.item_interactions, events.item == item)):
        assert len(found) == min(20, own.sum())
        last = [(users[u], items[i]) for u, i in zip(events.user[own], events.item[own], strict=True)][-20:]
        assert sorted((each.user, each.item) for each in found) == sorted(last)
        if isinstance(stream, WindowStream):
            assert sorted(found, key=lambda each: -abs(each.change or 0)) == found
            assert any(each.change for each in found)
        else:
            assert {each.change for each in found} == {None}
    if isinstance(stream, WindowStream):
        assert why.change_of == "rating"
        assert why.user_interactions[-1].exact or any("not exact" in note for note in why.notes)
        assert {each.via for each in why.user_interactions} == {"user"}
        assert {each.via for each in why.item_interactions} == {"item"}
        assert any("in both lists" in note for note in why.notes)  # the last row is of the two
        assert any("do not explain a predicted rating" in note for note in why.notes)
    else:
        assert why.change_of is None
    words = {each.word for each in why.user_keywords} & {each.word for each in why.item_keywords}
    assert {each.word for each in why.overlap} == words - common_words(data)
    assert bool(why.user_keywords) == (data.vocabulary is not None)
    assert any("there are no keywords" in note for note in why.notes) == (data.vocabulary is None)
    met = {items[number] for number in events.item[events.user == user]}
    assert {each.item for each in why.neighbours} <= met - {items[item]}


def common_words(data: Any) -> set[str]:
    """Of more than a quarter of the train reviews, counted one by one."""
    if data.vocabulary is None:
        return set()
    tokens, names = data.events.tokens, collections.Counter()
    reviews = [row for row in range(data.sizes[0]) if tokens.lengths[row]]
    for row in reviews:
        words = data.vocabulary.words(tokens.part(row, row + 1))
        names.update({words.names[number] for number in words.word.tolist() if number >= 0})
    return {name for name, count in names.items() if count > len(reviews) / 4}


def test_words_that_everybody_writes_are_no_reason(run: pathlib.Path, parts: tuple[Any, ...]) -> None:
    recommender, data, *_ = parts
    if data.vocabulary is None:
        pytest.skip("this run has no texts")
    recommender.explain(*(ids(data)[side][0] for side in (0, 1)))
    assert recommender._explainer._common == common_words(data) != set()


def test_reasons_name_the_place_in_the_list_and_the_rating(parts: tuple[Any, ...]) -> None:
    recommender, data, stream, *_ = parts
    user, items = ids(data)[0][3], ids(data)[1]
    whole = recommender.recommend(user, k=ITEMS, exclude_seen=False)
    for place, each in enumerate(whole, 1):
        why = recommender.explain(user, each.item)
        assert (why.score, why.rank, why.num_items) == (pytest.approx(each.score, abs=1e-6), place, ITEMS)
        if stream.model.rates:
            assert why.rating == recommender.predict([user], [each.item])[0]
            assert why.rating_range == recommender.rating_range == (1.0, 5.0)
        else:
            assert why.rating is why.rating_range is recommender.rating_range is None
    stranger = recommender.explain(user, "nothing")
    assert stranger.num_items == ITEMS + 1
    assert stranger.rank == 1 + sum(each.score > stranger.score for each in whole)
    past = recommender.as_of(float(np.sort(data.interactions.timestamp)[4]))
    found = {each.item: place for place, each in enumerate(past.recommend(user, ITEMS, exclude_seen=False), 1)}
    assert 0 < len(found) < ITEMS
    for item in items[:3]:
        why = past.explain(user, item)
        assert (why.rank, why.num_items) == ((found[item], len(found)) if item in found else (why.rank, 1 + len(found)))


def test_reasons_of_one_side_and_of_nobody(run: pathlib.Path, parts: tuple[Any, ...]) -> None:
    recommender, data, *_ = parts
    alone = recommender.explain(item=ids(data)[1][0])
    assert alone.score is None
    assert not alone.user_interactions
    assert len(alone.neighbours) == 5
    nobody = recommender.explain("nobody", "nothing")
    assert sum("is unknown to the run" in note for note in nobody.notes) == 2
    assert not nobody.user_interactions
    assert np.isfinite(nobody.score)
    with pytest.raises(UserError, match="a user, an item or both"):
        recommender.explain()


def test_reasons_follow_an_update(run: pathlib.Path, parts: tuple[Any, ...]) -> None:
    _, data, stream, *_ = parts
    if not isinstance(stream, WindowStream):
        pytest.skip("reasons of this model read no states")
    recommender = Recommender.load(run)
    user, item = ids(data)[0][0], ids(data)[1][0]
    recommender.explain(user, item)
    recommender.update([{"user": user, "item": item, "rating": 5.0, "timestamp": 3e9}])
    why = recommender.explain(user, item)
    assert 3e9 in {each.timestamp for each in why.user_interactions}
    pair = recommender._live.states.user[0][None], recommender._live.states.item[0][None]
    assert why.score == pytest.approx(
        float(recommender._live.run.model.rank(recommender._live.run.params, *pair)[0, 0]), abs=1e-5
    )


def test_the_command_line_explains(run: pathlib.Path, parts: tuple[Any, ...], capsys: pytest.CaptureFixture) -> None:
    recommender, data, *_ = parts
    user, item = ids(data)[0][0], ids(data)[1][0]
    arguments = ["main", f"--workdir={run}", "--mode=explain"]
    assert main.run([*arguments, f"--user={user}", f"--item={item}", "--format=json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["score"] == pytest.approx(recommender.explain(user, item).score)
    assert len(answer["user_interactions"]) == len(recommender.explain(user, item).user_interactions)
    assert main.run([*arguments, f"--item={item}"]) == 0
    assert "last interactions of the item, the newest first" in capsys.readouterr().out
    assert main.run(arguments) == 2
    assert "--mode=explain needs --user=ID, --item=ID or both" in capsys.readouterr().err


def test_an_explanation_for_people(parts: tuple[Any, ...]) -> None:
    recommender, data, stream, *_ = parts
    if not stream.model.rates:
        pytest.skip("a model that only ranks has less to say")
    events, (users, items) = data.events, ids(data)
    why = recommender.explain(users[events.user[-1]], items[events.item[-1]])
    long = why.user_interactions[0]._replace(text="word " * 30, timestamp=1.6e9)
    why = why._replace(user_interactions=[long] * 8, item_interactions=[long._replace(timestamp=0.0)], overlap=[])
    lines = answers.explanation(why, "table").splitlines()
    place = f"score {why.score:.4f}, place {why.rank} of {ITEMS} items, met ones included"
    assert lines[1] == f"predicted rating {why.rating:.2f} of 1..5; {place}"
    assert "keywords of both: none" in lines
    begun = lines.index("last interactions of the user, by what each did to the predicted rating, via the user's state")
    assert "2020-09-13" in lines[begun + 1]
    assert lines[begun + 1].endswith("word word…")
    assert lines[begun + 6 : begun + 8] == ["  and 3 more; --format=json lists them all", ""]
    assert lines[begun + 8].endswith("via the item's state")
    assert "1970" not in lines[begun + 9]
    assert max(map(len, lines[begun:-4])) < 120
