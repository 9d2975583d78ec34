"""The JSON has the promised keys, the text has one line for each row, and both have the same figures."""

import dataclasses
import json
import pathlib

import numpy as np
import pytest

from drex_jax.common.errors import UserError
from tools.benchmarks import streams, table
from tools.benchmarks.peaks import Peaks
from tools.benchmarks.timing import Rate

PEAKS = Peaks(flops_per_second=1e9, bytes_per_second=1e8)
ROW = table.Row("critical_path", "jax", "float32", True, 1, 100, 8, 11, 14, 20, 0.625, Rate(2000.0, 1900.0, 2100.0))
KEYS = {
    *("implementation", "framework", "dtype", "exact", "bptt_windows", "width", "depth", "bound", "steps", "fill"),
    *("forward_per_second", "train_per_second", "step_us", "train_step_us", "compile_seconds", "temp_bytes"),
}


@pytest.fixture
def case() -> table.Case:
    return table.Case(streams.synthetic(100), state_size=8, feature_size=4, repeats=3)


def test_json_has_the_promised_keys(case: table.Case, tmp_path: pathlib.Path) -> None:
    table.write_json(tmp_path / "profile.json", table.document(case, "cpu", PEAKS, [ROW], {"update": 0.5}, 7))
    profile = json.loads((tmp_path / "profile.json").read_text())
    assert list(profile) == ["device", "stream", "peaks", "rows", "parts", "peak_bytes"]
    assert (profile["parts"], profile["peak_bytes"]) == ({"update": 0.5}, 7)
    assert profile["stream"] == {
        **{"name": "synthetic", "interactions": 100, "users": 10, "items": 5, "user_skew": 0.5, "item_skew": 0.8},
        **{"seed": 0, "state_size": 8, "feature_size": 4},
    }
    assert profile["peaks"] == {"flops_per_second": 1e9, "bytes_per_second": 1e8}
    row = profile["rows"][0]
    assert set(row) >= KEYS
    assert (row["forward_per_second"], row["train_per_second"], row["compile_seconds"]) == (2000.0, None, None)
    assert row["forward_spread"] == [1900.0, 2100.0]
    assert row["step_us"] == pytest.approx(1e6 * 100 / 2000 / 20)
    assert row["train_step_us"] is None


def test_text_is_aligned_and_says_what_was_not_measured(case: table.Case) -> None:
    other = table.Row("t_batch_table", "torch", "float32", True, 1, 100, train=Rate(12_345.0, 12_345.0, 12_345.0))
    heading, *lines = table.text(case, PEAKS, [ROW, other]).splitlines()
    end = heading.index("forward/s") + len("forward/s")
    assert [line[:end].split()[-1] for line in lines] == ["2,000", "-"]
    assert "±" in heading
    assert lines[0][end:].split()[0] == "5%"
    assert "12,345" in lines[1]
    assert len({len(line) for line in (heading, *lines)}) == 1


def test_shares_are_of_the_work_that_the_equations_ask_for(case: table.Case) -> None:
    # Products of one interaction, [1, rows] x [rows, columns]: the projection, and own and partner of two cells.
    products = [(4, 6 * 8), (8, 3 * 8), (8, 3 * 8), (8, 3 * 8), (8, 3 * 8)]
    assert case.forward_flops == sum(2 * rows * columns for rows, columns in products)
    cells = table.text(case, PEAKS, [ROW]).splitlines()[1].split()
    assert cells[-4] == f"{2000 * case.forward_flops / 1e9:.1%}"
    assert cells[-2] == f"{2000 * case.forward_bytes / 1e8:.1%}"


def test_training_takes_every_product_once_more_for_its_weights_and_those_of_states_once_more_for_them(case) -> None:
    states = 2 * 4 * 8 * 3 * 8
    assert case.train_flops == 2 * (case.forward_flops - states) + 3 * states


def test_the_best_rows_are_compared() -> None:
    rates = [Rate(rate, rate, rate) for rate in (100.0, 200.0, 300.0, 600.0)]
    row = table.Row("critical_path", "jax", "float32", True, 1, 100, forward=rates[3], train=rates[2])
    slower = dataclasses.replace(row, forward=rates[3], train=rates[0])
    rounded = dataclasses.replace(row, dtype="bfloat16", train=rates[3])
    peer = dataclasses.replace(row, framework="torch", implementation="t_batch_table", forward=rates[1], train=rates[1])
    assert table.comparison([slower, row, peer, rounded]) == [
        "critical_path trains 1.50 and runs forward 3.00 times as fast as torch t_batch_table"
    ]
    assert table.comparison([peer]) == []


def test_features_are_the_same_at_every_call(case: table.Case) -> None:
    np.testing.assert_array_equal(case.features(), case.features())
    assert case.features().shape == (100, 4)


def test_a_file_that_cannot_be_written_is_named(case: table.Case, tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file/profile\.json"):
        table.write_json(tmp_path / "file" / "profile.json", table.document(case, "cpu", PEAKS, [], {}, 0))
