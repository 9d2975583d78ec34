"""The two sides of an interaction."""

from __future__ import annotations

import enum


class Side(enum.IntEnum):
    """A side of an interaction: its user, or its item.

    A side is also an index: `states[Side.ITEM]` are the items' states of a pair (users, items), and `for side in Side`
    visits both in that order.
    """

    USER = 0
    ITEM = 1

    @property
    def label(self) -> str:
        """The word for it in messages, file names and JSON: `user` or `item`."""
        return self.name.lower()

    @property
    def other(self) -> Side:
        """The opposite side."""
        return Side(1 - self)
