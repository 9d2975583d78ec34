"""Every experiment file is a valid configuration and says what a reader needs."""

import ast
import pathlib

import pytest

from drex_jax.cli import command
from drex_jax.common.errors import UserError
from drex_jax.models.registry import RANKERS
from drex_jax.training import search_space
from drex_jax.training.settings import settings_of

FOLDER = pathlib.Path(__file__).parents[1] / "experiments"
ARGUMENTS = {"amazon": ":Musical_Instruments"}
FILES = sorted(file for file in FOLDER.glob("*.py") if file.stem != "__init__")


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_experiment_is_valid(file: pathlib.Path) -> None:
    config = command.load_experiment(f"{file}{ARGUMENTS.get(file.stem, '')}")
    settings_of(config)


@pytest.mark.parametrize("model", RANKERS)
def test_models_are_arguments(model: str) -> None:
    """Each with a valid configuration and a space to search that is one."""
    config = command.load_experiment(f"{FOLDER / 'crane_tiktok.py'}:{model}")
    settings = settings_of(config)
    assert settings.model.name == model
    if model != "popularity":
        assert len(search_space.candidates(settings).settings) == settings.tune.trials


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_docstring_gives_command_and_expectation(file: pathlib.Path) -> None:
    doc = ast.get_docstring(ast.parse(file.read_text())) or ""
    assert f"--config=experiments/{file.stem}.py" in doc
    assert "Expected:" in doc


def test_an_argument_that_is_no_ranker_is_refused() -> None:
    with pytest.raises(UserError, match="'drex' is not one of the models that only rank: crane "):
        command.load_experiment(f"{FOLDER / 'crane_tiktok.py'}:drex")


def test_amazon_asks_for_its_category() -> None:
    with pytest.raises(UserError, match="Musical_Instruments"):
        command.load_experiment(str(FOLDER / "amazon.py"))


def test_amazon_finds_each_published_name(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DREX_JAX_DATA", str(tmp_path))
    folder = tmp_path / "amazon_all_beauty"
    folder.mkdir()
    for name in ("All_Beauty.jsonl", "All_Beauty.jsonl.gz", "All_Beauty_5.json.gz", "reviews_All_Beauty_5.json.gz"):
        (folder / name).touch()  # each is preferred to those before it
        config = command.load_experiment(f"{FOLDER / 'amazon.py'}:All_Beauty")
        assert config["data"]["path"] == str(folder / name)
