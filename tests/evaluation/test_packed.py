"""Packed runs: a run in one small file, and what it finds."""

import json

import numpy as np
import pytest
import safetensors.numpy
from tiny_run import finished
from tiny_run import run as train

import hmgr_jax
from hmgr_jax.convert import main
from hmgr_jax.errors import UserError
from hmgr_jax.evaluation import packed
from hmgr_jax.evaluation.calibration import stored_items
from hmgr_jax.interop import state_dict


def pack(workdir, out, *options):
    assert main(["convert", "pack", "--workdir", str(workdir), "--out", str(out), *options]) == 0
    return hmgr_jax.load(out)


@pytest.fixture(scope="module")
def hmgr(tmp_path_factory):
    out = tmp_path_factory.mktemp("packed") / "hmgr.safetensors"
    return out, pack(finished("hmgr"), out, "--stored", "25")


def test_a_packed_run_finds_what_the_run_finds(hmgr):
    run, (_, found) = hmgr_jax.load(finished("hmgr")), hmgr
    assert found.step == run.step
    assert found.config.data == run.config.data
    split = run.open(("test",)).splits["test"]
    expected, codes = (r.evaluator.encode_split(r.variables, split) for r in (run, found))
    # Pictures read nothing; captions read a sample of the pairs.
    np.testing.assert_allclose(codes["image"], expected["image"], rtol=0, atol=2e-3)
    cosines = np.sum(codes["text"] * expected["text"], axis=1)
    assert cosines.mean() > 0.98
    assert cosines.max() < 1 - 1e-6


def test_the_memory_holds_a_sample_in_8_bits(hmgr):
    out, found = hmgr
    bank = found.variables.memory.bank
    assert len(bank.group) == found.config.model.slots == 25
    norms = np.linalg.norm(np.asarray(bank.vectors["text"]), axis=1)
    np.testing.assert_allclose(norms, 1, atol=0.02)
    arrays = safetensors.numpy.load_file(out)
    assert arrays["memory/bank/vectors/text"].dtype == np.int8
    assert arrays["params/text/words/vectors"].dtype == np.float16


def test_a_memory_that_is_not_written_anew_is_packed_whole(tmp_path):
    assert train(tmp_path / "run", model="hmgr", model__rewrite_bank=False) == 0
    found = pack(tmp_path / "run", tmp_path / "hmgr.safetensors", "--stored", "25")
    kept, bank = (r.variables.memory.bank for r in (hmgr_jax.load(tmp_path / "run"), found))
    np.testing.assert_array_equal(bank.group, kept.group)
    assert found.variables.memory.active


def test_a_calibration_is_packed_with_its_vectors(tmp_path):
    """A system without memory stores vectors for it."""
    run = finished("vse")
    plain = pack(run, tmp_path / "plain.safetensors")
    assert plain.evaluator.calibration is None
    found = pack(run, tmp_path / "vse.safetensors", "--calibrate", "--stored", "30")
    calibration = found.evaluator.calibration
    assert {m: len(x) for m, x in calibration.vectors.items()} == {"image": 30, "text": 30}
    split = plain.open(("train",)).splits["train"]
    codes = plain.evaluator.encode_split(plain.variables, split)
    for m, x in calibration.vectors.items():
        expected = codes[m][stored_items(len(codes[m]), 30)]
        np.testing.assert_allclose(x, expected, rtol=0, atol=5e-3)


def test_the_pca_of_a_packed_run_describes_pictures_as_the_run_does(tmp_path):
    file = packed.path_of("flickr8k")
    about = json.loads(state_dict.read_weights(file).metadata["about"])
    assert packed.pca_of(file).sha256() == about["encoder"]["pca"]["sha256"]
    safetensors.numpy.save_file({"a": np.zeros(1)}, tmp_path / "a.safetensors")
    with pytest.raises(UserError, match="holds no PCA"):
        packed.pca_of(tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        ("metadata", "was not written by hmgr-jax convert pack"),
        ("bytes", "cannot be read as safetensors"),
    ],
)
def test_another_file_is_refused(hmgr, tmp_path, damage, sentence):
    file = tmp_path / "x.safetensors"
    if damage == "metadata":
        safetensors.numpy.save_file({"x": np.zeros(3, np.float32)}, file)
    else:
        file.write_bytes(hmgr[0].read_bytes()[:-9])
    with pytest.raises(UserError, match=sentence):
        hmgr_jax.load(file)


def test_nothing_is_overwritten_and_the_ending_is_checked(hmgr, tmp_path):
    with pytest.raises(UserError, match="exists and is not overwritten"):
        packed.pack(finished("hmgr"), hmgr[0], 25)
    with pytest.raises(UserError, match=r"but a packed run ends in \.safetensors"):
        packed.pack(finished("hmgr"), tmp_path / "x.npz", 25)
    assert not list(tmp_path.iterdir())
