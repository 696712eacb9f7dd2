"""Fixtures of the tests of training."""

from checkpoint_fixtures import folder, opened

__all__ = ["folder", "opened"]
