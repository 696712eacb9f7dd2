"""Fixtures of the tests of faults."""

from checkpoint_fixtures import folder, opened

__all__ = ["folder", "opened"]
