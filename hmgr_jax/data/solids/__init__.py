"""Generated solids of twelve classes: turned, cut from plates, stacked and pierced."""

from hmgr_jax.data.solids.solid import CLASSES, Solid, make_solid

__all__ = ["CLASSES", "VERSION", "Solid", "make_solid"]

VERSION = 1
"""Raise it with any change that changes a solid."""
