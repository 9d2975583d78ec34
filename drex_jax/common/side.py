"""The two sides of an interaction."""

from __future__ import annotations

import enum


class Side(enum.StrEnum):
    """Users or items. The values are the names of fields, columns and parameters."""

    USER = "user"
    ITEM = "item"

    @property
    def other(self) -> Side:
        """The side that this one interacts with."""
        return Side.ITEM if self is Side.USER else Side.USER
