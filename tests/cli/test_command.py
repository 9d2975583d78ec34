"""Flags, experiment files and overrides become one checked configuration, or one line that says what is wrong."""

import functools
import importlib.util
import logging
import os
import pathlib
import types
from typing import Any

import pytest

from drex_jax.cli import command
from drex_jax.common.errors import UserError
from drex_jax.config import agreement, tree
from drex_jax.training.settings import Settings, base, read_settings, require_agreement, settings_of

PLAIN = "from drex_jax.training.settings import base\n\n\ndef get_config():\n    return base()\n"


@pytest.fixture
def experiment(tmp_path: pathlib.Path) -> pathlib.Path:
    file = tmp_path / "plain.py"
    file.write_text(PLAIN)
    return file


def parse(*arguments: object) -> command.Command:
    parsed = command.parse(["main", *map(str, arguments)])
    assert parsed is not None
    return parsed


def differing(stored: Settings, given: Settings) -> list[str]:
    return agreement.differences(tree.flatten_settings(stored), tree.flatten_settings(given))


def field(parsed: command.Command, name: str) -> object:
    return tree.flatten_settings(parsed.settings)[name]


def test_overrides_of_every_kind(experiment: pathlib.Path, tmp_path: pathlib.Path) -> None:
    parsed = parse(
        f"--config={experiment}",
        f"--workdir={tmp_path / 'run'}",
        "--config.train.epochs=7",
        "--config.seed",
        "3",
        "--noconfig.text.enabled",
        "--config.model.partner=false",
        "--config.evaluate.cutoffs=(1, 2)",
        "--config.data.path=somewhere/a b",
        "--config.data.rating_min=0",
        "--config.data.rating_max=10",
        "--config.data.columns.text=body",
        "--config.data.max_interactions=50",
        "--config.baselines=()",
        "--config.train.learning_rate=1e-3",
    )
    expected = {
        "train.epochs": 7,
        "seed": 3,
        "text.enabled": False,
        "model.partner": False,
        "evaluate.cutoffs": (1, 2),
        "data.path": "somewhere/a b",
        "data.rating_min": 0.0,
        "data.rating_max": 10.0,
        "data.columns.text": "body",
        "data.max_interactions": 50,
        "baselines": (),
        "train.learning_rate": 1e-3,
    }
    assert {name: field(parsed, name) for name in expected} == expected
    untouched = tree.flatten(base())
    given = tree.flatten_settings(parsed.settings)
    assert {name for name in given if given[name] != untouched[name]} == set(expected)
    assert parsed.mode == "train"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--foo=1"], "unknown flag --foo=1"),
        (["--nofoo"], "unknown flag --nofoo"),
        (["extra"], "unknown argument extra"),
        (["--mode=recomend"], "train|evaluate|recommend"),
        (["--user=7"], "--user goes with --mode=recommend|explain, not with --mode=train"),
        (["--k=5"], "--k goes with --mode=recommend"),
        (["--mode=recommend", "--format=xml"], "table|json"),
        (["--k=five"], "--k=five: it must be a whole number, 1 or more"),
        (["--workdir="], "--workdir is empty"),
        (["--config.foo=1"], "unknown configuration field foo"),
        (["--config.train.epoch=1"], "did you mean train.epochs?"),
        (["--config.epochs=1"], "did you mean train.epochs?"),
        (["--config.train=1"], "unknown configuration field train"),
        (["--config.train.epochs=abc"], "--config.train.epochs=abc: it must be a whole number, 1 or more"),
        (["--config.train.epochs=1.5"], "--config.train.epochs=1.5: it must be a whole number"),
        (["--config.train.epochs"], "--config.train.epochs: it must be"),
        (["--config.train.epochs=0"], "train.epochs is 0; it must be a whole number, 1 or more"),
        (["--config.text.enabled=7"], "must be true or false"),
        (["--config.ranker.layers=3"], "ranker.layers = 3 has no effect on drex, which reads no field of ranker"),
        (
            ["--config.model.name=bpr", "--config.ranker.layers=3"],
            "has no effect on bpr, which reads ranker.batch_size ranker.l2 ranker.size; leave it as it is",
        ),
        (["--config.model.name=vbpr", "--config.crane.rounds=1"], "crane.rounds = 1 has no effect on vbpr"),
        (["--config.model.name=popularity", "--config.model.head=mlp", "--config.baselines=()"], "model.head = 'mlp'"),
        (["--config.data.max_interactions=x"], "must be a whole number, 1 or more"),
        (["--config.evaluate.cutoffs='a,b"], "such as (5, 10, 20)"),
        (["--noconfig.seed"], "noconfig.seed"),
    ],
)
def test_wrong_flags(experiment: pathlib.Path, arguments: list[str], message: str) -> None:
    with pytest.raises(UserError) as caught:
        parse(f"--config={experiment}", *arguments)
    assert message in str(caught.value)


def test_nothing_given() -> None:
    with pytest.raises(UserError, match="neither --config nor --workdir"):
        parse()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def get_config(:", "line 1"),
        ("import no_such_module", "no_such_module"),
        ("x = 1", "has no function get_config()"),
        ("def get_config():\n    raise KeyError('cat')", "KeyError: 'cat'"),
        ("def get_config():\n    return None", "must return a ConfigDict"),
        ("def get_config(which):\n    return None", "needs an argument"),
        (PLAIN.replace("return base()", "config = base(); config.tran = 1; return config"), "tran"),
        (PLAIN.replace("return base()", "config = base(); config.train.epochs = 'x'; return config"), "TypeError"),
        ("from ml_collections import ConfigDict\ndef get_config():\n    return ConfigDict()", "has no field seed"),
        (PLAIN.replace("return base()", "c = base(); c.unlock(); c.extra = 1; return c"), "field extra"),
    ],
)
def test_broken_experiment_files(tmp_path: pathlib.Path, text: str, message: str) -> None:
    file = tmp_path / "broken.py"
    file.write_text(text)
    with pytest.raises(UserError) as caught:
        parse(f"--config={file}", f"--workdir={tmp_path / 'run'}")
    assert message in str(caught.value)


def test_file_and_argument_that_do_not_fit(experiment: pathlib.Path, tmp_path: pathlib.Path) -> None:
    with pytest.raises(UserError, match="takes no argument, but :large"):
        parse(f"--config={experiment}:large")
    with pytest.raises(UserError, match=r"no file .*missing\.py"):
        parse(f"--config={tmp_path / 'missing.py'}")
    (tmp_path / "words.txt").touch()
    with pytest.raises(UserError, match=r"must end in \.py"):
        parse(f"--config={tmp_path / 'words.txt'}")


def test_a_packaged_experiment_serves_where_there_is_no_checkout(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    package = types.SimpleNamespace(submodule_search_locations=[str(tmp_path / "packaged")])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: package if name == "drex_jax.experiments" else None)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "packaged").mkdir()
    (tmp_path / "packaged" / "plain.py").write_text(PLAIN)
    with caplog.at_level(logging.INFO, "drex_jax"):
        command.load_experiment("experiments/plain.py")
    assert [record.getMessage() for record in caplog.records] == [
        f"experiments/plain.py does not exist here; using the packaged {tmp_path}/packaged/plain.py"
    ]
    for elsewhere in ("plain.py", "other/plain.py", str(tmp_path / "experiments" / "plain.py"), "experiments/other.py"):
        with pytest.raises(UserError, match="there is no file"):
            command.load_experiment(elsewhere)


def test_columns_of_vector_modalities(experiment: pathlib.Path, tmp_path: pathlib.Path) -> None:
    parsed = parse(f"--config={experiment}", "--config.data.columns.image=embedding")
    assert field(parsed, "data.columns.image") == "embedding"
    path = tmp_path / "config.json"
    path.write_text(tree.to_json(parsed.settings))
    again = read_settings(path)
    assert again == parsed.settings
    assert differing(settings_of(base()), again) == ["data.columns.image: None, now 'embedding'"]
    with pytest.raises(UserError, match=r"unknown configuration field data\.image"):
        parse(f"--config={experiment}", "--config.data.image=embedding")


def test_default_workdir(experiment: pathlib.Path) -> None:
    assert parse(f"--config={experiment}").workdir == pathlib.Path("runs/plain")
    experiment.write_text(PLAIN.replace("get_config()", "get_config(which)"))
    assert parse(f"--config={experiment}:a/b c").workdir == pathlib.Path("runs/plain-a_b_c")


@pytest.mark.parametrize("name", ["", "x y", "items", "class", "1st"])
def test_a_name_that_no_vector_modality_can_have(experiment: pathlib.Path, name: str) -> None:
    with pytest.raises(UserError, match=rf"data\.columns\.{name}: '{name}' cannot name a vector modality"):
        parse(f"--config={experiment}", f"--config.data.columns.{name}=embedding")


def test_workdir_with_a_name_too_long(experiment: pathlib.Path) -> None:
    with pytest.raises(UserError, match="can be no directory"):
        parse(f"--config={experiment}", f"--workdir={'x' * 300}")


def test_workdir_that_is_a_file(experiment: pathlib.Path) -> None:
    for workdir in (experiment, experiment / "below"):
        with pytest.raises(UserError, match="no directory"):
            parse(f"--config={experiment}", f"--workdir={workdir}")


def test_a_run_that_cannot_be_written_to_is_asked_all_the_same(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.json").write_text(tree.to_json(settings_of(base())))
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK)
    questions = {"recommend": ["--user=7"], "explain": ["--item=7"], "update": ["--interactions=x"]}
    for mode in command.MODES:
        arguments = [f"--workdir={tmp_path}", f"--mode={mode}", *questions.get(mode, [])]
        if mode in ("recommend", "explain", "evaluate"):
            assert parse(*arguments).mode == mode
        else:
            with pytest.raises(UserError, match="no directory that can be written to"):
                parse(*arguments)


def test_stored_run_must_agree(experiment: pathlib.Path, tmp_path: pathlib.Path) -> None:
    run = tmp_path / "run"
    first = parse(
        f"--config={experiment}",
        f"--workdir={run}",
        "--config.train.epochs=3",
        "--config.data.rating_min=1",
        "--config.data.rating_max=5",
    )
    for arguments in ([f"--workdir={run}"], [f"--workdir={run}", "--mode=evaluate"]):
        with pytest.raises(UserError, match="holds no run"):
            parse(*arguments)
    run.mkdir()
    (run / "config.json").write_text(tree.to_json(first.settings))
    for mode in command.MODES:
        question = {"recommend": ["--user=7"], "explain": ["--item=7"], "update": ["--interactions=x"]}.get(mode, [])
        again = parse(f"--workdir={run}", f"--mode={mode}", *question)
        assert again.settings == first.settings
    with pytest.raises(UserError, match="needs --user=ID"):
        parse(f"--workdir={run}", "--mode=recommend")
    for empty in ("--user=", "--item="):
        with pytest.raises(UserError, match=f"{empty[:-1]} is empty; it must be an id"):
            parse(f"--workdir={run}", "--mode=explain", "--user=7", "--item=7", empty)
    with pytest.raises(UserError) as caught:
        parse(
            f"--config={experiment}",
            f"--workdir={run}",
            "--mode=evaluate",
            "--config.train.epochs=4",
            "--config.data.rating_min=1",
            "--config.data.rating_max=5",
        )
    assert "train.epochs: 3, now 4" in str(caught.value)
    assert "may change" not in str(caught.value)
    with pytest.raises(UserError, match="goes with --config"):
        parse(f"--workdir={run}", "--config.train.epochs=3")


def test_what_may_change_before_a_model_is_finished(tmp_path: pathlib.Path) -> None:
    def given(**changes: Any) -> Any:
        settings: Any = base()
        settings.train.update(changes)
        return settings_of(settings)

    constant, decaying = given(decay="none", epochs=3), given(epochs=3)
    agree = functools.partial(require_agreement, workdir=tmp_path, goes_on=True)
    agree(constant, given(decay="none", epochs=4, checkpoint_seconds=1.0, checkpoint_steps=7, tensorboard=True))
    agree(decaying, given(epochs=3, checkpoint_seconds=1.0))
    with pytest.raises(UserError, match=r"patience: 8, now 9\).*may change: train.epochs train.checkpoint_seconds"):
        agree(constant, given(decay="none", epochs=4, patience=9))
    with pytest.raises(UserError, match=r"train.epochs: 3, now 4\).*may change: train.checkpoint_seconds"):
        agree(decaying, given(epochs=4))
    for name in ("trials", "baselines/bias/run.json"):
        (tmp_path / name).mkdir(parents=True)
        with pytest.raises(UserError, match=r"train.epochs: 3, now 4\).*it was made with$"):
            agree(constant, given(decay="none", epochs=4))
        (tmp_path / name).rmdir()


def test_stored_configuration_round_trip(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "config.json"
    with pytest.raises(UserError, match="holds no run"):
        read_settings(path)
    path.write_text(tree.to_json(settings_of(base())))
    assert read_settings(path) == settings_of(base())
    for damaged in ('{"seed": ', "[1]", '{"seed": "x"}', '{"no_such_field": 1}'):
        path.write_text(damaged)
        with pytest.raises(UserError, match=r"config\.json"):
            read_settings(path)
    path.write_text('{"train": {"epochs": null}}')
    with pytest.raises(UserError, match=r"config\.json: train\.epochs is None"):
        parse(f"--workdir={tmp_path}")
    path.write_text('{"seed": 5}')  # of a version with fewer fields
    assert differing(settings_of(base()), read_settings(path)) == ["seed: 0, now 5"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"replicas": 0}, "replicas is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"protocol": "loose"}, "one of strict mmrec"),
        ({"data.format": "parquet"}, "synthetic amazon yelp movielens table"),
        ({"data.format": "yelp"}, "data.path is not set"),
        ({"data.path": " "}, "not empty"),
        ({"data.max_bad_share": 1.5}, "a share from 0 to 1"),
        ({"data.max_bad_share": float("nan")}, "data.max_bad_share is nan"),
        ({"data.k_core": -1}, "data.k_core is -1"),
        ({"data.format": "table", "data.path": "x.csv", "data.rating_min": 5.0}, "needs both"),
        ({"data.rating_min": 5.0, "data.rating_max": 5.0}, "must be below"),
        ({"data.rating_min": float("-inf"), "data.rating_max": 5.0}, "finite"),
        ({"data.columns.user": ""}, "data.columns.user is ''"),
        ({"data.rating_min": 0.0, "data.rating_max": 1e30}, "below 1e+06"),
        ({"split.kind": "temporal"}, "global_time leave_last_out random given"),
        ({"split.test": 0.0}, "above 0"),
        ({"split.validation": 0.5, "split.test": 0.5}, "nothing to train on"),
        ({"text.dropout": 1.0}, "below 1"),
        ({"model.head": "transformer"}, "one of dot mlp"),
        ({"model.rating_weight": 0.0, "model.ranking_weight": 0.0}, "both 0"),
        ({"train.learning_rate": 0.0}, "above 0"),
        ({"train.selection": "accuracy"}, "ndcg@10"),
        ({"train.selection": "ndcg@07"}, "ndcg@10"),
        ({"model.name": "bpr", "baselines": ()}, "'mse', and bpr predicts no ratings here; it must be one of recall"),
        ({"model.name": "bpr", "baselines": (), "train.selection": "rated_items/ndcg@5"}, "such as ndcg@5"),
        ({"model.rating_weight": 0.0, "model.ranking_weight": 1.0}, "drex predicts no ratings here"),
        ({"train.selection": "ndcg@7"}, "must be one of evaluate.cutoffs"),
        ({"train.selection": "ndcg@10", "evaluate.ranking": False}, "evaluate.ranking=true"),
        ({"schedule.width": -2}, "schedule.width is -2"),
        ({"evaluate.cutoffs": ()}, "ascending"),
        ({"evaluate.cutoffs": (10, 5)}, "ascending"),
        ({"evaluate.cutoffs": (5, 5)}, "different"),
        ({"evaluate.cutoffs": (0,)}, "1 or more"),
        ({"evaluate.cutoffs": (True,)}, "whole numbers"),
        ({"evaluate.cutoffs": (10, 10**20)}, "whole numbers"),
        ({"evaluate.cutoffs": ("5", 10)}, "whole numbers"),
        ({"evaluate.threshold": float("inf")}, "finite"),
        ({"baselines": ("bias", "bias")}, "different names"),
        ({"baselines": ("svd",)}, "global_mean"),
        ({"devices.mapping": "xmap"}, "shard_map pmap none"),
        ({"devices.recurrence": "fast"}, "auto split replicated"),
        ({"devices.count": -1}, "devices.count is -1"),
        ({"schedule.implementation": "fused"}, "auto sequential autodiff blocked"),
        ({"schedule.costs": " "}, "schedule.costs is ' '"),
        ({"model.products": "float16"}, "float32 bfloat16"),
        (
            {"schedule.implementation": "sequential", "devices.recurrence": "split"},
            "devices.recurrence=split needs schedule.implementation=blocked, not sequential",
        ),
        ({"data.tfds_dir": "tfds"}, "only data.format=amazon|yelp|table has it, not synthetic"),
    ],
)
def test_wrong_values(changes: dict[str, object], message: str) -> None:
    config = base()
    config.update_from_flattened_dict(changes)
    with pytest.raises(UserError) as caught:
        settings_of(config)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"train.selection": "rated_items/ndcg@20"},
        {"train.selection": "rated_items/ndcg@20", "evaluate.ranking": False},
        {"train.selection": "mae"},
        {"model.name": "popularity", "baselines": ()},
        {"data.max_bad_share": 0.0},
        {"data.rating_min": 0.0},
        {"data.max_interactions": 1},
        {"model.rating_weight": 0.0, "model.ranking_weight": 1.0, "train.selection": "recall@5"},
        {"data.format": "table", "data.path": "x.csv", "data.columns.timestamp": ""},
        {"data.format": "yelp", "data.tfds_dir": "tfds"},
        {"baselines": ()},
        {"devices.mapping": "none", "devices.recurrence": "replicated"},
        {"devices.mapping": "pmap", "devices.recurrence": "split", "devices.count": 3},
        {"devices.recurrence": "split", "schedule.implementation": "blocked", "model.products": "bfloat16"},
    ],
)
def test_right_values(changes: dict[str, object]) -> None:
    config = base()
    config.update_from_flattened_dict(changes)
    settings_of(config)


def test_a_vector_modality_cannot_take_the_name_of_the_model_s_own() -> None:
    config = base()
    tree.add_key(Settings, config, "data.columns.time")
    config.data.columns.time = "date"
    with pytest.raises(UserError, match=r"data\.columns\.timestamp"):
        settings_of(config)
