"""Fingerprints of texts and arrays."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np


def sha256_of(parts: Iterable[str | bytes | np.ndarray]) -> str:
    """Return the SHA-256 of texts (as UTF-8) and of the bytes of arrays, one part after the other, as hexadecimal.

    >>> sha256_of(["rating", np.arange(3, dtype=np.int32)])[:12]
    '7ffb08f4395a'
    """
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            digest.update(np.ascontiguousarray(part).reshape(-1).view(np.uint8).data)
        else:
            digest.update(part.encode() if isinstance(part, str) else part)
    return digest.hexdigest()
