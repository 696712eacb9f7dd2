"""From a configuration to pictures: worlds, lists of captions, CUB-200, and bad input."""

import numpy as np
import pytest
from picture_files import write_picture

from hmgr_jax.data.generated.worlds.captions import make_family
from hmgr_jax.data.generated.worlds.render import render
from hmgr_jax.data.open import open_data
from hmgr_jax.data.pipeline import batches
from hmgr_jax.data.words import word_vectors
from hmgr_jax.errors import UserError
from hmgr_jax.training.check import check
from hmgr_jax.training.config import recipe
from hmgr_jax.training.experiment import build


def _config(source, **data):
    config = recipe("pictures", "vse")
    config.data.source = source
    config.data.pixels.size, config.data.pixels.resize = 12, 12
    config.data.update(data)
    return config


def write_table(root, captions=5):
    """Pictures and a CSV that tells their splits."""
    lines = ["image,caption,split"]
    for split, count in (("train", 8), ("dev", 3), ("test", 3)):
        for i in range(count):
            name = f"{split}{i}.png"
            write_picture(root / "photos" / name, i)
            lines += [f"{name},a red bird and a tree {k},{split}" for k in range(captions)]
    (root / "captions.csv").write_text("\n".join(lines) + "\n", "utf-8")
    return root


def test_worlds_as_pictures():
    config = _config("worlds")
    config.data.worlds.update({"train": 8, "dev": 4, "test": 4, "pictures": True})
    config.data.pixels.update({"train": "centre", "flip": 0.0, "erase": 0.0})
    data = open_data(config.data)
    train = data.splits["train"]
    (batch,) = batches(train, batch_size=8, seed=0, steps=1, batching="groups")
    item = int(batch["row"]["group"][3])
    scene = make_family(0, "train", item // 4).scenes[item % 4]
    pixels = config.data.pixels
    back = batch["image"]["pixels"][3] * 255 * np.array(pixels.std) + 255 * np.array(pixels.mean)
    np.testing.assert_allclose(back, render(scene, 12), atol=1e-2)
    config.data.worlds.pictures = False
    features = open_data(config.data)
    assert features.fingerprint != data.fingerprint
    assert features.vocabulary == data.vocabulary
    np.testing.assert_array_equal(features.splits["dev"].rows["text"], np.arange(20))


def test_a_table_of_pictures(tmp_path):
    root = str(write_table(tmp_path))
    config = _config("pictures", root=root, captions="captions.csv", pictures="photos")
    check(config)
    data = open_data(config.data)
    found = list(batches(data.splits["train"], batch_size=4, seed=0, steps=2))
    assert found[0]["image"]["pixels"].shape == (4, 12, 12, 3)
    config.train.batch_size = 8
    with pytest.raises(UserError, match=r"vse needs regions of .* has only image: pixels;"):
        build(config)
    config.data.vectors = "captions"
    assert word_vectors(config.data, data, 4).shape == (len(data.vocabulary), 4)


def test_rejects_bad_picture_options(tmp_path):
    config = _config("pictures")
    with pytest.raises(UserError, match=r"data\.root is empty: give the folder from which"):
        open_data(config.data)
    config.data.root, config.data.visual = str(tmp_path), "video"
    with pytest.raises(UserError, match="Pictures are images"):
        open_data(config.data)
    config.data.corrupt = "ignore"
    with pytest.raises(UserError, match=r"data\.corrupt is one of refuse, skip, not 'ignore'"):
        check(config)
    config = _config("cub", root=str(tmp_path))
    with pytest.raises(UserError, match="holds no folder text_c10"):
        open_data(config.data)
