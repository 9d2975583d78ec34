"""Interactions that lose a modality, to learn what it is worth."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np

from drex_jax.common.settings import setting, share
from drex_jax.data.events import Events


@dataclasses.dataclass(frozen=True)
class MissingSettings:
    """`data.missing`: shares of train interactions that lose a modality, to learn what it is worth."""

    rating: float = setting(0.0, share(), "share of train interactions that lose their rating")
    text: float = setting(0.0, share(), "share of train interactions that lose their review")
    time: float = setting(0.0, share(), "share of train interactions that lose their time")
    vectors: float = setting(0.0, share(), "share of train interactions that lose their vectors")


Blank = Callable[[Events, np.ndarray], Events]


def without_rating(events: Events, missing: np.ndarray) -> Events:
    """The events, of which the ratings of `missing` (bool [n]) are unknown."""
    return dataclasses.replace(events, rating=np.where(missing, np.float32(np.nan), events.rating))


def without_time(events: Events, missing: np.ndarray) -> Events:
    """The events, of which the times of `missing` (bool [n]) are unknown; their order stays."""
    return dataclasses.replace(events, timestamp=np.where(missing, np.nan, events.timestamp))


def without_text(events: Events, missing: np.ndarray) -> Events:
    """The events, of which the texts of `missing` (bool [n]) are empty."""
    tokens = events.tokens
    if tokens is None:
        return events
    return dataclasses.replace(events, tokens=tokens.keep(np.repeat(~missing, tokens.lengths)))


def without_vector(name: str) -> Blank:
    """The function that makes the vectors `name` of some events unknown."""

    def without(events: Events, missing: np.ndarray) -> Events:
        values = np.where(missing[:, None], np.float32(np.nan), events.vectors[name])
        return dataclasses.replace(events, vectors=events.vectors | {name: values})

    return without


def without_vectors(events: Events, missing: np.ndarray) -> Events:
    """The events, of which all vectors of `missing` (bool [n]) are unknown."""
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
    """The events, of which some train interactions lack a modality.

    Args:
      events: in the order of learning.
      num_train: the first so many are train; what comes after stays whole.
      shares: for each name of `BLANKS` the share of train interactions that lack it. Those of a share are among those
        of a larger one, and not the same for two modalities.
      seed: of the draws.
    """
    draws = np.random.default_rng(seed).random((len(BLANKS), len(events)))
    draws[:, num_train:] = 1.0
    for (name, blank), draw in zip(BLANKS.items(), draws, strict=True):
        if shares[name] > 0:
            events = blank(events, draw < shares[name])
    return events
