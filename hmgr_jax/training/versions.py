"""Versions of the packages that affect numbers, saved with every checkpoint."""

from __future__ import annotations

import importlib.metadata
import platform

PACKAGES = ("jax", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "hmgr-jax")


def versions() -> dict[str, str]:
    """{package: version}, with that of Python."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found
