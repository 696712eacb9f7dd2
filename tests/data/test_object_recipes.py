"""Recipes of 3D objects open what they name; any registered system serves to ask for them."""

import numpy as np
import pytest

from hmgr_jax.data.open import open_data, shaping_of
from hmgr_jax.errors import UserError
from hmgr_jax.models import get_model
from hmgr_jax.training import recipe_file
from hmgr_jax.training.check import check_parts
from hmgr_jax.training.config import config_hash


def _recipe(name, **changed):
    config = recipe_file.load(f"configs/{name}.py:vse", {})
    for key, value in changed.items():
        config[key.replace("__", ".")] = value
    return config


def test_solids_by_their_recipe(tmp_path):
    config = _recipe("shapes3d")
    config.data.solids.train, config.data.solids.dev, config.data.solids.test = 24, 12, 12
    data = open_data(config.data)
    assert {role: len(split) for role, split in data.splits.items()} == {
        "train": 24, "dev": 12, "test": 12,
    }  # fmt: skip
    sources = data.splits["train"].sources
    found = {m: source.gather(np.array([3])) for m, source in sources.items()}
    assert found["image"]["views"].shape == (1, 4, 48, 48, 3)
    assert found["point"]["points"].shape == (1, 256, 3)
    assert found["mesh"]["faces"].shape == (1, 320, 15)
    whole = config_hash(config)
    config.data.solids.folder = str(tmp_path)
    assert config_hash(config) == whole
    assert open_data(config.data, roles=["dev"]).splits.keys() == {"dev"}
    assert len(list(tmp_path.iterdir())) == 1
    config.data.solids.seed = 1
    assert config_hash(config) != whole


@pytest.mark.parametrize("classes", ["40", "10"])
@pytest.mark.parametrize("changed", [{}, {"model.center_update": "wen_ema", "train.plain": "()"}])
def test_the_parts_that_recipes_name_are_there(classes, changed):
    config = recipe_file.load(f"modelnet:{classes}", changed)
    fields = {k: v for k, v in config.model.items() if k != "name"}
    check_parts(config, get_model("center3d", **fields).parts())


@pytest.mark.parametrize(("name", "steps"), [("modelnet", 27_500), ("modelnet:10", 22_500)])
def test_modelnet_has_the_sizes_of_the_paper(name, steps):
    config = recipe_file.load(name, {}).copy_and_resolve_references()
    shaping = shaping_of(config.data)
    assert (shaping.image_size, shaping.points, shaping.faces, shaping.crop) == (
        112,
        1024,
        1024,
        224,
    )
    assert (config.train.batch_size, config.train.steps) == (96, steps)
    assert config.train.decay_at * steps == pytest.approx(10_000)
    with pytest.raises(UserError, match=r"data\.root is empty: give the folder that hmgr_jax"):
        open_data(config.data)
    config.data.root = "nowhere"
    with pytest.raises(UserError, match="no folder nowhere"):
        open_data(config.data)
