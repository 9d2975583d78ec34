"""Runs of every model that trains in batches, stopped anywhere and resumed, equal undisturbed runs bitwise."""

from __future__ import annotations

import pathlib
import shutil
import signal
from collections.abc import Container, Iterator, Sequence
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from ml_collections import ConfigDict

from drex_jax.common.errors import DivergedError, Stopped
from drex_jax.models.drex.stream import WindowStream
from drex_jax.training import experiment
from drex_jax.training.settings import settings_of
from drex_jax.training.step import Trainer
from tools.robustness.faults import small
from tools.robustness.faults.lab import what_is_left

STOPS = {  # device calls at which a signal comes; NARRE's baseline matrix_factorisation takes 600
    **dict.fromkeys(small.MODELS, range(1, 1000)),
    "narre": (5, 16, 150, 555, 620),
}


@pytest.fixture(scope="module")
def ranking_data(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("resume") / "data"
    small.write_ranking_data(folder)
    return folder


def stopped_and_gone_on(
    patch: pytest.MonkeyPatch, at: Container[int], settings: list[ConfigDict], workdir: pathlib.Path
) -> tuple[dict[str, Any], int]:
    """Run with a signal at some device calls, and resume; each start takes the next of `settings`.

    Returns:
      The results, and the number of stops.
    """
    step, calls, stops = Trainer.step, 0, 0

    def interrupted(self: Trainer, *arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls in at:
            signal.raise_signal((signal.SIGTERM, signal.SIGINT)[stops % 2])
        return step(self, *arguments)

    patch.setattr(Trainer, "step", interrupted)
    while True:
        try:
            return experiment.train(settings_of(settings[min(stops, len(settings) - 1)]), workdir), stops
        except Stopped:
            stops += 1


@pytest.mark.parametrize(
    ("name", "at"),
    [
        ("bpr", (3, 6)),  # within an epoch, and the last call
        *(pytest.param(name, at, marks=pytest.mark.thorough) for name, at in STOPS.items()),
    ],
)
def test_stopped_anywhere_and_gone_on_is_bitwise_what_was_left_alone(
    ranking_data: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, name: str, at: Sequence[int]
) -> None:
    """Parameters, optimizer, carry, best epoch, logged figures and results are all equal."""
    settings, calls = small.settings(name, ranking_data), []
    with monkeypatch.context() as patch:
        step = Trainer.step
        patch.setattr(Trainer, "step", lambda *arguments: (calls.append(0), step(*arguments))[1])
        experiment.train(settings_of(settings), tmp_path / "alone")
    _, stops = stopped_and_gone_on(monkeypatch, at, [settings], tmp_path / "stopped")
    assert stops == sum(call <= len(calls) for call in at) > 1
    left = what_is_left(tmp_path / "alone")
    assert sum("checkpoints" in place for place in left) == (3 if name == "narre" else 1)
    assert what_is_left(tmp_path / "stopped") == left


@pytest.mark.thorough
@pytest.mark.skipif(jax.device_count() < 8, reason="fewer than 8 devices")
def test_a_ranker_goes_from_one_device_to_eight_to_two(
    ranking_data: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batches of 3 pairs are divisible by neither 8 nor 2 devices: they are padded, and the data position is kept."""
    settings = small.settings("bpr", ranking_data)
    expected = experiment.train(settings_of(settings), tmp_path / "alone")
    devices = []
    for count in (1, 8, 2):
        devices.append(settings.copy_and_resolve_references())
        devices[-1].devices.update(mapping="shard_map", count=count)
    found, stops = stopped_and_gone_on(monkeypatch, (2, 4, 6), devices, tmp_path / "moved")
    assert stops == 3
    assert found["timing"]["steps"] == expected["timing"]["steps"]
    assert found["selection"]["epoch"] == expected["selection"]["epoch"]
    assert found["test"]["ranking"] == pytest.approx(expected["test"]["ranking"], abs=1e-4)


def thorough(*values: Any) -> Any:
    return pytest.param(*values, marks=pytest.mark.thorough)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("bpr", {}),
        thorough("drex", {}),
        thorough("drex", {"model.products": "bfloat16"}),
    ],
)
def test_an_extreme_learning_rate_is_told_with_its_step(
    ranking_data: pathlib.Path, tmp_path: pathlib.Path, name: str, changes: dict[str, Any]
) -> None:
    settings = small.settings(name, ranking_data)
    settings.train.update(learning_rate=1e30, clip_norm=0.0, warmup_steps=0)
    settings.update_from_flattened_dict(changes)
    with pytest.raises(DivergedError, match=r"after step \d|at step \d+, batch \d+ of \d+ of epoch \d"):
        experiment.train(settings_of(settings), tmp_path)


@pytest.mark.parametrize("products", ["float32", "bfloat16"])
@pytest.mark.thorough
def test_a_poisoned_window_of_drex_is_told(
    ranking_data: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, products: str
) -> None:
    batches = WindowStream.batches

    def poisoned(self: WindowStream, epoch: int) -> Iterator[Any]:
        *good, last = batches(self, epoch)
        yield from good
        yield jax.tree.map(lambda leaf: leaf * np.float32(1e30) if leaf.dtype == np.float32 else leaf, last)

    monkeypatch.setattr(WindowStream, "batches", poisoned)
    settings = small.settings("drex", ranking_data)
    settings.model.products = products
    settings.train.checkpoint_steps = 1
    with pytest.raises(DivergedError, match="not finite at step 3, batch 3 of 3 of epoch 1 "):
        experiment.train(settings_of(settings), tmp_path)
    kept = tmp_path / "checkpoints"
    assert sorted(folder.name for folder in kept.iterdir()) == ["1", "2"]
    with ocp.StandardCheckpointer() as checkpointer:
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(checkpointer.restore(kept / "2" / "arrays")))


@pytest.mark.thorough
def test_a_poisoned_row_of_features_is_told_with_its_batch(ranking_data: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """The row is finite, so the reader accepts it, but its products are not finite."""
    data = shutil.copytree(ranking_data, tmp_path / "data")
    features = np.load(data / "image_feat.npy")
    features[5] = 1e30
    np.save(data / "image_feat.npy", features)
    settings = small.settings("vbpr", data)
    with pytest.raises(DivergedError, match=r"not finite at step \d+, batch \d+ of 34 of epoch 1 "):
        experiment.train(settings_of(settings), tmp_path / "run")
