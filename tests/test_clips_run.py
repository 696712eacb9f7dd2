"""A run on generated clips, from training to codes: the other visual modality, everywhere."""

import json
import shutil

import numpy as np
import pytest
from tiny_run import ROOT, config, files, results, rows, run, scan_folder

import hmgr_jax
from hmgr_jax.data.generated.worlds.clips import open_clips
from hmgr_jax.errors import UserError
from hmgr_jax.main import main
from hmgr_jax.metrics.protocols import evaluate_all

RECIPE = str(ROOT / "configs" / "clips.py")
TINY = {
    "recipe": RECIPE,
    "data__clips__train": 40,
    "data__clips__dev": 8,
    "data__clips__test": 12,
    "model__dim": 16,
    "model__word_dim": 8,
    "model__slots": 8,
    "model__frames": 6,
    "model__frame_sampling": "random",
    "train__steps": 4,
    "train__batch_size": 8,
    "train__log_steps": 2,
    "train__eval_steps": 2,
    "eval__batch_size": 16,
    "parallel__devices": 1,
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips") / "run"
    assert run(folder, model="hmgr", **TINY) == 0
    return folder


@pytest.fixture(scope="module")
def split():
    return open_clips(0, 40, 8, 12).splits["test"]


@pytest.mark.slow
def test_metrics_are_named_by_clips(trained):
    found = results(trained)
    assert found["protocol"] == "clips,family"
    assert {name.partition("/")[0] for name in found["metrics"]} == {"v2t", "t2v", "rsum", "family"}
    assert {"family/accuracy", "family/v2t", "v2t/medR", "t2v/R@10"} <= found["metrics"].keys()
    assert {"dev/v2t/R@1", "dev/family/accuracy"} <= rows(trained)[-1].keys()
    assert (trained / "recalls.png").exists()


@pytest.mark.slow
def test_evaluate_reproduces_the_results(trained):
    before = files(trained)
    assert main(["main", "--mode=evaluate", f"--workdir={trained}"]) == 0
    assert json.loads((trained / "evaluation-test.json").read_text()) == results(trained)
    (trained / "evaluation-test.json").unlink()
    assert files(trained) == before


@pytest.mark.slow
def test_encode_and_load_give_the_same_codes(trained, split, tmp_path):
    folder = shutil.copytree(trained, tmp_path / "run")
    assert main(["main", "--mode=encode", f"--workdir={folder}"]) == 0
    codes = {m: np.load(folder / "codes" / f"test_{m}.npy") for m in ("video", "text")}
    assert (folder / "codes" / "test_video_ids.txt").read_text().splitlines() == list(
        split.ids["video"]
    )
    groups = split.groups
    metrics = evaluate_all(
        ("clips", "family"),
        codes["video"] @ codes["text"].T,
        groups["video"],
        groups["text"],
        modalities=("video", "text"),
        families=split.families,
    )
    assert metrics == results(folder)["metrics"]

    retriever = hmgr_jax.load(folder)
    raw = split.sources["video"].gather(np.arange(12))
    clips = retriever.encode("video", raw)
    vectors = retriever.evaluator.vectors(retriever.variables, "video", clips)  # calibrated
    np.testing.assert_array_equal(vectors, codes["video"])
    frames = raw["frames"].astype(np.float64)
    whole = retriever.encode("video", {"frames": frames})  # without their number all are true
    np.testing.assert_array_equal(
        whole, retriever.encode("video", {"frames": frames, "n_frames": [8] * 12})
    )
    assert np.abs(whole - clips).max() > 1e-4
    query = retriever.encode("text", split.sources["text"].captions[:2])
    numbers, _ = retriever.search(("text", query), ("video", clips), k=3)
    assert numbers.shape == (2, 3)
    with pytest.raises(UserError, match="hmgr knows video, text, not image"):
        retriever.encode("image", {"regions": raw["frames"]})
    with pytest.raises(UserError, match=r"video items need frames of shape \[2, 8, 256\]"):
        retriever.encode("video", {"frames": raw["frames"][:2, :5]})


@pytest.mark.slow
def test_show(tmp_path, capsys):
    assert run(tmp_path / "run", "--mode=show", model="hmgr", **TINY) == 0
    out = capsys.readouterr().out
    assert "frames: float16 [8, 256]" in out
    assert "n_frames: int32 []" in out
    assert ["train", "200", "40", "200"] in [line.split() for line in out.splitlines()]
    assert "video/graph0" in out


@pytest.mark.slow
@pytest.mark.filterwarnings("always")
def test_explain_takes_clips(trained, tmp_path, capsys):
    out = tmp_path / "explained"
    command = ["main", "--mode=explain", f"--workdir={trained}", "--pair", "0", "0"]
    assert main([*command, f"--out={out}"]) == 0
    assert "without --images FOLDER there is no picture" in capsys.readouterr().err
    assert {file.name for file in out.iterdir()} >= {"retrieval.json", "retrieval.png"}


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (TINY | {"model": "vse", "model__visual": "image"}, "reads image and text, but the data"),
        ({"model": "vse", "model__visual": "video"}, "reads video and text, but the data has"),
        ({"model": "imram", "data__source": "clips"}, "reads image and text, but the data has"),
        (TINY | {"model": "imram"}, "There is no hyper-parameter of imram 'visual'"),
        (TINY | {"model": "hmgr", "data__clips__dev": 6}, "multiple of 4"),
    ],
    ids=["clips to images", "images to clips", "another system", "no recipe", "sizes"],
)
def test_rejects_data_of_another_modality(tmp_path, capsys, options, sentence):
    keep = ("model__dim", "model__word_dim", "model__slots")
    if options["model"] != "hmgr":
        options = {k: v for k, v in options.items() if k not in keep}
    assert run(tmp_path / "run", **options) == 2
    error = capsys.readouterr().err.strip()
    assert sentence in error
    assert "Traceback" not in error


def test_recipes_of_msrvtt(tmp_path, capsys):
    recipe = str(ROOT / "configs" / "msrvtt.py")
    full, first = (config(recipe=recipe, model=name) for name in ("hmgr", "vse-1ka"))
    assert (full.train.steps, full.eval.protocols) == (50850, ("msrvtt",))
    assert (first.train.steps, first.eval.protocols) == (66750, ("msrvtt1ka",))
    assert (full.name, first.name, first.model.name) == ("msrvtt", "msrvtt1ka", "vse")
    assert (full.model.frames, full.model.dim, full.data.visual) == (20, 1024, "video")
    root = scan_folder(tmp_path / "data")
    assert run(tmp_path / "run", recipe=recipe, model="hmgr-7k", data__root=root) == 2
    assert "give hmgr-1ka" in capsys.readouterr().err
