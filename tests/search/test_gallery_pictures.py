"""Galleries of features, which are no pixels."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from hmgr_jax.errors import UserError
from hmgr_jax.search import gallery


def _retriever():
    """A system of pixels."""
    inputs = {"image": {"pixels": None}}
    model = SimpleNamespace(modalities=("image", "text"), inputs=lambda: inputs)
    return SimpleNamespace(model=model, picture_source=list, workdir=Path("runs/mine"))


def test_a_gallery_of_features_is_none_for_a_run_of_pixels(tmp_path):
    with pytest.raises(UserError, match=r"trained on pixels, but .* features: give .* as --images"):
        gallery.of_prepared(_retriever(), tmp_path)
