"""Run models that only rank, end to end, on a folder in MMRec's layout that the tests write."""

from __future__ import annotations

import pathlib
import signal
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest

from drex_jax.common.errors import Stopped
from drex_jax.devices.mesh import Devices
from drex_jax.models.registry import entry_of
from drex_jax.training import experiment
from drex_jax.training.settings import ranking, read_settings, settings_of

METRICS = ("recall", "precision", "ndcg", "map")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Write 14 users with 5 of 12 items: three train, one validation, one test. One item has no image."""
    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("tiny")
    rows = ["userID\titemID\trating\ttimestamp\tx_label"]
    for user in range(14):
        for place, item in enumerate(rng.choice(12, 5, replace=False)):
            rows.append(f"{user}\t{item}\t1.0\t{user * 5 + place}\t{max(0, place - 2)}")
    (folder / "tiny.inter").write_text("\n".join(rows) + "\n")
    image = rng.normal(0, 1, (12, 5)).astype(np.float32)
    image[3] = 0
    np.save(folder / "image_feat.npy", image)
    np.save(folder / "text_feat.npy", rng.normal(0, 1, (12, 4)).astype(np.float32))
    return folder


def settings(name: str, folder: pathlib.Path) -> Any:
    settings: Any = ranking(name, "tiny", "tiny")
    settings.data.path = str(folder)
    wanted = {"size": 4, "batch_size": 9, "neighbours": 3}
    reads = entry_of(name).reads_field
    settings.ranker.update({field: value for field, value in wanted.items() if reads(f"ranker.{field}")})
    settings.train.update(epochs=2, selection="recall@5")
    settings.evaluate.update(cutoffs=(5, 10), block=8)
    if name == "crane":
        settings.crane.rounds = 1
    settings.baselines = ()
    settings.devices.update(count=1, mapping="none")
    return settings


def test_a_run_stopped_and_evaluated_again(
    folder: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = settings("crane", folder)
    results = experiment.train(settings_of(options), tmp_path / "whole")
    assert set(results["test"]) == {"ranking"}
    assert set(results["test"]["ranking"]) >= {
        f"{m}@{k}" for m in ("recall", "precision", "ndcg", "map") for k in (5, 10)
    }
    assert all(np.isfinite(value) for value in results["test"]["ranking"].values())
    assert results["selection"]["metric"] == "recall@5"
    again = experiment.evaluate(tmp_path / "whole")
    assert again["test"] == results["test"]

    compile_for, calls = Devices.compile_for, []

    def interrupted(self: Devices, *arguments: Any, **named: Any) -> Callable[..., Any]:
        compiled = compile_for(self, *arguments, **named)

        def step(*arguments: Any) -> Any:
            calls.append(arguments)
            if len(calls) == 1:
                signal.raise_signal(signal.SIGTERM)
            return compiled(*arguments)

        return step

    monkeypatch.setattr(Devices, "compile_for", interrupted)
    with pytest.raises(Stopped):
        experiment.train(settings_of(options), tmp_path / "stopped")
    assert not (tmp_path / "stopped" / "results.json").exists()
    monkeypatch.undo()
    resumed = experiment.train(settings_of(options), tmp_path / "stopped")
    assert resumed["timing"]["resumed_from"]
    assert resumed["test"] == results["test"]
    assert resumed["selection"] == results["selection"]
    logs = [(tmp_path / run / "metrics.jsonl").read_bytes() for run in ("whole", "stopped")]
    assert logs[0] == logs[1]  # every loss and gradient norm, bitwise
    whole, stopped = (_params(tmp_path / run) for run in ("whole", "stopped"))
    jax.tree.map(np.testing.assert_array_equal, whole, stopped)


def _params(workdir: pathlib.Path) -> Any:
    from drex_jax.runs.dataset import open_dataset
    from drex_jax.runs.trained import load_trained
    from drex_jax.training import registry

    options = read_settings(workdir / "config.json")
    dataset, context = open_dataset(options, workdir), registry.context(options)
    stream = registry.build(options.model.name, options, dataset, 0, context)
    return load_trained(stream, workdir)[0]
