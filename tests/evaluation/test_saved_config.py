"""A run that is older than a configuration key is opened with the key's default."""

import pytest

from hmgr_jax.errors import UserError
from hmgr_jax.evaluation.trained_run import saved_config
from hmgr_jax.models import without_removed
from hmgr_jax.training.config import plain, recipe


@pytest.mark.parametrize("name", ["hmgr", "imram"])
def test_keys_that_did_not_exist_have_their_defaults(name):
    whole = recipe("f8k", name, dim=32)
    whole.train.stages = ({"steps": 5, "frozen": ("words",)},)
    whole.train.lr_factors.words = 0.5
    saved = plain(whole)
    del saved["eval"]["judgments"], saved["train"]["hang_seconds"], saved["model"]["margin"]
    assert plain(saved_config({"config": saved})) == plain(whole)


def test_removed_options_of_an_older_run_are_dropped_or_refused():
    saved = {"name": "vse", "dim": 16, "frame_window": 0}
    assert without_removed("vse", saved) == {"name": "vse", "dim": 16}
    with pytest.raises(UserError, match=r"model\.frame_window=3, an option that was removed"):
        without_removed("vse", {**saved, "frame_window": 3})
