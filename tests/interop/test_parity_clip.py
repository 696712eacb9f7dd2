"""Known answers of CLIP and SigLIP, where they are at hand."""

import json

import numpy as np
import pytest
from clip_files import TOWERS

from hmgr_jax import parity

CASES = ("clip_quick", "clip_gelu", "siglip_base")
OUTPUTS = ("vision_hidden", "text_hidden", "image_embeds", "text_embeds")
OUTPUTS += ("logits_per_image", "loss", "gradnorm")


@pytest.fixture
def answers():
    """The folder of transformers' answers."""
    folder = TOWERS / "known_answers"
    if not folder.is_dir():
        pytest.skip(f"known answers not found at {folder} (set HMGR_TEST_GOLDEN to its neighbour)")
    return folder


@pytest.mark.parametrize("case", CASES)
def test_towers(answers, capsys, case):
    assert parity.main(["parity", str(answers), case]) == 0
    assert "7 of 7 quantities agree" in capsys.readouterr().out


@pytest.mark.parametrize("case", CASES[1:])
def test_changed_answers_are_off(answers, tmp_path, capsys, case):
    """All of them at once, each in its largest number."""
    with np.load(answers / f"{case}.npz") as data:
        arrays = {name: np.array(data[name]) for name in data.files}
    for name in OUTPUTS:
        x = arrays[name].reshape(-1)
        x[np.argmax(np.abs(x))] *= 1.01
        arrays[name] = x.reshape(arrays[name].shape)
    np.savez(tmp_path / "changed.npz", **arrays)
    assert parity.main(["parity", str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert "0 of 7 quantities agree" in out
    assert out.count("NO, ") == 7


def test_a_case_of_another_network_is_not_understood(answers, tmp_path, capsys):
    with np.load(answers / "clip_quick.npz") as data:
        arrays = {name: data[name] for name in data.files}
    about = json.loads(str(arrays.pop("meta")))
    about["config"]["text_config"]["hidden_act"] = "relu"
    np.savez(tmp_path / "other.npz", meta=json.dumps(about), **arrays)
    assert parity.main(["parity", str(tmp_path)]) == 2
    assert "its config cannot be used (the activation 'relu'" in capsys.readouterr().err
