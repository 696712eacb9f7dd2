"""Known answers of cross-modal center loss, where they are at hand."""

import json

import numpy as np
import pytest
from imram_cases import GOLDEN

from hmgr_jax import parity


@pytest.fixture
def golden():
    """The folder of the released code's answers."""
    if not GOLDEN.is_dir():
        pytest.skip(f"known answers not found at {GOLDEN} (set HMGR_TEST_GOLDEN to a copy)")
    return GOLDEN


@pytest.mark.parametrize(("case", "count"), [("center_loss", 3), ("modelnet10_map", 1)])
def test_losses_and_ranking(golden, capsys, case, count):
    assert parity.main(["parity", str(golden), case]) == 0
    assert f"{count} of {count} quantities agree" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize(("case", "count"), [("dgcnn", 23), ("meshnet", 35)])
def test_encoders(golden, capsys, case, count):
    assert parity.main(["parity", str(golden), case]) == 0
    assert f"{count} of {count} quantities agree" in capsys.readouterr().out


def small(folder, percents):
    """A case of two objects of two classes, which every modality tells apart."""
    x = np.eye(2, 3, dtype=np.float32)
    arrays = {"image": x, "mesh": x, "point": x, "label": np.arange(2)}
    np.savez(folder / "small.npz", map_percent=percents, **arrays)


def test_another_map_is_named(tmp_path, capsys):
    small(tmp_path, json.dumps({"image2image": 100.0, "mesh2point": 99.0}))
    assert parity.main(["parity", str(tmp_path)]) == 1
    assert "NO, mesh2point: 100 instead of 99" in capsys.readouterr().out


@pytest.mark.parametrize("percents", ["[1, 2]", "none", '{"image2text": 1.0}'])
def test_percents_that_are_none(tmp_path, capsys, percents):
    small(tmp_path, percents)
    assert parity.main(["parity", str(tmp_path)]) == 2
    assert "its map_percent is not JSON of numbers by direction" in capsys.readouterr().err
