"""What a run may not depend on: where it is, when it is made, and, as long as something is to be chosen, its test."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import shutil
from typing import Any

import pytest

from drex_jax import build, config, fit, train
from drex_jax.dataset import prepare
from drex_jax.errors import UserError
from drex_jax.finished_run import trained
from drex_jax.run_directory import results_of


def differing(first: dict[str, Any], second: dict[str, Any]) -> set[str]:
    return {name for name in first.keys() | second.keys() if first.get(name) != second.get(name)}


def again(workdir: pathlib.Path, folder: pathlib.Path) -> set[str]:
    """What differs in the results of a run of the same configuration, in another place and with another cache."""
    settings = config.from_json(workdir / "config.json")
    settings.data.cache_dir = str(folder / "cache")
    return differing(results_of(workdir), train.train(settings, folder / "run"))


def test_results_are_the_same_but_for_the_time(finished_popularity: pathlib.Path, tmp_path: pathlib.Path) -> None:
    assert again(finished_popularity, tmp_path) == {"timing"}


@pytest.mark.thorough
def test_results_with_texts_are_the_same_but_for_the_time(finished_drex: pathlib.Path, tmp_path: pathlib.Path) -> None:
    assert again(finished_drex, tmp_path) == {"timing"}


def test_results_name_their_configuration(finished_popularity: pathlib.Path) -> None:
    settings = config.from_json(finished_popularity / "config.json")
    assert results_of(finished_popularity)["config"] == {"sha256": config.sha256(settings)}


def test_the_hash_of_a_configuration_is_of_what_decides_its_results() -> None:
    """Every field at another value: the hash is another one, or the field says where things are and when it saves."""
    aside, others = set(), {bool: True, int: 77, float: 0.77, str: "other", tuple: ("other",)}
    for name, value in config.flatten(config.base()).items():
        settings = config.base()
        kind = str if value is None and name.startswith("data.") and name.endswith(("path", "_dir")) else type(value)
        if kind in others:
            settings.update_from_flattened_dict({name: not value if kind is bool else others[kind]})
            if config.sha256(settings) == config.sha256(config.base()):
                aside.add(name)
    saving = {"train.checkpoint_seconds", "train.checkpoint_steps", "train.tensorboard"}
    places = {"data.path", "data.tfds_dir", "data.cache_dir"}
    assert {name for name in aside if not name.startswith(("devices.", "tune."))} == saving | places


def test_a_trial_has_no_test(
    finished_popularity: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = config.from_json(finished_popularity / "config.json")
    dataset = prepare(settings, tmp_path)
    given: list[Any] = []
    true_fit = fit.fit
    monkeypatch.setattr(fit, "fit", lambda *arguments: given.extend(arguments) or true_fit(*arguments))
    chosen = train.fit_trial("popularity", settings, dataset, build.machine(settings), tmp_path).selection
    assert chosen.value == results_of(finished_popularity)["selection"]["value"]
    assert [len(segment) for segment in given[0].segments()] == [*dataset.sizes[:2], 0]
    tested = given[1].evaluate_test({}, chosen)
    assert not any(metrics for metrics in tested.metrics.values())


def test_a_record_of_other_parameters_is_refused(finished_popularity: pathlib.Path, tmp_path: pathlib.Path) -> None:
    workdir = shutil.copytree(finished_popularity, tmp_path / "run")
    model = train.reopen(workdir)[2]
    record = json.loads((workdir / "run.json").read_text())
    assert dataclasses.asdict(trained(model, workdir)[1]) == record["selection"]
    record["selection"]["params_sha256"] = "0123"
    (workdir / "run.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match="not the parameters that"):
        train.evaluate(workdir)
    del record["selection"]["params_sha256"]  # of an older version
    (workdir / "run.json").write_text(json.dumps(record))
    assert train.evaluate(workdir)["test"] == results_of(finished_popularity)["test"]
    record["selection"] = ["mse"]
    (workdir / "run.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match=r"run\.json: damaged"):
        train.evaluate(workdir)
