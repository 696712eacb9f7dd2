"""Known answers of PCME and of ResNets, where they are at hand."""

import json

import numpy as np
import pytest
from imram_cases import GOLDEN

from hmgr_jax import parity

PCME = ("pcme_coco", "pcme_cub", "pcme_wide")


@pytest.fixture
def golden():
    """The folder of the released code's answers."""
    if not GOLDEN.is_dir():
        pytest.skip(f"known answers not found at {GOLDEN} (set HMGR_TEST_GOLDEN to a copy)")
    return GOLDEN


@pytest.mark.parametrize("case", PCME)
def test_pcme(golden, capsys, case):
    assert parity.main(["parity", str(golden), case]) == 0
    assert "12 of 12 quantities agree" in capsys.readouterr().out


def test_another_loss_is_off(golden, tmp_path, capsys):
    """A larger weight of the uniformity term shows in the loss and its gradients, not elsewhere."""
    with np.load(golden / "pcme_cub.npz") as data:
        arrays = {name: data[name] for name in data.files}
    about = json.loads(str(arrays.pop("meta"))) | {"uniform_lambda": 11.0}
    np.savez(tmp_path / "other.npz", meta=json.dumps(about), **arrays)
    assert parity.main(["parity", str(tmp_path)]) == 1
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[2:]]
    off = {quantity for _, quantity, *rest in rows if "NO," in rest}
    assert off == {"loss", "grad_samples_image", "grad_samples_caption"}


@pytest.mark.slow
@pytest.mark.parametrize(("case", "count"), [("singleview_resnet18", 45), ("resnet50_logits", 87)])
def test_resnets(golden, capsys, case, count):
    assert parity.main(["parity", str(golden), case]) == 0
    assert f"{count} of {count} quantities agree" in capsys.readouterr().out
