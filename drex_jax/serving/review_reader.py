"""Encodes the texts of new interactions with the encoder that a finished run was trained on."""

from __future__ import annotations

import dataclasses
import functools
import pathlib

import numpy as np

from drex_jax.common.errors import UserError
from drex_jax.common.files import read_json
from drex_jax.data.events import REVIEW
from drex_jax.serving.rows import CheckedRows
from drex_jax.text.bert import BertEncoder
from drex_jax.text.bert.reviews import ATTENTION, trained_on
from drex_jax.training.settings import Settings


class ReviewReader:
    """Adds the vectors of texts to new interactions, for a run whose data have such vectors."""

    def __init__(self, settings: Settings, facts: pathlib.Path):
        """Read which encoder the run was trained on.

        Args:
          settings: settings of the run.
          facts: file of the run's history that holds the fingerprint of the encoder, if there is one.
        """
        self._settings, self._fingerprint = settings, read_json(facts, ()).get("bert")

    @functools.cached_property
    def _model(self) -> BertEncoder | str:
        """The encoder, or the reason why it cannot be had."""
        try:
            return trained_on(self._settings.text.bert, self._fingerprint)
        except UserError as error:
            return str(error)

    def read(self, checked: CheckedRows) -> CheckedRows:
        """Return the rows with the vectors of their texts; rows with a text are refused if the encoder is missing."""
        rows = checked.rows
        has_text = rows.text.lengths > 0
        if not self._fingerprint or not has_text.any():
            return checked
        model = self._model
        if isinstance(model, str):
            return checked.refuse(has_text, model)
        pooling, max_tokens = self._settings.text.bert.pooling, self._settings.text.max_tokens
        if pooling == ATTENTION:  # the model itself reads the tokens
            return checked
        encoded = model.encode(rows.text.take(np.flatnonzero(has_text)), pooling, True, max_tokens)
        vectors = np.full((len(rows), encoded.shape[1]), np.nan, np.float32)
        vectors[has_text] = encoded
        return checked._replace(rows=dataclasses.replace(rows, vectors={**rows.vectors, REVIEW: vectors}))
