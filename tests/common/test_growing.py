"""Arrays that grow are the concatenation of what was appended."""

from __future__ import annotations

import numpy as np

from drex_jax.common.growing import GrowingArray


def test_rows_are_appended() -> None:
    start = np.arange(6, dtype=np.int32).reshape(3, 2)
    grown, expected = GrowingArray(start), [start]
    for count in (0, 1, 1, 30, 2):
        rows = np.full((count, 2), count, np.int32)
        grown.extend(rows)
        expected.append(rows)
        np.testing.assert_array_equal(grown.values, np.concatenate(expected))
    assert grown.values.dtype == np.int32
    assert start[0, 0] == 0


def test_new_rows_hold_the_fill_value() -> None:
    grown = GrowingArray(np.zeros(1), fill=np.nan)
    grown.resize(0)
    assert len(grown) == 1
    grown.resize(40)
    assert np.isnan(grown.values[1:]).all()
    assert len(grown.values) == len(grown) == 40
