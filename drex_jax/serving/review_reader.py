"""What a finished run reads of the texts of new interactions."""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Sequence

from drex_jax.common.errors import UserError
from drex_jax.common.files import read_json
from drex_jax.data.events import REVIEW
from drex_jax.serving.rows import Refusal, Row
from drex_jax.text.bert import BertEncoder
from drex_jax.text.bert.reviews import ATTENTION, trained_on
from drex_jax.training.settings import Settings


class Reader:
    """Gives new interactions of a finished run what it reads of their texts."""

    def __init__(self, config: Settings, facts: pathlib.Path):
        """`facts`: of the run's history, which say by which model it was trained."""
        self._config, self._fingerprint = config, read_json(facts, ()).get("bert")

    @functools.cached_property
    def _model(self) -> BertEncoder | str:
        """The encoder; or why there is none."""
        try:
            return trained_on(self._config, self._fingerprint)
        except UserError as error:
            return str(error)

    def read(self, rows: Sequence[tuple[int, Row]]) -> tuple[list[tuple[int, Row]], list[Refusal]]:
        """Rows with the vectors of their texts; and those whose text cannot be read, as its model is not there."""
        spoken = [(place, row) for place, row in rows if row.text] if self._fingerprint else []
        if not spoken:
            return list(rows), []
        model = self._model
        if isinstance(model, str):
            refused = [Refusal(place, model) for place, _ in spoken]
            return [(place, row) for place, row in rows if not row.text], refused
        pooling, max_tokens = self._config.text.bert.pooling, self._config.text.max_tokens
        if pooling == ATTENTION:  # reads tokens, when it learns
            return list(rows), []
        made = model.encode([row.text for _, row in spoken], pooling, True, max_tokens)
        found = {place: vector for (place, _), vector in zip(spoken, made, strict=True)}
        return [
            (place, row._replace(vectors={**row.vectors, REVIEW: found[place]}) if place in found else row)
            for place, row in rows
        ], []
