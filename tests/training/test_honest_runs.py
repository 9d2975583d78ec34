"""A run depends neither on its place nor on its time, and its choices do not depend on its test part."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import shutil

import pytest

from drex_jax.common.errors import UserError
from drex_jax.config import agreement
from drex_jax.config.tree import flatten
from drex_jax.runs.dataset import prepare
from drex_jax.runs.layout import RunLayout, results_of
from drex_jax.runs.trained import load_trained
from drex_jax.training import experiment, loop, registry
from drex_jax.training.settings import base, changed, read_settings, sha256

RUNS = ["finished_popularity", pytest.param("finished_drex", marks=pytest.mark.thorough)]


@pytest.mark.parametrize("run", RUNS)
def test_results_are_the_same_but_for_the_time(
    run: str, request: pytest.FixtureRequest, tmp_path: pathlib.Path
) -> None:
    """A run in another place and with another cache gives the same results, except for the time."""
    workdir = request.getfixturevalue(run)
    settings = changed(read_settings(workdir / "config.json"), {"data.cache_dir": str(tmp_path / "cache")})
    first, second = results_of(workdir), experiment.train(settings, tmp_path / "run")
    assert {name for name in first.keys() | second.keys() if first.get(name) != second.get(name)} == {"timing"}


def test_results_name_their_configuration(finished_popularity: pathlib.Path) -> None:
    settings = read_settings(finished_popularity / "config.json")
    assert results_of(finished_popularity)["config"] == {"sha256": sha256(settings)}


def test_the_hash_of_a_configuration_is_of_what_decides_its_results() -> None:
    """Changing a field changes the hash, unless the field only sets paths, devices, the search or when to save."""
    aside, others = set(), {bool: True, int: 77, float: 0.77, str: "other", tuple: ("other",)}
    for name, value in flatten(base()).items():
        settings = base()
        kind = str if value is None and name.startswith("data.") and name.endswith(("path", "_dir")) else type(value)
        if kind in others:
            settings.update_from_flattened_dict({name: not value if kind is bool else others[kind]})
            if agreement.sha256(flatten(settings)) == agreement.sha256(flatten(base())):
                aside.add(name)
    saving = {"train.checkpoint_seconds", "train.checkpoint_steps", "train.tensorboard"}
    places = {"data.path", "data.tfds_dir", "data.cache_dir"}
    assert {name for name in aside if not name.startswith(("devices.", "tune."))} == saving | places


@pytest.mark.parametrize("run", RUNS)
def test_a_trial_has_no_test(
    run: str, request: pytest.FixtureRequest, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A trial sees no test part, and selects the same as the run that has one."""
    workdir = request.getfixturevalue(run)
    settings = read_settings(workdir / "config.json")
    dataset, given, true_fit = prepare(settings, tmp_path), [], loop.fit
    monkeypatch.setattr(loop, "fit", lambda *arguments: given.extend(arguments) or true_fit(*arguments))
    whole = experiment.Experiment(settings, dataset, registry.context(settings), RunLayout(tmp_path))
    chosen = whole.fit_trial(settings.model.name, tmp_path).selection
    assert dataclasses.asdict(chosen) == results_of(workdir)["selection"]
    stream, evaluator = given[:2]
    assert [len(segment) for segment in stream.segments()] == [*dataset.sizes[:2], 0]
    assert len(evaluator._events) == sum(dataset.sizes[:2])


def test_a_record_of_other_parameters_is_refused(finished_popularity: pathlib.Path, tmp_path: pathlib.Path) -> None:
    workdir = shutil.copytree(finished_popularity, tmp_path / "run")
    stream = experiment.reopen(workdir)[2]
    record = json.loads((workdir / "run.json").read_text())
    assert dataclasses.asdict(load_trained(stream, workdir)[1]) == record["selection"]
    record["selection"]["params_sha256"] = "0123"
    (workdir / "run.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match="not the parameters that"):
        experiment.evaluate(workdir)
    del record["selection"]["params_sha256"]  # as in records of an older version
    (workdir / "run.json").write_text(json.dumps(record))
    assert experiment.evaluate(workdir)["test"] == results_of(finished_popularity)["test"]
    record["selection"] = ["mse"]
    (workdir / "run.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match=r"run\.json: damaged"):
        experiment.evaluate(workdir)
