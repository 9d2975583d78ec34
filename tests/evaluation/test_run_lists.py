"""A run stores the lists behind its test metrics, and the comparison reads them."""

from __future__ import annotations

import json
import pathlib

import pytest

from drex_jax.cli import compare
from drex_jax.devices import processes
from drex_jax.metrics.ranking import ranking_per_list
from drex_jax.report import results_table
from drex_jax.runs.layout import RunLayout
from drex_jax.runs.lists import read_lists
from drex_jax.training import experiment
from drex_jax.training.settings import base, settings_of


def test_a_ranker_run_can_be_compared(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = base()
    settings.data.synthetic.update(num_interactions=160, num_users=12, num_items=10, seed=1)
    settings.text.enabled = False
    settings.model.name = "popularity"
    settings.train.selection = "recall@5"
    settings.evaluate.cutoffs = (1, 5)
    settings.baselines = ()
    settings.devices.count = 1
    settings.replicas = 2
    written, write_json = [], processes.write_json

    def watched(path: pathlib.Path, value: object) -> None:
        if path.name == RunLayout(path.parent).record.name:
            written.append(RunLayout(path.parent).list_file("ranking").exists())
        write_json(path, value)

    monkeypatch.setattr(processes, "write_json", watched)
    results = experiment.train(settings_of(settings), tmp_path)
    assert written == [True, True]  # before the file that marks the seed as done
    assert set(results["test"]) == {"ranking"}
    for folder, figures in zip((tmp_path, tmp_path / "replicas" / "1"), results["per_seed"], strict=True):
        kept = read_lists(folder / "lists" / "ranking.npz")
        assert set(kept) == {"user", "item", "ranks", "lists"}
        values = ranking_per_list(kept["ranks"], kept["lists"], len(kept["user"]), (1, 5))
        assert {name: figures["ranking"][name] for name in values} == {n: float(v.mean()) for n, v in values.items()}
    assert "recall@5" in results_table.format_results(results)
    assert "ranking" in results["definitions"]
    file = tmp_path / "comparison.json"
    compare.run([str(tmp_path), str(tmp_path), "--metric=recall@5", f"--json={file}"])
    found = json.loads(file.read_text())
    assert found["runs"][0]["mean"] == pytest.approx(results["test"]["ranking"]["recall@5"])
    assert found["comparisons"][0]["wilcoxon_p"] == 1.0
