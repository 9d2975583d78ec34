"""Runs that go on learning: what is saved, what a crash leaves, files, models whose graph grows, earlier moments."""

from __future__ import annotations

import json
import pathlib
import shutil
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from drex_jax import Recommender, main
from drex_jax.common.errors import UserError
from drex_jax.models.registry import entry_of
from drex_jax.runs import checkpoint, dataset
from drex_jax.serving import update_log
from drex_jax.training import experiment, registry
from drex_jax.training.settings import ranking, settings_of

LAST = 2e9


@pytest.fixture
def run(finished_drex: pathlib.Path, tmp_path: pathlib.Path) -> pathlib.Path:
    return pathlib.Path(shutil.copytree(finished_drex, tmp_path / "run"))


def news(n: int, begin: float = LAST) -> list[dict[str, Any]]:
    rng = np.random.default_rng(int(begin) % 1000)
    return [
        {
            "user": f"new{rng.integers(4)}",
            "item": f"item{rng.integers(14)}",
            "timestamp": begin + place,
            "rating": float(rng.integers(1, 6)) if place % 2 else None,
            "text": "battery, noisy" if place % 3 else None,
        }
        for place in range(n)
    ]


def same(one: Recommender, other: Recommender) -> None:
    for rows, expected in zip(one._live.states, other._live.states, strict=True):
        found = rows[: len(expected)]  # a view of an earlier moment has rows of those who came later
        np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-6)
    for user in ("new0", "new1", "user1"):
        assert [each.item for each in one.recommend(user, 5)] == [each.item for each in other.recommend(user, 5)]


def test_what_is_saved_is_loaded(run: pathlib.Path) -> None:
    """Batch after batch, with a new load before each, as if it had been one."""
    whole = Recommender.load(run)
    whole.update(news(20))
    for begin in (0, 5, 15):
        part = Recommender.load(run)
        part.update(news(20)[begin : {0: 5, 5: 15, 15: 20}[begin]])
        part.save()
    loaded = Recommender.load(run)
    same(loaded, whole)
    assert loaded.update(news(20)).applied == 0
    later = news(4, LAST + 100)
    assert loaded.update(later) == whole.update(later)
    same(loaded, whole)
    lines = [json.loads(line) for line in (run / "updates.jsonl").read_text().splitlines()]
    assert [line["applied"] for line in lines] == [5, 10, 5]
    assert [each.name for each in (run / "updates").iterdir()] == ["3"]
    for part, expected in zip(loaded._live.run.log.since_table().text, news(20), strict=False):
        assert part == (expected["text"] or "")


def test_a_run_is_saved_under_another_name(run: pathlib.Path, tmp_path: pathlib.Path) -> None:
    recommender = Recommender.load(run)
    recommender.update(news(6))
    recommender.save(tmp_path / "other" / "copy")
    same(Recommender.load(tmp_path / "other" / "copy"), recommender)
    assert not (run / "updates.jsonl").exists()
    assert [each.name for each in (tmp_path / "other").iterdir()] == ["copy"]
    with pytest.raises(UserError, match="exists already"):
        recommender.save(run)  # it is the copy's now
    recommender.save()  # nothing more to save
    assert len(update_log.batches(tmp_path / "other" / "copy")) == 1


@pytest.mark.parametrize("fails", ["drex_jax.data.storage._save", "drex_jax.serving.update_log.write_text"])
def test_a_crash_while_saving_leaves_the_old_run(
    run: pathlib.Path, fails: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    recommender = Recommender.load(run)
    recommender.update(news(3))
    recommender.save()
    recommender.update(news(3, LAST + 50))

    def crash(*arguments: Any, **named: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(fails, crash)
        with pytest.raises(KeyboardInterrupt):
            recommender.save()
    old = Recommender.load(run)
    assert old._live.run.log.since == 3
    recommender.save()
    same(Recommender.load(run), recommender)
    old.update(news(1, LAST + 70))
    with pytest.raises(UserError, match="somebody else has updated it"):
        old.save()


def test_records_that_are_damaged(run: pathlib.Path) -> None:
    recommender = Recommender.load(run)
    recommender.update(news(3))
    recommender.save()
    log = run / "updates.jsonl"
    whole = log.read_text()
    line = json.loads(whole)
    elsewhere = [json.dumps(line | {"batch": batch}) for batch in ("../..", "/", 2, True, 1.0)]  # they name a folder
    for damaged in ("{", "[]", '{"batch": 1}', "[" * 10**5, json.dumps(line | {"sha256": 1}), *elsewhere):
        log.write_text(damaged)
        with pytest.raises(UserError, match=r"updates.jsonl, line 1: damaged"):
            Recommender.load(run)
    log.write_text(whole)
    shutil.rmtree(run / "updates" / "1" / "rows")
    with pytest.raises(UserError, match="cannot be read"):
        Recommender.load(run)


def test_a_run_of_a_newer_version(run: pathlib.Path) -> None:
    results = json.loads((run / "results.json").read_text())
    (run / "results.json").write_text(json.dumps(results | {"schema": 99}))
    with pytest.raises(UserError, match="a newer drex_jax made the run"):
        Recommender.load(run)


def test_earlier_moments(run: pathlib.Path) -> None:
    recommender = Recommender.load(run)
    before = recommender.recommend("user1", 5)
    recommender.update(news(12))
    same(recommender.as_of(LAST + 100), recommender)
    then = recommender.as_of(LAST)
    assert [each.item for each in then.recommend("user1", 5)] == [each.item for each in before]
    half = Recommender.load(run)
    half.update(news(6))
    same(recommender.as_of(LAST + 6), half)
    with pytest.raises(UserError, match="earlier moment cannot be updated"):
        then.update(news(1))
    assert recommender.as_of(-2e9).recommend("user1", 10) == []  # nobody had met anything


def test_a_history_that_is_not_stored(run: pathlib.Path) -> None:
    recommender, twin = Recommender.load(run), Recommender.load(run)
    history = [
        {"item": "item1", "rating": 5, "timestamp": LAST},
        {"item": "item3", "text": "noisy", "timestamp": LAST + 5},
        {"item": "never seen", "rating": 1, "timestamp": LAST + 9},
    ]
    found = recommender.recommend_for(history, k=5)
    twin.update([{"user": "new0", **row} for row in history])
    row = twin._live.states.user[twin._users.number("new0")]
    scores = np.array(
        recommender._live.run.model.rank(recommender._live.run.params, row[None], recommender._live.states.item)
    )[0]
    scores[[recommender._items.number(f"item{number}") for number in (1, 3)]] = -np.inf
    expected = [recommender._items.name(number) for number in np.argsort(-scores)[:5]]
    assert [each.item for each in found] == expected
    assert not recommender.knows_item("never seen")
    assert recommender._live.run.log.since == 0
    assert recommender.recommend_for([], 5) == recommender.recommend("nobody", 5)
    assert len(recommender.recommend_for(["item1"], k=10)) == 9
    with pytest.raises(UserError, match=r"history, row 1: rating outside 1\.\.5: 77"):
        recommender.recommend_for(["item1", {"item": "item2", "rating": 77}])


# Files


def answered(run: pathlib.Path, file: pathlib.Path, capsys: pytest.CaptureFixture) -> Any:
    capsys.readouterr()
    assert main.run(["main", f"--workdir={run}", "--mode=update", f"--interactions={file}", "--format=json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_file_of_new_interactions(run: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture) -> None:
    rows = news(8)
    file = tmp_path / "new.jsonl"
    bad = ["broken", json.dumps(rows[0] | {"rating": 99}), json.dumps(rows[0] | {"timestamp": 1, "user": "user1"})]
    file.write_text("\n".join([*map(json.dumps, rows), *bad, json.dumps(rows[3])]))
    found = answered(run, file, capsys)
    assert found["applied"] == 8
    assert found["merged"] == 1
    assert [(each["line"], each["reason"]) for each in found["rejected"]] == [
        (9, "invalid JSON"),
        (10, "rating outside 1..5"),
    ]
    assert [each["user"] for each in found["refused"]] == ["user1"]
    assert "is earlier than" in found["refused"][0]["reason"]
    twin = Recommender.load(run)
    assert twin._live.run.log.since == 8
    again = answered(run, file, capsys)
    assert again["applied"] == 0
    assert all("applied before, as batch 1" in each["reason"] for each in again["refused"])
    assert len(update_log.batches(run)) == 1
    assert main.run(["main", f"--workdir={run}", "--mode=update", f"--interactions={file}"]) == 0
    printed = capsys.readouterr().out
    assert "0 interactions applied, 9 refused; nothing was changed" in printed
    assert "1 x no interaction: rating outside 1..5 (line 10)" in printed


def test_a_table_with_fewer_columns(run: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture) -> None:
    file = tmp_path / "new.csv"
    file.write_text("item,timestamp,user,mood\nitem1,2040-01-01T00:00:00Z,zoe,glad\n")
    assert main.run(["main", f"--workdir={run}", "--mode=update", f"--interactions={file}"]) == 0
    printed = capsys.readouterr().out
    assert "columns not read: mood" in printed
    assert "1 interactions applied, 0 refused" in printed
    assert np.isnan(Recommender.load(run)._live.run.log.row(160).rating)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("user,item,rating\na,b,3\n", "no column timestamp"),
        ("reviewer,thing\na,b\n", "its columns are reviewer thing; expected new interactions"),
        ("user,item,timestamp\n,b,1\n", "none of 1 rows is good"),
        ("[]", "a JSON array"),
        ("", "the file is empty"),
        (None, "no such file"),
    ],
)
def test_files_that_are_refused(
    run: pathlib.Path, tmp_path: pathlib.Path, text: str | None, message: str, capsys: pytest.CaptureFixture
) -> None:
    file = tmp_path / "new.csv"
    if text is not None:
        file.write_text(text)
    assert main.run(["main", f"--workdir={run}", "--mode=update", f"--interactions={file}"]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1
    assert not (run / "updates.jsonl").exists()


# Models whose graph grows


@pytest.fixture(scope="module")
def features() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {"image": rng.normal(0, 1, (12, 5)), "text": rng.normal(0, 1, (12, 4))}


def mmrec(folder: pathlib.Path, rows: list[tuple[int, int, int, int]], features: dict[str, np.ndarray]) -> None:
    folder.mkdir()
    lines = [f"{user}\t{item}\t1.0\t{time}\t{part}" for user, item, time, part in rows]
    (folder / "tiny.inter").write_text("\n".join(["userID\titemID\trating\ttimestamp\tx_label", *lines]) + "\n")
    for name, values in features.items():
        np.save(folder / f"{name}_feat.npy", values.astype(np.float32))


@pytest.mark.parametrize("name", ["crane", "lightgcn"])
def test_new_interactions_join_the_graph(name: str, features: dict[str, np.ndarray], tmp_path: pathlib.Path) -> None:
    """As if they had been among the train interactions; who is new has no embedding, and a new item no features."""
    rng = np.random.default_rng(1)
    rows = [
        (user, int(item), user * 5 + place, max(0, place - 2))
        for user in range(14)
        for place, item in enumerate(rng.choice(12, 5, replace=False))
    ]
    new = [(0, 11, 1000, 0), (14, 3, 1001, 0), (14, 12, 1002, 0), (2, 12, 1003, 0)]
    mmrec(tmp_path / "tiny", rows, features)
    settings: Any = ranking(name, "tiny", "tiny")
    settings.data.path = str(tmp_path / "tiny")
    wanted = {"size": 4, "batch_size": 9, "neighbours": 3}
    reads = entry_of(name).reads_field
    settings.ranker.update({field: value for field, value in wanted.items() if reads(f"ranker.{field}")})
    settings.train.update(epochs=1, selection="recall@5")
    settings.evaluate.update(cutoffs=(5,), block=8)
    settings.devices.update(count=1, mapping="none")
    if name == "crane":
        settings.crane.rounds = 1
    experiment.train(settings_of(settings), tmp_path / "run")
    recommender = Recommender.load(tmp_path / "run")
    for found, expected in zip(recommender._live.updater.states, recommender._live.states, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)  # the graph is train's so far
    mappings = [{"user": user, "item": item, "timestamp": time} for user, item, time, _ in new]
    folded = [] if name == "crane" else recommender.recommend_for([3, 12], k=5)  # by the same code
    assert recommender.update(mappings).applied == 4
    recommender.save()
    loaded = Recommender.load(tmp_path / "run")

    more = {side: np.pad(values, ((0, 1), (0, 0))) for side, values in features.items()}  # zeros: it lacks them
    mmrec(tmp_path / "more", [*rows, *new], more)
    settings.data.path = str(tmp_path / "more")
    data = dataset.prepare(settings_of(settings), tmp_path / "twin")
    model: Any = registry.build(name, settings_of(settings), data, 0, registry.context(settings_of(settings)))
    saved = checkpoint.load_arrays(tmp_path / "run" / "model")["params"]
    params = checkpoint.in_form(saved, jax.eval_shape(model.init, jax.random.key(0)))
    old = params["table"]
    users, items = (list(ids) for ids in (data.interactions.user_ids, data.interactions.item_ids))
    table = np.zeros((len(users) + len(items), old.shape[1]), np.float32)
    for place, user in enumerate(users):
        if user != "14":
            table[place] = old[recommender._users.number(user)]
    for place, item in enumerate(items):
        if item != "12":
            table[len(users) + place] = old[14 + recommender._items.number(item)]
    twin = model.start(params | {"table": jnp.asarray(table)})
    for side, ids, known in ((0, users, loaded._users), (1, items, loaded._items)):
        places = [known.number(each) for each in ids]
        np.testing.assert_allclose(loaded._live.states[side][np.array(places)], twin[side], rtol=1e-4, atol=1e-5)
    assert {each.item for each in loaded.recommend(14, 11)} == {str(item) for item in range(12) if item != 3}
    assert len(folded) == (0 if name == "crane" else 5)
    if name == "lightgcn":  # of whom only new items speak, nothing is known
        nobody = [each.item for each in loaded.recommend("nobody", 13)]
        assert [each.item for each in loaded.recommend_for(["never seen"], k=13)] == nobody
        loaded.update([{"user": "zoe", "item": "unheard of", "timestamp": 1004}])
        found = [each.item for each in loaded.recommend("zoe", k=14)]
        assert found == [each.item for each in loaded.recommend("nobody", 14) if each.item != "unheard of"]
        assert loaded.similar_items("unheard of", k=3) == []
        assert "unheard of" not in {each.item for each in loaded.similar_items(3, k=13)}
