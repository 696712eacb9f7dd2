"""Configurations over the hosts of a cluster: the same command runs on every one of them."""

from __future__ import annotations

from typing import Any

from jax.experimental import multihost_utils

from hmgr_jax.benchmarks.scaling.grid import Configuration, Row
from hmgr_jax.benchmarks.scaling.measure import measure


def on_hosts(configuration: Configuration, how: dict[str, Any]) -> Row | None:
    """The row of a configuration on the first devices of all hosts; ``how`` goes to ``measure``.

    Hosts without a part in it wait for the rest, and get None.
    """
    row = measure(configuration, **how)
    multihost_utils.sync_global_devices("configuration")
    return row
