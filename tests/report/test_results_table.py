"""The results table shows metrics, data, deviations over seeds, and leaks."""

import copy
import statistics
from typing import Any

from drex_jax.report import results_table

RESULTS: dict[str, Any] = {
    "model": "drex",
    "dataset": {"name": "review world", "sha256": "ab" * 32, "users": 300, "items": 200, "interactions": 6000},
    "split": {
        "kind": "global_time",
        "sizes": {"train": 4800, "validation": 600, "test": 600},
        "boundaries": {"validation": 86400.0, "test": 1e9},
    },
    "protocol": "strict",
    "seeds": [3, 4, 5],
    "selection": {"metric": "mse", "value": 0.31, "epoch": 7},
    "test": {
        "prequential": {"mse": 0.30, "rmse": 0.55, "ndcg@5": 0.1, "ndcg@10": 0.125, "rated_items/ndcg@10": 0.9},
        "frozen": {"mse": 0.4, "ndcg@10": 0.2},
    },
    "per_seed": [
        {"prequential": {"mse": 0.29, "ndcg@10": 0.125}, "frozen": {"mse": 0.4}},
        {"prequential": {"mse": 0.30, "ndcg@10": 0.125}, "frozen": {"mse": 0.4}},
        {"prequential": {"mse": 0.31, "ndcg@10": 0.125}, "frozen": {"mse": 0.4}},
    ],
    "baselines": {
        "running_bias": {"test": {"prequential": {"mse": 0.35, "rmse": 0.6}}, "per_seed": []},
        "popularity": {"test": {"prequential": {"ndcg@10": 0.05}, "frozen": {"ndcg@10": 0.07}}},
    },
    "leaks": [],
    "notices": ["synthetic data; noise floor MSE 0.27"],
}


def rows(text: str, way: str) -> dict[str, list[str]]:
    """Return the cells of one way's table by the name of the row."""
    lines = text.split(f"test, {way}")[1].split("\n\n")[0].splitlines()[1:]
    cells = [[cell for cell in line.split("  ") if cell.strip()] for line in lines]
    return {"": [cell.strip() for cell in cells[0]]} | {
        row[0].strip(): [c.strip() for c in row[1:]] for row in cells[1:]
    }


def test_tables() -> None:
    text = results_table.format_results(RESULTS)
    prequential = rows(text, "prequential")
    assert prequential[""] == ["mse", "rmse", "ndcg@10", "rated_items/ndcg@10"]
    spread = statistics.stdev([0.29, 0.30, 0.31])
    assert prequential["drex"] == [f"0.3000 ±{spread:.4f}", "0.5500", "0.1250 ±0.0000", "0.9000"]
    assert prequential["running_bias"] == ["0.3500", "0.6000", "-", "-"]
    assert prequential["popularity"] == ["-", "-", "0.0500", "-"]
    frozen = rows(text, "frozen")
    assert list(frozen) == ["", "drex", "popularity"]  # the running bias was not measured frozen
    assert frozen["drex"] == ["0.4000 ±0.0000", "0.2000"]


def test_facts() -> None:
    text = results_table.format_results(RESULTS)
    for fact in (
        "review world: 6,000 interactions, 300 users, 200 items (sha256 abababababab)",
        "global_time: 4,800 train, 600 validation, 600 test",
        "validation from 1970-01-02 00:00:00 UTC, test from 2001-09-09 01:46:40 UTC",
        "epoch 7, validation mse 0.3100",
        "seeds    3 4 5",
        "notice   synthetic data; noise floor MSE 0.27",
        "leak     none known",
    ):
        assert fact in text


def test_leaks_are_printed() -> None:
    leaking = copy.deepcopy(RESULTS) | {"leaks": ["random split: the future is in train"]}
    assert "leak     random split: the future is in train" in results_table.format_results(leaking)


def test_ranking_only_model_and_other_cutoffs() -> None:
    results = copy.deepcopy(RESULTS)
    results |= {"test": {"ranking": {"recall@20": 0.1, "recall@50": 0.2}}, "per_seed": [], "baselines": {}}
    assert rows(results_table.format_results(results), "ranking") == {"": ["recall@20"], "drex": ["0.1000"]}


def test_a_model_that_only_ranks_shows_the_usual_cutoffs() -> None:
    names = [f"{name}@{cutoff}" for name in ("recall", "precision", "f1", "ndcg", "map") for cutoff in (5, 10, 20, 50)]
    figures = {name: place / 100 for place, name in enumerate(names)} | {"lists": 9.0}
    results = RESULTS | {"model": "crane", "test": {"ranking": figures}, "per_seed": [], "baselines": {}}
    shown = rows(results_table.format_results(results), "ranking")
    expected = [f"{name}@{cutoff}" for name in ("recall", "precision", "ndcg", "map") for cutoff in (10, 20)]
    assert shown[""] == expected
    assert shown["crane"] == [f"{figures[name]:.4f}" for name in expected]
    results["test"] = {"ranking": {"recall@50": 0.5, "recall@30": 0.4, "map@30": 0.25}}
    assert rows(results_table.format_results(results), "ranking")[""] == ["recall@30", "map@30"]
