"""Each kind of leak is planted in a table and found; the results equal those of a slow search."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from drex_jax.data import events
from drex_jax.data.interactions import Interactions
from drex_jax.data.split import split_interactions
from drex_jax.data.strings import Strings
from drex_jax.evaluation import leaks


def table(rows: list[tuple[int, int, float, str]]) -> Interactions:
    """Return a table from rows (user, item, time, text)."""
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


def of_split(times: list[float], kind: str, given: list[int] | None = None) -> list[str]:
    """Return the leaks of the future in a split of the interactions of two users at these times."""
    rows = [(int(2 * number >= len(times)), 0, time, "") for number, time in enumerate(times)]
    interactions = dataclasses.replace(table(rows), given_split=None if given is None else np.array(given, np.int8))
    parts = split_interactions(interactions, kind)
    ordered = events.in_learning_order(interactions, parts)
    return leaks.future(kind, ordered.timestamp, (len(parts.train), len(parts.validation), len(parts.test)))


def test_a_split_by_time_shows_no_future() -> None:
    assert of_split([*range(20)], "global_time") == []
    assert of_split([*range(4)], "given", [0, 0, 1, 2]) == []


@pytest.mark.parametrize(("kind", "given"), [("leave_last_out", None), ("random", None), ("given", [1, 2, 0, 0])])
def test_other_splits_show_the_future(kind: str, given: list[int] | None) -> None:
    times = [0.0, 1.0, 1.0, 2.0] if given else [*map(float, range(40))]
    sentences = of_split(times, kind, given)
    assert len(sentences) == 2
    assert all(sentence.startswith(f"split {kind} leaks the future") for sentence in sentences)


def test_how_much_of_the_future_is_seen() -> None:
    time = np.array([0.0, 1.0, 4.0, 6.0, 4.0, 5.0, 7.0])
    assert leaks.future("given", time, (4, 2, 1)) == [
        "split given leaks the future: 50.0% of the train interactions are not earlier than the first validation "
        "interaction"
    ]
    (sentence,) = leaks.future("given", time[[0, 1, 2, 4, 5, 3, 3]], (4, 2, 1))[-1:]
    assert "16.7% of the train and validation interactions are not earlier than the first test" in sentence


def slow(rows: list[tuple[int, int, float, str]], sizes: tuple[int, int, int]) -> tuple[int, int]:
    """Count reviews on both sides of a boundary, and one user's texts there about different items."""
    part = [0] * sizes[0] + [1] * sizes[1] + [2] * sizes[2]
    pairs = [(a, b) for k, a in enumerate(rows) for j, b in enumerate(rows) if part[k] != part[j] and a[3]]
    pairs = [(a, b) for a, b in pairs if (a[0], a[3]) == (b[0], b[3])]
    same = {(a[0], a[1], a[3]) for a, b in pairs if a[1] == b[1]}
    return len(same), len({(a[0], a[3]) for a, b in pairs if a[1] != b[1]})


def test_copies_within_a_part_do_not_leak() -> None:
    rows = [(0, 0, 1.0, "good"), (0, 0, 2.0, "good"), (1, 0, 3.0, "good"), (1, 1, 4.0, ""), (1, 1, 5.0, "")]
    assert leaks.copies(table(rows), (3, 1, 1)) == []  # not copies: twice in one part, different users, or no text


def test_a_copy_is_found() -> None:
    rows = [(0, 0, 1.0, "good"), (1, 0, 5.0, ""), (0, 0, 3.0, "good"), (0, 0, 5.0, "good"), (1, 1, 4.0, "bad")]
    found = leaks.copies(table(rows), (2, 2, 1))
    assert found == ["1 reviews stand on both sides of a boundary: same user, item and text"]
    rows[2], rows[3] = (0, 1, 3.0, "good"), (0, 1, 5.0, "god")
    assert leaks.copies(table(rows), (2, 2, 1)) == [
        "1 texts stand on both sides of a boundary: same user, different items"
    ]


@pytest.mark.parametrize("seed", range(8))
def test_random_tables_equal_the_slow_search(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = [
        (int(u), int(i), float(t), ["", "good", "bad"][w])
        for u, i, t, w in zip(*rng.integers(0, 3, (3, 14)), rng.integers(0, 3, 14), strict=True)
    ]
    rows = [(u, i, t + k * (seed % 3), w) for k, (u, i, t, w) in enumerate(rows)]
    sizes = (7, 4, 3)
    counts = [count for count in slow(rows, sizes) if count]
    assert [int(sentence.split()[0]) for sentence in leaks.copies(table(rows), sizes)] == counts


def test_a_core_is_chosen_with_hindsight() -> None:
    assert leaks.core(0) == leaks.core(1) == []
    assert [sentence.split(":")[0] for sentence in leaks.core(5)] == ["data.k_core=5"]


def test_an_item_is_ranked_only_once_it_is_there() -> None:
    item = np.array([0, 1, 1, 0, 2, 2, 3], np.int32)  # train is the first three interactions: items 0 and 1
    lists = {"item": np.array([1, 2]), "lists": np.array([0, 0]), "ranks": np.array([2, 0])}
    assert leaks.ranked_before_first_seen(item, lists, 3) == 0
    assert leaks.ranked_before_first_seen(item, lists | {"ranks": np.array([2, 1])}, 3) == 1  # not in train
    assert (
        leaks.ranked_before_first_seen(item, lists | {"ranks": np.array([3, 0])}, 3) == 1
    )  # rank 3, but train has two items
    moments = {"interaction": np.array([4, 5, 6]), "lists": np.arange(3), "ranks": np.array([0, 1, 0])}
    assert leaks.ranked_before_first_seen(item, moments, 3) == 0
    assert (
        leaks.ranked_before_first_seen(item, moments | {"ranks": np.array([1, 3, 1])}, 3) == 2
    )  # rank 3 of three items is possible
    assert leaks.ranked_before_first_seen(item, moments | {"ranks": np.array([0, 4, 0])}, 3) == 1
