"""Sides are indices of pairs and words of messages."""

from __future__ import annotations

from drex_jax.common.sides import Side


def test_a_side_is_an_index_and_a_word() -> None:
    assert [("users", "items")[side] for side in Side] == ["users", "items"]
    assert [side.label for side in Side] == ["user", "item"]
    assert Side.USER.other is Side.ITEM
    assert Side.ITEM.other is Side.USER
