"""KWAI-AD's shape by its own recipe: 64 grid vectors, one caption a picture, nothing baked in."""

import numpy as np
import pytest
import tiny_run

pytestmark = pytest.mark.slow

SMALL = {
    "model__dim": 8,
    "model__word_dim": 4,
    "train__steps": 8,
    "train__batch_size": 8,
    "train__log_steps": 1,
    "eval__batch_size": 8,
    "parallel__devices": 1,
}


@pytest.mark.parametrize("model", ["imram", "scan"])
def test_one_caption_and_64_regions(tmp_path, model):
    root = tiny_run.scan_folder(tmp_path / "data", captions=1, regions=64)
    recipe, folder = str(tiny_run.ROOT / "configs" / "kwai_ad.py"), tmp_path / "run"
    assert tiny_run.run(folder, model=model, recipe=recipe, data__root=root, **SMALL) == 0
    losses = [row["loss"] for row in tiny_run.rows(folder) if "loss" in row]
    assert len(losses) == 8
    assert np.isfinite(losses).all()
    metrics = tiny_run.results(folder)["metrics"]
    # 8 test pictures and 8 captions: a recall is a multiple of an eighth.
    assert metrics["i2t/R@1"] % 12.5 == metrics["t2i/R@1"] % 12.5 == 0
    assert metrics["t2i/R@10"] == 100.0
