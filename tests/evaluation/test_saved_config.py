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


OF_THE_EARLIER_MEMORY = {"key_dim": 64, "write_rate": 0.5, "write_rule": "hme", "slots": 128}
OF_THE_EARLIER_MEMORY |= {"write_address": "content", "address_gain": 11.3, "memory_groups": 2}
OF_THE_EARLIER_MEMORY |= {"rebuild_memory": 30, "hops": 2, "memory_warmup_steps": -1}


def test_an_older_run_without_memory_may_have_any_options_of_it():
    saved = plain(recipe("f8k", "vse"))
    saved["model"] |= OF_THE_EARLIER_MEMORY
    model = saved_config({"config": saved}).model
    assert (model.memory, model.slots) == ("none", 128)
    assert "key_dim" not in model


@pytest.mark.parametrize("memory", ["joint", "learned", "episodic"])
def test_an_older_run_with_another_memory_is_refused(memory):
    with pytest.raises(UserError, match=f"model.memory='{memory}', a value that was removed"):
        without_removed("hmgr", {"memory": memory, **OF_THE_EARLIER_MEMORY})


def test_an_older_run_of_dxr_has_the_new_name_of_its_objective():
    found = without_removed("dxr", {"objective": "triplet_hard", "dim": 16})
    assert found == {"objective": "triplet", "dim": 16}
