"""Checkpoints in a fresh folder, closed in the end."""

import pytest

from hmgr_jax.training.checkpoint import Checkpoints


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "run" / "checkpoints"


@pytest.fixture
def opened(folder):
    """Open the folder as often as a test likes; all are closed in the end."""
    made = []

    def open_(**options):
        made.append(Checkpoints(folder, **options))
        return made[-1]

    yield open_
    for checkpoints in made:
        checkpoints.close()
