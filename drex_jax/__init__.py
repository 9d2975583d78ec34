"""Recommenders in JAX that learn from every interaction, in order, exactly, and can say why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from drex_jax.common.version import __version__

if TYPE_CHECKING:
    from drex_jax.serving.recommender import Recommendation, Recommender

__all__ = ["Recommendation", "Recommender", "__version__"]


def __getattr__(name: str) -> Any:
    """The public classes, imported when first asked for: the command line answers before JAX is there."""
    if name in __all__:
        from drex_jax.serving import recommender

        return getattr(recommender, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
