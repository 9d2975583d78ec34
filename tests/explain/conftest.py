"""Fixtures that the tests of models have as well."""

from tests.models.conftest import make_drex, make_events, replay

__all__ = ["make_drex", "make_events", "replay"]
