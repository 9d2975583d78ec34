"""Reviews on both sides of a split, compared with a slow search."""

from __future__ import annotations

import numpy as np
import pytest

from drex_jax.data import leaks
from drex_jax.data.interactions import Interactions
from drex_jax.data.strings import Strings


def table(rows: list[tuple[int, int, float, str]]) -> Interactions:
    """Rows of (user, item, time, text)."""
    user, item, time, text = zip(*rows, strict=True)
    return Interactions(
        name="made up",
        user_ids=Strings.of(f"u{number}" for number in range(max(user) + 1)),
        item_ids=Strings.of(f"i{number}" for number in range(max(item) + 1)),
        user=np.array(user, np.int32),
        item=np.array(item, np.int32),
        timestamp=np.array(time, np.float64),
        rating=np.full(len(rows), np.nan, np.float32),
        text=Strings.of(text),
    )


def slow(rows: list[tuple[int, int, float, str]], sizes: tuple[int, int, int]) -> int:
    """Reviews on both sides of a boundary."""
    part = [0] * sizes[0] + [1] * sizes[1] + [2] * sizes[2]
    copies = {
        (a[0], a[1], a[3])
        for k, a in enumerate(rows)
        for j, b in enumerate(rows)
        if part[k] < part[j] and a[3] and (a[0], a[1], a[3]) == (b[0], b[1], b[3])
    }
    return len(copies)


def test_copies_within_a_part_do_not_leak() -> None:
    rows = [(0, 0, 1.0, "good"), (0, 0, 2.0, "good"), (1, 0, 3.0, "good"), (1, 1, 4.0, ""), (1, 1, 5.0, "")]
    assert leaks.found(table(rows), (3, 1, 1)) == []  # twice in one part, other users, and no text: no copies


def test_a_copy_is_found() -> None:
    rows = [(0, 0, 1.0, "good"), (1, 0, 5.0, ""), (0, 0, 3.0, "good"), (0, 0, 5.0, "good"), (1, 1, 4.0, "bad")]
    found = leaks.found(table(rows), (2, 2, 1))
    assert found == ["1 reviews stand on both sides of a boundary: same user, item and text"]


@pytest.mark.parametrize("seed", range(8))
def test_random_tables_equal_the_slow_search(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = [
        (int(u), int(i), float(t), ["", "good", "bad"][w])
        for u, i, t, w in zip(*rng.integers(0, 3, (3, 14)), rng.integers(0, 3, 14), strict=True)
    ]
    rows = [(u, i, t + k * (seed % 3), w) for k, (u, i, t, w) in enumerate(rows)]
    sizes = (7, 4, 3)
    count = slow(rows, sizes)
    assert [int(sentence.split()[0]) for sentence in leaks.found(table(rows), sizes)] == [count] * (count > 0)


def test_a_core_is_chosen_with_hindsight() -> None:
    rows = [(0, 0, float(time), "") for time in range(5)]
    assert leaks.found(table(rows), (3, 1, 1), k_core=1) == []
    assert [sentence.split(":")[0] for sentence in leaks.found(table(rows), (3, 1, 1), k_core=5)] == ["data.k_core=5"]
