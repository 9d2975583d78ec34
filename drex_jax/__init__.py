"""Recommenders in JAX that learn from every interaction, in order, exactly, and can say why."""

__version__ = "0.1.0"
