"""PyTorch's full ranking and ours give the same metrics."""

import dataclasses

import numpy as np
import pytest

from drex_jax.common.errors import UserError
from tools.benchmarks import evaluation


def test_both_find_the_same_metrics() -> None:
    pytest.importorskip("torch", reason="PyTorch is not installed: no peer to check")
    problem = dataclasses.replace(evaluation.synthetic(60, 40, 300, size=5), cutoffs=(1, 5, 50))
    keys = problem.masked[0] * 40 + problem.masked[1]  # the peer would rank relevant items that are masked
    kept = ~np.isin(problem.relevant[0] * 40 + problem.relevant[1], keys)
    problem = dataclasses.replace(problem, relevant=tuple(column[kept] for column in problem.relevant))
    found, expected = evaluation.ours(problem, 16)(), evaluation.torch_full_ranking(problem, 7)()
    assert found == pytest.approx(expected)
    assert 0 < found["recall@1"] < found["recall@5"] < 1


def test_calls_take_turns_after_one_that_does_not_count() -> None:
    called = []

    def call(name: str) -> evaluation.Evaluate:
        return lambda: called.append(name) or {}

    seconds = evaluation.alternate({"a": call("a"), "b": call("b")}, repeats=2)
    assert called == ["a", "b"] * 3
    assert {name: len(times) for name, times in seconds.items()} == {"a": 2, "b": 2}


def test_without_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.import_module", lambda name: (_ for _ in ()).throw(ImportError(name)))
    with pytest.raises(UserError, match="pip install torch"):
        evaluation.torch_full_ranking(evaluation.synthetic(3, 3, 3))
