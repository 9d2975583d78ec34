"""Train from a configuration to a finished run directory, end to end on tiny data."""

from __future__ import annotations

import json
import logging
import pathlib
import shutil
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from drex_jax.cli import faithfulness
from drex_jax.common.errors import UserError
from drex_jax.data import events, load
from drex_jax.data.events import build_events
from drex_jax.data.split import split_interactions
from drex_jax.evaluation.evaluator import Evaluator
from drex_jax.explain import curves, occlusion
from drex_jax.runs.dataset import Dataset
from drex_jax.runs.selection import Selection
from drex_jax.training import experiment, registry
from drex_jax.training.settings import base, changed, read_settings, settings_of

KEYS = {
    "schema", "model", "dataset", "split", "protocol", "seeds", "selection", "test", "per_seed", "baselines",
    "schedule", "leaks", "timing", "environment",
}  # fmt: skip


def tiny(**changes: Any) -> Any:
    """Return a configuration that trains in seconds; `model__head="mlp"` sets `model.head`."""
    settings = base()
    settings.data.synthetic.update(num_interactions=160, num_users=12, num_items=10, seed=1)
    settings.text.update(enabled=False, width=4, max_tokens=8, vocabulary_size=300)
    settings.model.update(state_size=3, feature_size=3, hidden_size=4, negatives=3)
    settings.train.update(epochs=2, bptt_windows=2, warmup_steps=1)
    settings.evaluate.update(block=32, cutoffs=(1, 5))
    settings.baselines = ()
    settings.devices.count = 1  # the test suite has eight fake devices on few cores
    settings.update_from_flattened_dict({name.replace("__", "."): value for name, value in changes.items()})
    return settings


def without_timings(results: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in results.items() if name != "timing"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[pathlib.Path, dict[str, Any]]:
    """Train with texts, every baseline and two seeds, on two fake devices with the default mapping."""
    workdir = tmp_path_factory.mktemp("run")
    settings = tiny(text__enabled=True, replicas=2, train__epochs=1, baselines=base().baselines, devices__count=2)
    assert settings.devices.mapping == "shard_map"
    return workdir, experiment.train(settings_of(settings), workdir)


def test_results_have_every_key(whole: tuple[pathlib.Path, dict[str, Any]]) -> None:
    workdir, results = whole
    assert set(results) >= KEYS
    assert results == json.loads((workdir / "results.json").read_text())
    assert results["model"] == "drex"
    assert results["dataset"]["interactions"] == 160
    assert set(results["dataset"]) >= {"name", "sha256", "users", "items", "interactions"}
    assert results["split"]["kind"] == "global_time"
    assert sum(results["split"]["sizes"].values()) == 160
    assert set(results["split"]["boundaries"]) == {"validation", "test"}
    assert set(results["selection"]) == {"metric", "value", "epoch", "params_sha256"}
    assert set(results["schedule"]) >= {"depth", "width", "steps", "bound", "fill"}
    assert 0 < results["schedule"]["fill"] <= 1
    assert results["schedule"]["steps"] >= results["schedule"]["bound"]
    assert set(results["timing"]) >= {"interactions_per_second", "compile_seconds", "resumed_from"}
    closed = json.loads((workdir / "baselines" / "bias" / "run.json").read_text())["timing"]
    assert set(closed) == set(results["timing"]) - {"total_seconds", "preparation_seconds"}
    assert set(results["environment"]) >= {"devices", "mapping", "device_kind", "versions"}
    assert results["leaks"] == []
    entries = [results, *results["baselines"].values()]
    assert set(results["baselines"]) == set(base().baselines)
    for entry in entries:
        assert set(entry) >= {"model", "seeds", "selection", "test", "per_seed"}
        assert set(entry["test"]) == {"frozen", "prequential"}
        assert len(entry["per_seed"]) == len(entry["seeds"])
    for way in ("frozen", "prequential"):
        assert set(results["test"][way]) >= {"mse", "rmse", "mae", "ndcg@5", "mrr@1", "rated_items/f1@5"}
        assert "mse" not in results["baselines"]["popularity"]["test"][way]
        assert "ndcg@5" in results["baselines"]["popularity"]["test"][way]


def test_means_over_two_seeds(whole: tuple[pathlib.Path, dict[str, Any]]) -> None:
    workdir, results = whole
    assert results["seeds"] == [0, 1]
    first, second = (seed["prequential"]["mse"] for seed in results["per_seed"])
    assert first != second
    assert results["test"]["prequential"]["mse"] == pytest.approx((first + second) / 2)
    assert (workdir / "replicas" / "1" / "model").is_dir()
    factors = results["baselines"]["matrix_factorisation"]["per_seed"]
    assert factors[0] != factors[1]


def test_second_call_returns_the_stored_results(
    whole: tuple[pathlib.Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    workdir, results = whole
    monkeypatch.setattr(experiment, "read_into", None)  # nothing is read or trained
    assert experiment.train(read_settings(workdir / "config.json"), workdir) == results
    other = changed(read_settings(workdir / "config.json"), {"train.epochs": 3})
    with pytest.raises(UserError, match=r"another configuration.*train.epochs: 1, now 3"):
        experiment.train(other, workdir)


def test_evaluate_needs_the_run_directory_alone(
    whole: tuple[pathlib.Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    workdir, results = whole
    monkeypatch.setattr("drex_jax.runs.dataset.load_interactions", None)  # no raw data
    again = experiment.evaluate(workdir)
    assert without_timings(again) == without_timings(results)


FILES = (
    "results.json", "config.json", "run.json", "replicas/1/run.json", "history/facts.json", "history/columns.json",
    "history/vocabulary.model", "history/user.npy", "history/rating.npy", "history/text.offsets.npy",
)  # fmt: skip


@pytest.mark.parametrize("damage", ["deleted", "emptied", "cut"])
def test_deleted_or_damaged_file_is_named(
    whole: tuple[pathlib.Path, dict[str, Any]], tmp_path: pathlib.Path, damage: str
) -> None:
    for name in FILES:
        workdir = shutil.copytree(whole[0], tmp_path / name.replace("/", "-"))
        file = workdir / name
        content = file.read_bytes()
        file.unlink()
        if damage != "deleted":
            file.write_bytes(content[: len(content) // 2] if damage == "cut" else b"")
        with pytest.raises(UserError) as caught:
            experiment.evaluate(workdir)
        assert str(file) in str(caught.value), name
        assert "\n" not in str(caught.value)
    workdir = shutil.copytree(whole[0], tmp_path / "run")
    shutil.rmtree(workdir / "model")
    with pytest.raises(UserError, match=f"{workdir / 'model'}: no finished model"):
        experiment.evaluate(workdir)


def test_interrupted_after_training_continues_without_training_again(
    whole: tuple[pathlib.Path, dict[str, Any]], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workdir = shutil.copytree(whole[0], tmp_path / "run")
    (workdir / "results.json").unlink()
    monkeypatch.setattr("drex_jax.training.loop.fit", None)
    monkeypatch.setattr("drex_jax.runs.dataset.load_interactions", None)
    assert without_timings(experiment.train(read_settings(workdir / "config.json"), workdir)) == without_timings(
        whole[1]
    )


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return experiment.train(settings_of(tiny()), tmp_path_factory.mktemp("plain"))


def test_one_seed_gives_the_same_run(plain: dict[str, Any], tmp_path: pathlib.Path) -> None:
    assert without_timings(experiment.train(settings_of(tiny()), tmp_path)) == without_timings(plain)


@pytest.mark.parametrize(
    ("changes", "check"),
    [
        ({"split__kind": "leave_last_out"}, lambda r: r["leaks"] and r["split"]["sizes"]["test"] <= 12),
        pytest.param(
            {"split__kind": "random", "model__head": "mlp"},
            lambda r: r["leaks"] and not r["split"]["boundaries"],
            marks=pytest.mark.thorough,
        ),
        ({"data__max_interactions": 90, "protocol": "mmrec"}, lambda r: r["dataset"]["interactions"] == 90),
        (
            {"model__ranking_weight": 0.5, "train__selection": "ndcg@5", "train__epochs": 1},
            lambda r: r["selection"]["metric"] == "ndcg@5" and "mse" in r["test"]["frozen"],
        ),
        (
            {
                "model__ranking_weight": 1.0, "model__ranking_loss": "bpr", "model__head": "mlp",
                "data__synthetic__missing_rating": 1.0, "train__selection": "hr@5", "train__epochs": 1,
                "baselines": ("bias", "popularity", "drex_ratings"),
            },
            lambda r: set(r["baselines"]) == {"popularity", "drex_ratings"} and "mse" not in r["test"]["frozen"],
        ),
    ],
)  # fmt: skip
def test_variants(
    plain: dict[str, Any],
    tmp_path: pathlib.Path,
    changes: dict[str, Any],
    check: Callable[[dict[str, Any]], bool],
) -> None:
    results = experiment.train(settings_of(tiny(**changes)), tmp_path)
    assert check(results)
    assert results["test"] != plain["test"]
    assert results["protocol"] == changes.get("protocol", "strict")


def test_shuffled_texts_are_a_control(tmp_path: pathlib.Path) -> None:
    """Shuffling moves texts only within their part and changes nothing else; no training is needed to see that."""
    from drex_jax.runs.dataset import open_dataset, prepare

    settings = tiny(text__enabled=True)
    straight = prepare(settings_of(settings), tmp_path)
    settings.text.shuffled = True
    shuffled = open_dataset(settings_of(settings), tmp_path)
    assert any("control" in notice for notice in shuffled.facts["notices"])
    assert not any("control" in notice for notice in straight.facts["notices"])
    np.testing.assert_array_equal(straight.events.user, shuffled.events.user)
    assert straight.events.tokens is not None
    assert shuffled.events.tokens is not None
    before, after = (
        [tokens.ids[a:b].tolist() for a, b in zip(tokens.offsets[:-1], tokens.offsets[1:], strict=True)]
        for tokens in (straight.events.tokens, shuffled.events.tokens)
    )
    assert before != after
    begin = 0
    for size in straight.sizes:
        assert sorted(before[begin : begin + size]) == sorted(after[begin : begin + size])
        begin += size


def test_ratings_missing_entirely_need_another_selection(tmp_path: pathlib.Path) -> None:
    changes = {"data__synthetic__missing_rating": 1.0}
    with pytest.raises(UserError, match=r"model.ranking_weight above 0"):
        experiment.train(settings_of(tiny(**changes, model__ranking_weight=0.0)), tmp_path / "a")
    with pytest.raises(UserError, match=r"train.selection=mse.*choose one of .*ndcg@5"):
        experiment.train(settings_of(tiny(**changes, model__ranking_weight=1.0)), tmp_path / "b")


def real_dataset(options: load.DataSettings) -> Dataset:
    interactions, _ = load.load_interactions(options)
    parts = split_interactions(interactions)
    ordered = events.in_learning_order(interactions, parts)
    sizes = (len(parts.train), len(parts.validation), len(parts.test))
    return Dataset(ordered, parts, build_events(ordered, sizes, None), None, {})


@pytest.mark.parametrize(
    ("format_", "path", "running", "static"),
    [
        ("movielens", "movielens_latest_small", 0.748, 1.151),
        ("amazon", "amazon_musical_instruments", 0.845, 0.874),
    ],
)
def test_biases_on_real_data(real_data: pathlib.Path, format_: str, path: str, running: float, static: float) -> None:
    """The package's readers, split and evaluator reproduce the figures of independent prototypes."""
    dataset = real_dataset(load.DataSettings(format=format_, path=str(real_data / path)))
    settings = base()
    settings.evaluate.ranking = False
    settings.devices.count = 1
    context = registry.context(settings_of(settings))
    found = {}
    for name in ("running_bias", "bias"):
        stream = registry.build(name, settings, dataset, 0, context)
        evaluator = Evaluator(stream, dataset.events, dataset.sizes, registry.evaluation_options(settings, dataset))
        found[name] = evaluator.evaluate_test({}, Selection.of({}, "mse", 0.0, 0))[0]
    assert found["running_bias"]["prequential"]["mse"] == pytest.approx(running, abs=0.002)
    assert found["bias"]["frozen"]["mse"] == pytest.approx(static, abs=0.002)
    assert found["bias"]["frozen"]["mse"] == pytest.approx(found["bias"]["prequential"]["mse"], rel=1e-6)
    logging.info("%s: %s", path, found)


def test_a_finished_run_tells_how_faithful_its_explanations_are(
    whole: tuple[pathlib.Path, dict[str, Any]],
    finished_popularity: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(curves, "DRAWS", 1)
    monkeypatch.setattr(occlusion, "LEAST", 8192)  # one program for all pairs
    answers = faithfulness.measure(whole[0], 4)
    kinds = [f"{kind} of the {side}" for kind in ("interactions", "keywords") for side in ("user", "item")]
    assert list(answers) == ["run", "data", "steps", "pairs", *kinds]
    assert answers["pairs"] == 4
    assert set(answers[kinds[2]]["score"]["deletion"]) == {
        "keywords", "random", "true aspects", "sentiment", "background"
    }  # fmt: skip
    lines = faithfulness.describe(answers).splitlines()
    assert all(any(line.startswith(kind) for line in lines) for kind in kinds)
    assert sum(line.split()[:3] == ["change", "deletion", "for"] for line in lines) == 2
    with pytest.raises(UserError, match="a run of popularity; only DReX is explained"):
        faithfulness.measure(finished_popularity, 4)
