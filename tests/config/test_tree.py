"""Settings, configurations and JSON hold the same values, whatever the fields are."""

import dataclasses
import json
import pathlib
from typing import Any

import pytest

from drex_jax.common.errors import UserError
from drex_jax.config import tree
from drex_jax.training.settings import Settings, base, changed, read_settings, settings_of

OTHER = {bool: lambda value: not value, int: lambda value: (value or 1) + 1, float: lambda value: (value or 0.5) / 2}


def test_every_field_is_declared_with_a_rule_and_a_help_that_its_default_obeys() -> None:
    fields = tree.fields_of(Settings)
    assert set(fields) == set(tree.flatten(base()))
    assert all(field.help and "\n" not in field.help and field.rule.wants for field in fields.values())
    assert settings_of(base()) == Settings()


@pytest.mark.parametrize("name", [name for name, field in tree.fields_of(Settings).items() if field.kind in OTHER])
def test_every_number_and_switch_arrives(name: str, tmp_path: pathlib.Path) -> None:
    config, field = base(), tree.fields_of(Settings)[name]
    value = OTHER[field.kind](field.default)
    value = value if field.rule.accepts(value) else field.default  # one that has one value alone keeps it
    config.update_from_flattened_dict({name: value})
    parsed = tree.parse(Settings, config)
    assert tree.flatten_settings(parsed)[name] == value
    (tmp_path / "config.json").write_text(tree.to_json(parsed))
    again = tree.parse(Settings, tree.read_json_into(base(), Settings, tmp_path / "config.json"))
    assert again == parsed


def test_settings_cannot_be_changed_in_place() -> None:
    settings: Any = settings_of(base())
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.train.epochs = 3
    assert changed(settings, {"train.epochs": 3}).train.epochs == 3
    with pytest.raises(UserError, match=r"train\.epochs is 0; it must be a whole number"):
        changed(settings, {"train.epochs": 0})


def test_columns_of_the_user_s_own() -> None:
    config: Any = base()
    tree.add_key(Settings, config, "data.columns.image")
    config.data.columns.image = "embedding"
    settings = settings_of(config)
    assert settings.data.columns["image"] == "embedding"
    assert settings_of(tree.config_from(settings)) == settings
    for name in ("train.image", "image", "data.columns.text"):
        tree.add_key(Settings, config, name)
    assert "image" not in config
    assert "image" not in config.train
    with pytest.raises(UserError, match="cannot name a vector modality"):
        tree.add_key(Settings, config, "data.columns.items")


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda config: config.__delitem__("seed"), "the configuration has no field seed"),
        (lambda config: config.__setitem__("sed", 1), "unknown configuration field sed; did you mean seed?"),
        (lambda config: config.train.__setitem__("epoch", 1), "train.epoch; did you mean train.epochs?"),
        (lambda config: config.__setitem__("train", 1), "train is 1; it must be a group of fields"),
        (lambda config: config.data.columns.__delitem__("text"), "no field data.columns.text"),
        (lambda config: config.data.columns.__setitem__("image", 3), "data.columns.image is 3; it must be a string"),
    ],
)
def test_a_configuration_of_another_form_is_refused(build: Any, message: str) -> None:
    config: Any = base()
    config.unlock()
    with config.ignore_type():
        build(config)
    with pytest.raises(UserError, match=r"\A[^\n]*\Z") as caught:
        settings_of(config)
    assert message in str(caught.value)


def test_help_names_every_field() -> None:
    text = tree.describe(Settings)
    for name, field in tree.fields_of(Settings).items():
        assert f"--config.{name}={'' if field.default is None else json.dumps(field.default)}\n" in text
        assert field.help in text


def test_read_settings_ignores_the_cache_that_a_run_names(tmp_path: pathlib.Path) -> None:
    settings = changed(settings_of(base()), {"data.cache_dir": "elsewhere"})
    (tmp_path / "config.json").write_text(tree.to_json(settings))
    assert read_settings(tmp_path / "config.json").data.cache_dir is None
