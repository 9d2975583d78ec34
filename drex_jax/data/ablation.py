"""Ablation: remove modalities from train interactions, to measure what they contribute."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np

from drex_jax.common.settings import setting, share
from drex_jax.data.events import Events


@dataclasses.dataclass(frozen=True)
class MissingSettings:
    """`data.missing`: shares of train interactions that lose a modality (ablation)."""

    rating: float = setting(0.0, share(), "share of train interactions that lose their rating")
    text: float = setting(0.0, share(), "share of train interactions that lose their review")
    time: float = setting(0.0, share(), "share of train interactions that lose their time")
    vectors: float = setting(0.0, share(), "share of train interactions that lose their vectors")


Blank = Callable[[Events, np.ndarray], Events]


def without_rating(events: Events, missing: np.ndarray) -> Events:
    """Return the events without the ratings of `missing` (bool [n])."""
    return dataclasses.replace(events, rating=np.where(missing, np.float32(np.nan), events.rating))


def without_time(events: Events, missing: np.ndarray) -> Events:
    """Return the events without the times of `missing` (bool [n]); their order stays."""
    return dataclasses.replace(events, timestamp=np.where(missing, np.nan, events.timestamp))


def without_text(events: Events, missing: np.ndarray) -> Events:
    """Return the events without the texts of `missing` (bool [n])."""
    tokens = events.tokens
    if tokens is None:
        return events
    return dataclasses.replace(events, tokens=tokens.keep(np.repeat(~missing, tokens.lengths)))


def without_vector(name: str) -> Blank:
    """Return a function that removes the vectors `name` of some events."""

    def without(events: Events, missing: np.ndarray) -> Events:
        values = np.where(missing[:, None], np.float32(np.nan), events.vectors[name])
        return dataclasses.replace(events, vectors=events.vectors | {name: values})

    return without


def without_vectors(events: Events, missing: np.ndarray) -> Events:
    """Return the events without any vector of `missing` (bool [n])."""
    for name in events.vectors:
        events = without_vector(name)(events, missing)
    return events


BLANKS: dict[str, Blank] = {
    "rating": without_rating,
    "text": without_text,
    "time": without_time,
    "vectors": without_vectors,
}


def drop_modalities(events: Events, num_train: int, shares: Mapping[str, float], seed: int) -> Events:
    """Return the events after some train interactions lost a modality.

    Args:
      events: interactions in learning order.
      num_train: number of train interactions; the later ones stay unchanged.
      shares: for each name of `BLANKS` the share of train interactions that lose it. A larger share removes it from the
        same interactions and more; the draws of two modalities are independent.
      seed: seed of the draws.
    """
    draws = np.random.default_rng(seed).random((len(BLANKS), len(events)))
    draws[:, num_train:] = 1.0
    for (name, blank), draw in zip(BLANKS.items(), draws, strict=True):
        if shares[name] > 0:
            events = blank(events, draw < shares[name])
    return events
