"""Paired comparison of runs made by hand: its figures, and the input that it refuses in one line."""

from __future__ import annotations

import json
import pathlib
import re
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import scipy.stats

from drex_jax import main
from drex_jax.evaluation import comparison
from drex_jax.metrics.ranking import ranking_per_list
from drex_jax.runs.lists import read_lists, write_lists

TOOL = pathlib.Path(__file__).parents[2] / "tools" / "compare.py"
LISTS = 60
USERS = np.arange(LISTS) * 3
RELEVANT = np.repeat(np.arange(LISTS), np.arange(LISTS) % 3 + 1)  # the list of each relevant item
RATING = np.random.default_rng(0).integers(1, 6, 40).astype(np.float32)


def ranks_of(seed: int, best: int) -> np.ndarray:
    """Return different ranks for each list's items, starting at `best`, with some misses."""
    rng = np.random.default_rng(seed)
    ranks = np.empty(len(RELEVANT), np.int64)
    for number in range(LISTS):
        mine = number == RELEVANT
        ranks[mine] = rng.choice(np.arange(best, best + 40), mine.sum(), replace=False)
    ranks[rng.random(len(ranks)) < 0.1] = 0
    return ranks


def make_run(
    folder: pathlib.Path,
    best: int = 1,
    seeds: tuple[int, ...] = (0,),
    error: float | None = None,
    baseline: bool = False,
    users: np.ndarray = USERS,
    **changes: Any,
) -> pathlib.Path:
    """Write a run directory with the lists of its seeds; a smaller `best` and `error` are better. Return its path."""
    split = {"kind": "given", "sizes": {"train": 9, "test": 3}, "boundaries": {"test": 5.0}}
    facts = {"dataset": {"sha256": "a" * 64}, "split": split, "protocol": "mmrec"} | changes
    way = "ranking" if error is None else "prequential"
    metrics = {"recall@20": 0.0, "ndcg@10": 0.0, "lists": 60.0, "rated_items/ndcg@10": 0.0}
    results = {"model": folder.name, "seeds": seeds, "test": {way: metrics}, **({} if baseline else facts)}
    for seed in seeds:
        of_seed = folder if seed == seeds[0] else folder / "replicas" / str(seed)
        arrays = {"user": users, "ranks": ranks_of(seed + 100 * best, best), "lists": RELEVANT}
        if error is not None:
            metrics["mse"] = metrics["mae"] = 0.0
            wrong = error * np.random.default_rng(seed).normal(size=40)
            arrays |= {"interaction": np.arange(LISTS), "row": np.arange(40) + 7, "rating": RATING}
            arrays |= {"predicted": (RATING + wrong).astype(np.float32)}
        write_lists(of_seed / "lists" / f"{way}.npz", arrays)
    (folder / "results.json").write_text(json.dumps(results))
    return folder


def twin(path: pathlib.Path, seeds: tuple[int, ...], best: int, metric: str) -> np.ndarray:
    """Compute the value of each list from its ranks, averaged over seeds."""
    cutoff = int(metric.split("@")[1])
    values = [ranking_per_list(ranks_of(seed + 100 * best, best), RELEVANT, LISTS, [cutoff])[metric] for seed in seeds]
    return np.mean(values, axis=0)


@pytest.mark.parametrize("metric", ["recall@20", "ndcg@10"])
def test_figures_equal_those_of_the_lists(metric: str, tmp_path: pathlib.Path) -> None:
    runs = [
        make_run(tmp_path / "good", 1, (4, 5, 6)),
        make_run(tmp_path / "bad", 25, (0, 1)),
        make_run(tmp_path / "good" / "baselines" / "popularity", 3, baseline=True),
    ]
    found = comparison.compare(runs, None, metric, 0.9)
    values = [twin(runs[0], (4, 5, 6), 1, metric), twin(runs[1], (0, 1), 25, metric), twin(runs[2], (0,), 3, metric)]
    assert (found["way"], found["lists"], found["confidence"]) == ("ranking", LISTS, 0.9)
    for entry, value, seeds in zip(found["runs"], values, ([4, 5, 6], [0, 1], [0]), strict=True):
        assert entry["seeds"] == seeds
        assert len(entry["values"]) == len(seeds)
        assert entry["mean"] == pytest.approx(value.mean())
        spread = np.std(entry["values"], ddof=1) if len(seeds) > 1 else None
        assert entry["deviation"] == (spread if spread is None else pytest.approx(spread))
    p_values = [scipy.stats.wilcoxon(values[0] - other).pvalue for other in values[1:]]
    for one, other, p in zip(found["comparisons"], values[1:], p_values, strict=True):
        assert one["difference"] == pytest.approx(values[0].mean() - other.mean())
        assert one["low"] < one["difference"] < one["high"]
        assert one["wilcoxon_p"] == pytest.approx(p)
    assert found["comparisons"][0]["low"] > 0  # it is much better than the bad one
    small, large = sorted(p_values)
    assert sorted(one["holm_p"] for one in found["comparisons"]) == pytest.approx(
        [min(1, 2 * small), max(min(1, 2 * small), large)]
    )


def test_errors_of_ratings(tmp_path: pathlib.Path) -> None:
    runs = [make_run(tmp_path / "a", error=0.5), make_run(tmp_path / "b", error=1.5)]
    found = comparison.compare(runs, "prequential", "mse", 0.95)
    wrong = np.random.default_rng(0).normal(size=40)
    assert found["lists"] == 40
    assert found["runs"][0]["mean"] == pytest.approx(np.mean((0.5 * wrong) ** 2), rel=1e-5)
    assert found["comparisons"][0]["difference"] == pytest.approx((0.25 - 2.25) * np.mean(wrong**2), rel=1e-5)
    assert found["comparisons"][0]["high"] < 0
    assert comparison.compare(runs, None, "mae", 0.95)["runs"][1]["mean"] == pytest.approx(1.5 * abs(wrong).mean())


def test_the_command_prints_a_table_and_writes_json(tmp_path: pathlib.Path) -> None:
    runs = [make_run(tmp_path / "first", 1, (0, 1)), make_run(tmp_path / "second", 25)]
    file = tmp_path / "out" / "comparison.json"
    command = [sys.executable, str(TOOL), *map(str, runs), f"--json={file}", "--confidence=.9"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(file.read_text()) == comparison.compare(runs, None, "recall@20", 0.9)
    for words in ("recall@20 of 60 lists", "90% interval", str(runs[1]), "after Holm", "±"):
        assert words in done.stdout


REFUSALS = {
    "no run": (lambda f: f, [], "is no finished run"),
    "unfinished": (lambda f: make_run(f / "baselines" / "bpr", baseline=True), [], "not finished"),
    "data": (lambda f: make_run(f, dataset={"sha256": "b" * 64}), [], r"sha256.*aaaa.*bbbb"),
    "split": (lambda f: make_run(f, split={"kind": "global_time", "sizes": {}}), [], "split given and global_time"),
    "protocol": (lambda f: make_run(f, protocol="strict"), [], "protocol mmrec and strict"),
    "way": (lambda f: make_run(f), ["--way=frozen"], "no --way=frozen; it has ranking"),
    "metric": (lambda f: make_run(f), ["--metric=recall@7"], r"no --metric=recall@7 .* it has recall@20 ndcg@10$"),
    "own items": (lambda f: make_run(f), ["--metric=rated_items/ndcg@10"], "no --metric=rated_items/ndcg@10"),
    "lists": (lambda f: make_run(f, users=USERS + 1), [], "other lists: 60 of 60 differ in user"),
    "seeds": (lambda f: make_run(f, split={"kind": "random", "sizes": {}}, seeds=(3,)), [], "random"),
    "confidence": (lambda f: make_run(f), ["--confidence=1"], "--confidence=1 must be"),
    "flag": (lambda f: make_run(f), ["--wat"], "--wat"),
}


def drex(arguments: Sequence[str]) -> int:
    return main.run(["drex", "compare", *arguments])


@pytest.mark.parametrize("case", REFUSALS)
def test_refused_in_one_line(case: str, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    make, flags, message = REFUSALS[case]
    first = make_run(tmp_path / "first", **({"split": {"kind": "random", "sizes": {}}} if case == "seeds" else {}))
    other = make(tmp_path / "other")
    assert drex([str(first), str(other), *flags]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("drex_jax: ")
    assert said.err.count("\n") == 1
    assert re.search(message, said.err.strip())


def test_one_run_lost_and_damaged_lists(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [str(make_run(tmp_path / name)) for name in "ab"]
    assert drex(runs[:1]) == 2
    lists = tmp_path / "b" / "lists" / "ranking.npz"
    content = lists.read_bytes()
    for damaged in (content[: len(content) // 2], b"", content.replace(b"ranks", b"rinks")):
        lists.write_bytes(damaged)
        assert drex(runs) == 2
        assert "damaged" in capsys.readouterr().err
    lists.unlink()
    assert drex(runs) == 2
    assert "cannot be read" in capsys.readouterr().err
    make_run(tmp_path / "b", error=1.0)
    arrays = read_lists(tmp_path / "b" / "lists" / "prequential.npz")
    arrays["predicted"][0] = np.nan
    write_lists(tmp_path / "b" / "lists" / "prequential.npz", arrays)
    assert drex([runs[1], runs[1], "--metric=mse"]) == 2
    assert "mse of 1 lists is not finite" in capsys.readouterr().err
