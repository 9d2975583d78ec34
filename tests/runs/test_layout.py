"""The paths of a run directory, and directories from others: no link leads out, and no code in them is run."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import pytest

from drex_jax.common import files
from drex_jax.common.errors import UserError
from drex_jax.config.tree import to_json
from drex_jax.runs.layout import RESULT_KEYS, SCHEMA, RunLayout, require_own_files, results_of
from drex_jax.serving import update_log
from drex_jax.training.settings import base, check_agreement, read_settings, require_agreement, settings_of

RESULTS: dict[str, Any] = {name: {} for name in RESULT_KEYS} | {"schema": SCHEMA, "seeds": [0]}


def finished(folder: pathlib.Path, **changes: Any) -> pathlib.Path:
    folder.mkdir()
    (folder / "results.json").write_text(json.dumps(RESULTS | changes))
    return folder


def test_seeds_and_baselines_have_folders_of_their_own(tmp_path: pathlib.Path) -> None:
    run = RunLayout(tmp_path)
    assert run.seed(3, first=3).folder == tmp_path
    assert run.seed(4, first=3).record == tmp_path / "replicas" / "4" / "run.json"
    bias = run.baseline("bias")
    assert bias.seed(4, first=3).list_file("frozen") == tmp_path / "baselines/bias/replicas/4/lists/frozen.npz"
    assert (bias.run().folder, run.run()) == (tmp_path.resolve(), run)
    for folder in (run.seed(4, 3).model, bias.model, bias.seed(4, 3).model):
        folder.mkdir(parents=True)
    assert [str(model.folder.relative_to(tmp_path)) for model in run.models()] == [
        ".", "replicas/4", "baselines/bias", "baselines/bias/replicas/4"
    ]  # fmt: skip


def test_settings_of_training_are_fixed_once_a_model_is_finished(tmp_path: pathlib.Path) -> None:
    run = RunLayout(tmp_path)
    (run.checkpoints / "1").mkdir(parents=True)
    assert (run.has_checkpoint(), run.has_finished_model(), run.is_settled()) == (True, False, False)
    run.baseline("bias").record.parent.mkdir(parents=True)
    run.baseline("bias").record.touch()
    assert (run.has_finished_model(), run.is_settled()) == (True, True)


@pytest.mark.parametrize("name", ["updates", "checkpoints", "history/user.npy", "replicas/1"])
def test_links_that_lead_out_are_refused(tmp_path: pathlib.Path, name: str) -> None:
    run, elsewhere = finished(tmp_path / "run"), tmp_path / "elsewhere"
    elsewhere.mkdir()
    link = run / name
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(elsewhere)
    for opens in (results_of, lambda folder: check_agreement(settings_of(base()), folder)):
        with pytest.raises(UserError, match=rf"{name} is a link that leads out of the run directory") as error:
            opens(run)
        assert "\n" not in str(error.value)


def test_links_within_and_to_a_run_are_none_of_these(tmp_path: pathlib.Path) -> None:
    run = finished(tmp_path / "run")
    (run / "latest").symlink_to("results.json")
    (run / "loop").symlink_to("loop")
    (tmp_path / "link").symlink_to(run)
    require_own_files(tmp_path / "link")
    assert results_of(tmp_path / "link") == RESULTS


@pytest.mark.parametrize("seeds", [["../.."], 3, [True], [0.0], {"0": 0}])
def test_seeds_that_name_other_folders(tmp_path: pathlib.Path, seeds: Any) -> None:
    with pytest.raises(UserError, match=r"results.json: damaged; its seeds are"):
        results_of(finished(tmp_path / "run", seeds=seeds))


def test_compiled_programs_are_not_looked_for_where_a_run_says(tmp_path: pathlib.Path) -> None:
    settings: Any = base()
    settings.seed, settings.data.cache_dir = 7, str(tmp_path / "programs")
    (tmp_path / "config.json").write_text(to_json(settings_of(settings)))
    found = read_settings(tmp_path / "config.json")
    assert (found.seed, found.data.cache_dir) == (7, None)
    require_agreement(found, settings_of(settings), tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"data": {"k_core": -1}}))
    with pytest.raises(UserError, match=r"config.json: data.k_core is -1; it must be"):
        read_settings(tmp_path / "config.json")


@pytest.mark.parametrize("text", ["[" * 10**6, '{"a":' * 101 + "1" + "}" * 101, '{"a": NaN}', "\x00", '{"a": 1e999}'])
def test_json_that_is_none_or_nested_too_deep(tmp_path: pathlib.Path, text: str) -> None:
    for name in ("config.json", "results.json", "updates.jsonl"):
        (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=r"config.json is no readable run configuration"):
        read_settings(tmp_path / "config.json")
    with pytest.raises(UserError, match=r"results.json: damaged"):
        files.read_json(tmp_path / "results.json", ())
    with pytest.raises(UserError, match=r"updates.jsonl, line 1: damaged"):
        update_log.batches(tmp_path)


def test_paths_that_are_not_utf8_come_back() -> None:
    path = "/data/caf\udce9.csv"
    assert files.parsed(json.dumps({"path": path}).encode()) == {"path": path}


def test_json_is_bounded(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "results.json").write_text(json.dumps(RESULTS))
    assert files.parsed(b'{"a":' * 99 + b"1" + b"}" * 99)
    monkeypatch.setattr(files, "MAX_JSON_BYTES", 20)
    monkeypatch.setattr(update_log, "MAX_JSON_BYTES", 20)
    (tmp_path / "updates.jsonl").write_text("{}\n" * 20)
    with pytest.raises(UserError, match=r"results.json: damaged"):
        results_of(tmp_path)
    with pytest.raises(UserError, match=r"updates.jsonl: damaged; a line a batch makes no 60 bytes"):
        update_log.batches(tmp_path)
