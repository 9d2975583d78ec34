"""Registry entries name existing things, and reading them does not import JAX."""

from __future__ import annotations

import dataclasses
import inspect
import subprocess
import sys

import pytest

from drex_jax.config import tree
from drex_jax.models.protocol import Model
from drex_jax.models.registry import BASELINES, CONFIGURABLE, ENTRIES, RANKERS, entry_of
from drex_jax.training.settings import Settings, base, ranking, settings_of


@pytest.mark.parametrize("name", ENTRIES)
def test_what_an_entry_names_exists(name: str) -> None:
    entry, fields = entry_of(name), tree.fields_of(Settings)
    model = entry.load()
    assert issubclass(model, Model)
    assert model.__dataclass_params__.frozen  # it holds no data, and equal models share compiled programs
    assert not inspect.isabstract(model)
    assert callable(entry.load_builder())
    assert all(field in fields or any(known.startswith(f"{field}.") for known in fields) for field in entry.reads)
    assert all(field in fields and entry.reads_field(field) for field in entry.settings if field.startswith("ranker"))
    assert set(entry.training) <= {field.name for field in dataclasses.fields(Settings().train)}
    assert all(
        isinstance(group, kind) for group, kind in zip(entry.groups_of(Settings()), entry.groups.values(), strict=True)
    )
    assert entry.configurable or entry.baseline


@pytest.mark.parametrize("name", RANKERS)
def test_the_settings_of_a_ranker_are_valid_and_its_space_can_be_searched(name: str) -> None:
    from drex_jax.training.search_space import parse

    settings = settings_of(ranking(name, "folder", "name"))
    assert len(parse(settings)) == len(entry_of(name).space) if entry_of(name).space else True


def test_models_and_baselines() -> None:
    assert CONFIGURABLE[0] == base().model.name == "drex"  # pyright: ignore[reportAttributeAccessIssue]
    assert "drex_ratings" in set(BASELINES) - set(CONFIGURABLE)
    assert set(RANKERS) < set(CONFIGURABLE)


def test_entries_import_no_jax() -> None:
    program = "import sys, drex_jax.training.settings; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
