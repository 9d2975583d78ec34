"""Run NARRE end to end: stop and resume, predict, explain; it refuses unsuitable data and settings."""

from __future__ import annotations

import dataclasses
import math
import pathlib
import signal
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from drex_jax import Recommender, main
from drex_jax.cli import answers
from drex_jax.common.errors import Stopped, UserError
from drex_jax.models.baselines.narre import NARRE
from drex_jax.models.baselines.narre_stream import ReviewStream
from drex_jax.runs.dataset import Dataset, open_dataset
from drex_jax.runs.trained import load_trained
from drex_jax.training import experiment, registry
from drex_jax.training.settings import base, read_settings, settings_of


def settings() -> Any:
    settings: Any = base()
    settings.model.name = "narre"
    settings.data.synthetic.update(num_interactions=160, num_users=12, num_items=10, seed=1)
    settings.text.update(width=4, max_tokens=8, vocabulary_size=300)
    settings.narre.update(size=3, reviews=4, batch_size=50)
    settings.train.update(epochs=2, warmup_steps=1)
    settings.devices.update(count=1, mapping="none")
    settings.baselines = ()
    settings.evaluate.update(cutoffs=(5,), ranking=False)
    return settings


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[pathlib.Path, dict[str, Any], Dataset]:
    workdir = tmp_path_factory.mktemp("narre") / "run"
    results = experiment.train(settings_of(settings()), workdir)
    return workdir, results, open_dataset(read_settings(workdir / "config.json"), workdir)


def test_a_run_is_judged_as_others_and_goes_on_where_it_was_stopped(
    run: tuple[pathlib.Path, dict[str, Any], Dataset], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = run[1]
    assert set(results["test"]) == {"frozen", "prequential"}
    assert results["test"]["frozen"]["mse"] == results["test"]["prequential"]["mse"]  # no learning in test
    assert all(math.isfinite(value) for way in results["test"].values() for value in way.values())
    assert experiment.evaluate(run[0])["test"] == results["test"]
    batches, calls = ReviewStream.batches, []

    def interrupted(self: ReviewStream, epoch: int) -> Iterator[Any]:
        for batch in batches(self, epoch):
            calls.append(epoch)
            if len(calls) == 5:
                signal.raise_signal(signal.SIGTERM)
            yield batch

    monkeypatch.setattr(ReviewStream, "batches", interrupted)
    with pytest.raises(Stopped):
        experiment.train(settings_of(settings()), tmp_path / "run")
    again = experiment.train(settings_of(settings()), tmp_path / "run")
    assert again["timing"]["resumed_from"]
    assert again["test"] == results["test"]


def test_a_recommender_answers_as_the_model_does(run: tuple[pathlib.Path, dict[str, Any], Dataset]) -> None:
    workdir, _, data = run
    options = read_settings(workdir / "config.json")
    stream = registry.build("narre", options, data, 0, registry.context(options))
    params, _ = load_trained(stream, workdir)
    carry, recommender = stream.start(params), Recommender.load(workdir)
    users, items = list(data.interactions.user_ids), list(data.interactions.item_ids)
    expected = np.clip(stream.model.rate(params, carry.user[:10], carry.item[:10]), 1, 5)
    np.testing.assert_allclose(recommender.predict(users[:10], items[:10]), expected, rtol=1e-5)
    order = np.argsort(-np.asarray(stream.model.rank(params, carry.user[:1], carry.item))[0], kind="stable")
    assert [each.item for each in recommender.recommend(users[0], 3, False)] == [items[k] for k in order[:3]]
    mean = float(np.nanmean(data.events.rating[: data.sizes[0]], dtype=np.float64))
    assert recommender.predict(["nobody"], ["nothing"]) == pytest.approx(mean)
    with pytest.raises(UserError, match="a run of the model narre cannot be updated"):
        recommender.update([{"user": users[0], "item": items[0], "timestamp": 3e9}])


def test_explanations_name_the_reviews_that_are_read(
    run: tuple[pathlib.Path, dict[str, Any], Dataset], capsys: pytest.CaptureFixture
) -> None:
    workdir, _, data = run
    users, items = list(data.interactions.user_ids), list(data.interactions.item_ids)
    recommender = Recommender.load(workdir)
    why = recommender.explain(users[0], items[0])
    assert why.user_keywords
    train_texts = np.flatnonzero(data.events.tokens.lengths[: data.sizes[0]]) if data.events.tokens else []
    for found, own in ((why.user_interactions, data.events.user), (why.item_interactions, data.events.item)):
        read = [each for each in found if each.attention is not None]
        times = sorted(each.timestamp for each in read)
        last = [k for k in train_texts if own[k] == 0][-4:]
        assert set(times) <= {data.events.timestamp[k] for k in last}
        assert read == found[: len(read)] == sorted(read, key=lambda each: -(each.attention or 0))
        if len(read) == len(last):  # all of them are recent enough to be listed
            assert sum(each.attention or 0 for each in read) == pytest.approx(1, rel=1e-5)
    assert any(each.attention for each in why.item_interactions)
    assert "by the attention to their reviews" in answers.explanation(why, "table")
    begin = float(data.events.timestamp[data.sizes[0] // 2])
    assert {each.attention for each in recommender.as_of(begin).explain(users[0]).user_interactions} == {None}
    assert main.run(["main", f"--workdir={workdir}", "--mode=explain", f"--user={users[0]}"]) == 0
    assert "%" in capsys.readouterr().out


@pytest.mark.parametrize(("lacking", "events"), [("texts", {"tokens": None}), ("ratings", {"rating": None})])
def test_data_without_what_it_reads_are_refused(
    run: tuple[pathlib.Path, dict[str, Any], Dataset], lacking: str, events: dict[str, Any]
) -> None:
    data = run[2]
    events = {
        name: value if name == "tokens" else np.full_like(data.events.rating, np.nan) for name, value in events.items()
    }
    other = dataclasses.replace(data, events=dataclasses.replace(data.events, **events))
    assert registry.applicable("narre", data)
    assert not registry.applicable("narre", other)
    assert registry.applicable("matrix_factorisation", other) == (lacking == "texts")
    with pytest.raises(UserError, match=f"no train interaction has {lacking}"):
        registry.build("narre", settings(), other, 0, registry.context(settings_of(settings())))


def test_its_fields_are_refused_where_nothing_reads_them() -> None:
    options = settings()
    settings_of(options)
    options.model.name = "drex"
    with pytest.raises(UserError, match="has no effect on drex, which reads no field of narre"):
        settings_of(options)
    options.baselines = ("narre",)
    settings_of(options)


def test_a_record_without_its_mean_is_damaged() -> None:
    with pytest.raises(UserError, match="damaged"):
        NARRE.from_constants({})
