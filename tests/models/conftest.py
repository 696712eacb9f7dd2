"""Known answers of systems outside `contract_cases.FAST`, and HMGR's variants, are slow tests."""

import pytest

SLOW = ("dxr", "gpldan", "racg", "resg", "resg_graph", "ragged")
SLOW += ("hmgr_frames", "hmgr_switches", "hmgr_video")
"""Stems of files of slow tests; ``pytest -m "" tests/models/test_dxr.py`` runs all of one."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Mark the tests of `SLOW` files."""
    for item in items:
        if item.path.parent.name == "models" and item.path.stem.removeprefix("test_") in SLOW:
            item.add_marker(pytest.mark.slow)
