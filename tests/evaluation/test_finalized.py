"""``finalized.npz``: what evaluation adds to a checkpoint is computed once."""

import dataclasses
import shutil

import numpy as np
import pytest
from tiny_run import finished, results

import hmgr_jax
from hmgr_jax.errors import UserError
from hmgr_jax.evaluation import finalized
from hmgr_jax.evaluation.calibration import Calibration, stored_items
from hmgr_jax.evaluation.finalized import FILE
from hmgr_jax.evaluation.retriever import Retriever
from hmgr_jax.models import get_model
from hmgr_jax.training.check import check_calibration
from hmgr_jax.training.config import recipe


def calibrated(config):
    config.eval.calibration = "bank"
    return config


def load(workdir, change=None):
    return Retriever.load(workdir, change=change)


def arrays(workdir):
    with np.load(workdir / FILE) as file:
        return {name: file[name] for name in file.files if name != "key"}


@pytest.fixture
def opened(monkeypatch):
    """The roles of the splits that loading a run opens."""
    roles, real = [], Retriever._split
    monkeypatch.setattr(
        Retriever, "_split", lambda self, role: roles.append(role) or real(self, role)
    )
    return roles


@pytest.fixture
def hmgr(tmp_path):
    return shutil.copytree(finished("hmgr"), tmp_path / "run")


@pytest.fixture
def vse(tmp_path):
    return shutil.copytree(finished("vse"), tmp_path / "run")


def test_a_finished_run_is_loaded_without_its_training_items(hmgr, opened):
    retriever = load(hmgr)
    assert not opened
    split = retriever.open(("test",)).splits["test"]
    assert retriever.evaluate(split, ("worlds", "family")) == results(hmgr)["metrics"]


def test_without_the_file_the_bank_is_written_again(hmgr, opened):
    expected = arrays(hmgr)
    (hmgr / FILE).unlink()
    load(hmgr)
    assert "train" in opened
    found = arrays(hmgr)
    assert found.keys() == expected.keys()
    for name, array in found.items():
        np.testing.assert_allclose(array, expected[name], rtol=0, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("damage", ["truncated", "no archive", "no key"])
def test_a_damaged_file_is_made_again_with_a_warning(hmgr, damage):
    expected, path = arrays(hmgr), hmgr / FILE
    if damage == "no key":
        np.savez(path, step=np.arange(3))
    else:
        path.write_bytes(path.read_bytes()[:-40] if damage == "truncated" else b"nothing")
    with pytest.warns(RuntimeWarning, match="is damaged: it is made again"):
        load(hmgr)
    assert arrays(hmgr).keys() == expected.keys()


def test_a_run_without_memory_and_calibration_has_no_file(vse):
    load(vse)
    assert not (vse / FILE).exists()


def test_a_calibration_is_computed_once(vse, opened):
    first = load(vse, calibrated)
    assert set(opened) == {"train", "dev"}
    opened.clear()
    second = load(vse, calibrated)
    assert not opened
    one, other = (dataclasses.asdict(run.evaluator.calibration) for run in (first, second))
    for m, x in one.pop("vectors").items():
        np.testing.assert_array_equal(other["vectors"][m], x)
    assert {name: other[name] for name in one} == one


def test_stored_vectors_are_those_of_a_sample_of_the_training_items(vse, monkeypatch):
    monkeypatch.setattr(finalized, "MOST_STORED", 30)  # of 40 images and 200 captions
    monkeypatch.setattr(finalized, "AT_ONCE", 8)
    retriever = load(vse, calibrated)
    train = retriever.open(("train",)).splits["train"]
    codes = retriever.evaluator.encode_split(retriever.variables, train)
    for m, x in retriever.evaluator.calibration.vectors.items():
        expected = codes[m][stored_items(len(codes[m]), 30)]
        np.testing.assert_allclose(x, expected, rtol=0, atol=1e-6)


def test_other_options_are_computed_anew_and_leave_the_file_alone(hmgr, opened):
    before = (hmgr / FILE).read_bytes()
    retriever = load(hmgr, calibrated)
    assert set(opened) == {"train", "dev"}
    assert retriever.evaluator.calibration is not None
    assert (hmgr / FILE).read_bytes() == before


def test_a_folder_that_cannot_be_written_is_a_warning(vse, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(finalized, "replacing", refuse)
    with pytest.warns(RuntimeWarning, match=r"finalized.npz cannot be written .*Permission denied"):
        retriever = load(vse, calibrated)
    assert retriever.evaluator.calibration is not None


def test_three_modalities_cannot_be_calibrated():
    config = calibrated(recipe("solids", "center3d"))
    with pytest.raises(UserError, match=r"of two modalities, center3d has image, point, mesh"):
        check_calibration(config, get_model("center3d").modalities)


# --- calibrated scores ----------------------------------------------------------------------------


def test_scores_and_metrics_of_a_run_are_calibrated():
    retriever = hmgr_jax.load(finished("vse"))
    split = retriever.open(("test",)).splits["test"]
    evaluator, variables = retriever.evaluator, retriever.variables
    codes = evaluator.encode_split(variables, split)
    plain = evaluator.scores(variables, "image", codes["image"], "text", codes["text"])
    stored = {m: evaluator.vectors(variables, m, codes[m])[:7] for m in codes}
    own = evaluator.calibrated(Calibration(stored, 0.5, 5.0))
    a, b = (own.calibration.penalty(m, codes[m]) for m in ("image", "text"))
    (scored,) = own.matrices(variables, split)
    np.testing.assert_allclose(scored.scores, plain - a[:, None] - b[None], rtol=0, atol=1e-6)
    wide = [own.vectors(variables, m, codes[m]) for m in ("image", "text")]
    np.testing.assert_allclose(wide[0] @ wide[1].T, scored.scores, rtol=0, atol=1e-6)
