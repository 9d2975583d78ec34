"""Locks: one holder at a time, also if the file is removed between two calls; a run directory has one writer."""

from __future__ import annotations

import pathlib
from typing import Any

import pytest

from drex_jax.common.errors import UserError
from drex_jax.report import page
from drex_jax.runs import lock
from drex_jax.training import experiment, tune
from drex_jax.training.settings import base, settings_of


def test_one_holder_at_a_time(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "a.lock"
    for _ in range(2):
        with lock.held(path, "taken"):
            for _ in range(2):
                with pytest.raises(UserError, match="taken"), lock.held(path, "taken"):
                    raise AssertionError
        assert not path.exists()


def test_a_file_that_its_last_holder_removed_meanwhile(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, flock, before = tmp_path / "a.lock", lock.fcntl.flock, [pathlib.Path.unlink]

    def late(file: Any, how: int) -> None:
        if before:
            before.pop()(path)
        flock(file, how)

    monkeypatch.setattr(lock.fcntl, "flock", late)
    with lock.held(path, "taken"), pytest.raises(UserError, match="taken"), lock.held(path, "taken"):
        raise AssertionError
    assert not before


def test_a_file_system_without_locks(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(lock.NO_LOCKS[0], "no locks")

    monkeypatch.setattr(lock.fcntl, "flock", refuse)
    with lock.held(tmp_path / "a.lock", "taken"):
        pass


def test_the_second_writer_of_a_run_directory_refuses(
    finished_popularity: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    settings: Any = base()
    settings.tune.space = ("train.epochs=1,2",)
    with lock.sole_writer(tmp_path / "run"):
        for begin in (experiment.train, tune.search_settings):
            with pytest.raises(UserError, match="another process trains there") as told:
                begin(settings_of(settings), tmp_path / "run")
            assert "\n" not in str(told.value)
        assert [each.name for each in (tmp_path / "run").iterdir()] == ["run.lock"]
    assert not (tmp_path / "run").exists()
    with lock.sole_writer(finished_popularity), pytest.raises(UserError, match="writes its report"):
        page.write(finished_popularity)
