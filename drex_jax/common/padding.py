"""Sizes to pad arrays to, so that few shapes are compiled."""

from __future__ import annotations


def power_of_two(least: int) -> int:
    """Return the smallest power of two that is not below `least`; at least 1.

    >>> [power_of_two(least) for least in (0, 1, 5, 8)]
    [1, 1, 8, 8]
    """
    return 1 << max(int(least) - 1, 0).bit_length()
