"""Registry entries of DReX."""

from __future__ import annotations

from drex_jax.models.entry import ModelEntry, Updates

_MODEL = "drex_jax.models.drex.model:DReX"
ENTRIES = (
    ModelEntry(
        name="drex",
        model=_MODEL,
        builder="drex_jax.models.drex.build:stream_of",
        reads=("model",),
        texts=True,
        updates=Updates.STATES,
    ),
    ModelEntry(
        name="drex_ratings",
        model=_MODEL,
        builder="drex_jax.models.drex.build:ratings_stream_of",
        reads=("model",),
        configurable=False,
        baseline=True,
        ablation_of="drex",
        updates=Updates.STATES,
    ),
)
