"""Build DReX from the settings and the data of a run."""

from __future__ import annotations

import dataclasses
import functools
import logging
import pathlib
from typing import Any

import numpy as np

from drex_jax.common.errors import UserError
from drex_jax.models import running_bias
from drex_jax.models.drex.model import DReXOptions
from drex_jax.models.drex.network import NetworkOptions
from drex_jax.models.drex.recurrence import Implementation
from drex_jax.models.drex.schedule import cheapest_width
from drex_jax.models.drex.stream import WindowStream
from drex_jax.models.drex.window import Packing, window_streams
from drex_jax.models.protocol import Params
from drex_jax.models.source import Source
from drex_jax.text.bert import weights
from drex_jax.text.bert.pieces import WordPieces

LOGGER = logging.getLogger(__name__)


def stream_of(source: Source) -> WindowStream:
    """Return the stream of DReX for a run.

    Raises:
      UserError: the data have no ratings, and `model.ranking_weight` is 0.
    """
    settings, events, model = source.settings, source.events, source.settings.model
    train = source.train
    ratings = train.rating[train.has_rating]
    has_ratings = len(ratings) > 0
    if not has_ratings and not model.ranking_weight:
        raise UserError(
            "no train interaction has a rating, so there is nothing to predict: set model.ranking_weight above 0"
        )
    vocabulary, tokens = source.vocabulary, events.tokens
    changed: dict[str, Any] = {
        "rating_modality": model.rating_modality and has_ratings,
        "vector_modalities": tuple(sorted(events.vectors)) if model.vector_modalities else (),
        "residual": model.residual and has_ratings,
        "rating": bool(model.rating_weight) and has_ratings,
        "ranking": model.ranking_weight > 0,
        "vocabulary_size": 0 if vocabulary is None else len(vocabulary),
        "text_width": settings.text.width,
        "text_dropout": settings.text.dropout,
        "bert": vocabulary.learns if isinstance(vocabulary, WordPieces) else None,
        "bert_dtype": settings.text.bert.dtype,
        "token_width": 0 if tokens is None or tokens.features is None else tokens.features.shape[1],
    }
    network = NetworkOptions(**_shared(model, NetworkOptions) | changed)
    bias = running_bias.RunningBias(0.0, 1.0, 1.0)
    if has_ratings:
        bias = running_bias.fit_running_bias(*source.bias_arguments())
    changed = {
        "rating_mean": float(ratings.mean(dtype=np.float64)) if has_ratings else 0.0,
        "rating_deviation": max(float(ratings.std(dtype=np.float64)), 1e-3) if has_ratings else 1.0,
        "rating_weight": model.rating_weight if has_ratings else 0.0,
        "bptt_windows": settings.train.bptt_windows,
        "implementation": _implementation(settings),
        "packing": _packing(source),
    }
    options = DReXOptions(network, bias, **_shared(model, DReXOptions) | changed)
    start = functools.partial(_pretrained, settings.text.bert, vocabulary)
    return WindowStream(options, events, source.sizes, source.context.devices.compile, source.seed, start)


def ratings_stream_of(source: Source) -> WindowStream:
    """Return the stream of DReX without texts and vectors."""
    events = dataclasses.replace(source.events, tokens=None, vectors={})
    return stream_of(dataclasses.replace(source, events=events, vocabulary=None))


def _shared(settings: Any, kind: type) -> dict[str, Any]:
    """Return the settings that have the names of fields of `kind`."""
    names = {field.name for field in dataclasses.fields(kind)}
    return {field.name: getattr(settings, field.name) for field in dataclasses.fields(settings) if field.name in names}


def _packing(source: Source) -> Packing:
    """Return the packing of windows: the width, and whether the devices share the lanes of a step."""
    settings, context = source.settings, source.context
    devices, width = len(context.devices), settings.schedule.width
    if not width:
        train = source.train
        streams = window_streams(train.user, train.item, settings.train.bptt_windows)
        width = cheapest_width(streams, context.costs.step)
    implementation = _implementation(settings)
    wanted, can = settings.devices.recurrence, implementation is Implementation.BLOCKED
    pays = wanted == "auto" and can and context.costs.split_pays(width, devices)
    split = devices > 1 and (wanted == "split" or pays)
    how = "split over the devices" if split else "on every device" if devices > 1 else "on the device"
    LOGGER.info("recurrence: %s, %d lanes a step %s", implementation.value, width, how)
    return Packing(width, devices, split, context.cache)


def _implementation(settings: Any) -> Implementation:
    return Implementation(settings.schedule.implementation).resolve()


def _pretrained(bert: Any, words: object) -> tuple[Params, float] | None:
    """Return the initial parameters of a BERT that is trained, and its peak learning rate; None without such a BERT.

    Raises:
      UserError: the folder of the BERT does not hold the parameters.
    """
    if not isinstance(words, WordPieces) or words.learns is None:
        return None
    return {"text": {"bert": weights.read_params(pathlib.Path(bert.folder), words.learns)}}, bert.learning_rate
