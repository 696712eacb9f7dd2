"""Mistakes in ``--mode=explain`` are one sentence, and nothing is written."""

import jax
import numpy as np
import pytest
from explain_cases import pictures, trained_on_files
from PIL import Image
from tiny_run import finished, scan_folder

import hmgr_jax
from hmgr_jax.data.generated.worlds import open_worlds
from hmgr_jax.errors import FoundNonFinite
from hmgr_jax.main import main
from hmgr_jax.models import get_model, list_models
from hmgr_jax.reports import explanation

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def workdir():
    return finished("imram")


@pytest.fixture(scope="module")
def retriever(workdir):
    return hmgr_jax.load(workdir)


@pytest.fixture(scope="module")
def split():
    return open_worlds(0, 40, 8, 12).splits["test"]


@pytest.fixture(scope="module")
def trained():
    return trained_on_files()


def _fails(capsys, argv, *parts):
    assert main(["main", *argv]) == 2
    lines = capsys.readouterr().err.splitlines()
    (error,) = [line for line in lines if line.startswith("error: ")]
    for part in parts:
        assert part in error
    return error


@pytest.mark.parametrize(
    ("image", "caption", "parts"),
    [
        ("test/000099", "0", ["no image 'test/000099' among the 12 of the test", "did you mean"]),
        ("12", "0", ["no image '12'", "a number from 0 to 11"]),
        ("-1", "0", ["no image '-1'"]),
        ("0", "60", ["no caption '60' among the 60 of the test", "from 0 to 59"]),
        ("0", "test/000001#5", ["no caption 'test/000001#5'"]),
        ("0", "test/000001", ["is an image, not a caption", "as test/000001#0."]),
        ("0", " ", ["The caption is empty"]),
    ],
)
def test_rejects_unknown_items(workdir, tmp_path, capsys, image, caption, parts):
    argv = ["--mode=explain", f"--workdir={workdir}", f"--out={tmp_path / 'out'}"]
    _fails(capsys, [*argv, "--pair", image, caption], *parts)
    assert not (tmp_path / "out").exists()


def test_rejects_missing_and_extra_flags(workdir, capsys):
    explained = ["--mode=explain", f"--workdir={workdir}"]
    _fails(capsys, explained, "needs --pair IMAGE CAPTION", "any sentence as CAPTION")
    _fails(capsys, [*explained, "--pair", "0"], "expected 2 arguments")
    _fails(capsys, ["--mode=explain", "--pair", "0", "0"], "needs a trained run")
    _fails(capsys, ["--mode=encode", f"--workdir={workdir}", "--pair", "0", "0"], "--pair is for")
    _fails(capsys, ["--mode=encode", f"--workdir={workdir}", "--out=x"], "--out is for --mode=ex")
    pair = [*explained, "--pair", "0", "0", "--images=."]
    _fails(capsys, pair, "Generated worlds draw their pictures themselves")


def test_pictures_that_are_missing_or_broken(trained, tmp_path, capsys):
    argv = ["--mode=explain", f"--workdir={trained}", f"--out={tmp_path / 'out'}"]
    argv += ["--pair", "test3.jpg", "0"]
    _fails(capsys, [*argv, f"--images={tmp_path / 'none'}"], "none is not a folder")
    images = pictures(tmp_path / "images")
    (images / "test3.jpg").write_bytes(b"no picture")
    _fails(capsys, [*argv, f"--images={images}"], "test3.jpg is not a readable picture")
    Image.effect_noise((300, 300), 9).save(tmp_path / "whole.jpg")
    (images / "test3.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:2000])
    _fails(capsys, [*argv, f"--images={images}"], "test3.jpg is not a readable picture")
    assert not (tmp_path / "out").exists()


def test_without_boxes_it_says_what_is_needed(trained, tmp_path, capsys):
    root = scan_folder(tmp_path / "data")
    argv = ["--mode=explain", f"--workdir={trained}", f"--config.data.root={root}"]
    argv += ["--pair", "0", "0"]
    _fails(capsys, argv, "test_boxes.npy is missing", "float32 [rows, 4, 4] of x1, y1, x2, y2")


def test_systems_without_attention_or_weights_are_refused(tmp_path, capsys):
    argv = ["--mode=explain", f"--workdir={finished('gin')}", "--pair", "0", "0"]
    said = _fails(capsys, argv, "gin has neither attention", "use hmgr, vse, imram, scan")
    assert "pcme" in said
    assert "gpldan" not in said
    able = [name for name in list_models() if get_model(name).explainable()]
    assert {"imram", "scan"} <= set(able)
    assert not {"hmgr", "vse"} & set(able)  # these explain vectors, not pairs


def test_nan_is_an_error(retriever, split):
    item = split.sources["image"].gather(np.array([0]))
    broken = hmgr_jax.load(finished("imram"))
    broken.variables = broken.variables.replace(
        params={**broken.variables.params, "units": _nan(broken.variables.params["units"])}
    )
    with pytest.raises(FoundNonFinite, match="NaN or infinity"):
        explanation.explain_pair(broken, item, "a red star")


def _nan(tree):
    return jax.tree.map(lambda x: x * float("nan"), tree)
