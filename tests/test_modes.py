"""What a finished run is good for: evaluate, encode, show, several seeds, ``hmgr_jax.load``."""

import errno
import json
import os
import re
import shutil

import numpy as np
import pytest
from tiny_run import arguments, config, files, finished, results, run, scan_folder

import hmgr_jax
from hmgr_jax.data.generated.worlds import open_worlds
from hmgr_jax.errors import FoundNonFinite, UserError
from hmgr_jax.evaluation.all_pairs import Bucket
from hmgr_jax.evaluation.evaluate import Evaluator
from hmgr_jax.evaluation.retriever import Retriever
from hmgr_jax.main import main
from hmgr_jax.metrics.protocols import evaluate_all
from hmgr_jax.models import get_model
from hmgr_jax.models.base import Model
from hmgr_jax.reports import finish
from hmgr_jax.training import loop

F = open_worlds(0, 4, 4, 4).splits["test"].sources["image"].gather(np.arange(1))["regions"].shape[2]
REGIONS = np.ones((2, 6, F), np.float32)


@pytest.fixture
def workdir(tmp_path):
    return shutil.copytree(finished(), tmp_path / "run")


@pytest.fixture(scope="module")
def retriever():
    return hmgr_jax.load(finished())


@pytest.fixture(scope="module")
def split():
    """The test split of the run."""
    return open_worlds(0, 40, 8, 12).splits["test"]


# --- evaluate ---------------------------------------------------------------------------------


def test_evaluate_reproduces_the_results(workdir, capsys):
    before = files(workdir)
    assert main(["main", "--mode=evaluate", f"--workdir={workdir}"]) == 0
    found = json.loads((workdir / "evaluation-test.json").read_text())
    assert found == results(workdir)
    assert f"vse on worlds, test, step {found['step']}" in capsys.readouterr().out
    after = files(workdir)
    assert after.pop("evaluation-test.json")
    assert after == before


@pytest.mark.slow
def test_evaluate_of_a_run_that_may_only_be_read_shows_its_results(workdir, capsys, monkeypatch):
    (workdir / "uncertainty-test.csv").write_text("of an earlier evaluation")
    before = files(workdir)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert main(["main", "--mode=evaluate", f"--workdir={workdir}"]) == 0
    out = capsys.readouterr().out
    assert f"results:    not written, {workdir} may only be read" in out
    assert re.search(r"i2t .*\n(.*\n)*.*chance, i2t", out)
    assert "uncertainty-test.csv" not in out
    assert files(workdir) == before


def test_a_report_that_cannot_be_written_does_not_lose_the_metrics(workdir, capsys, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "answers-test.json")

    monkeypatch.setattr(finish, "_answers", lambda *_: full)
    assert main(["main", "--mode=evaluate", f"--workdir={workdir}"]) == 2
    out, errors = capsys.readouterr()
    assert "chance, i2t" in out
    assert "answers-test.json (No space left on device)" in errors
    assert json.loads((workdir / "evaluation-test.json").read_text()) == results(workdir)


def test_evaluate_dev_as_training_did(workdir):
    assert run(workdir, "--mode=evaluate", "--split=dev") == 0
    found = json.loads((workdir / "evaluation-dev.json").read_text())
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    (row,) = [r for r in rows if r["step"] == found["step"] and "dev/rsum" in r]
    assert {f"dev/{name}": value for name, value in found["metrics"].items()} == {
        name: value for name, value in row.items() if name != "step"
    }


@pytest.mark.slow
def test_evaluate_otherwise(workdir):
    """Values change what was saved; a recipe replaces data and evaluation, and says so."""
    assert main(["main", "--mode=evaluate", f"--workdir={workdir}", "--config.eval.tile=5"]) == 0
    assert json.loads((workdir / "evaluation-test.json").read_text()) == results(workdir)
    other = ["--config.data.worlds.test=24", "--config.eval.protocols=plain"]
    assert main(["main", "--mode=evaluate", f"--workdir={workdir}", *other]) == 0
    found = json.loads((workdir / "evaluation-test.json").read_text())
    assert found["protocol"] == "plain"
    assert found["config_hash"] != results(workdir)["config_hash"]
    with pytest.warns(UserWarning, match=r"data\.worlds\.test: 12 -> 24"):
        Retriever.load(finished(), config(data__worlds__test=24))
    with pytest.warns(UserWarning, match=r"keeps its trained options.*model\.dim: 24 -> 16"):
        Retriever.load(finished(), config(model__dim=24))


# --- encode -----------------------------------------------------------------------------------


def test_encode_writes_codes_in_the_order_of_their_ids(workdir, split, capsys):
    assert main(["main", "--mode=encode", f"--workdir={workdir}"]) == 0
    codes = {}
    for modality, count in (("image", 12), ("text", 60)):
        path = workdir / "codes" / f"test_{modality}.npy"
        codes[modality] = np.load(path)
        assert (codes[modality].dtype, codes[modality].shape) == (np.float32, (count, 16))
        ids = (workdir / "codes" / f"test_{modality}_ids.txt").read_text().splitlines()
        assert ids == list(split.ids[modality])
        assert str(path) in capsys.readouterr().out or modality == "text"
    groups = split.groups
    metrics = evaluate_all(
        ("worlds", "family"),
        codes["image"] @ codes["text"].T,
        groups["image"],
        groups["text"],
        families=split.families,
    )
    assert metrics == results(workdir)["metrics"]


# --- load -------------------------------------------------------------------------------------


def test_load_encodes_sentences_and_regions(retriever, split):
    """Raw input gives the codes of the pipeline, and search finds what evaluation counted."""
    raw = split.sources["image"].gather(np.arange(12))
    sentences = split.sources["text"].captions
    items = {"regions": raw["regions"].astype(np.float64), "n_regions": raw["n_regions"].tolist()}
    images = retriever.encode("image", items)
    texts = retriever.encode("text", sentences)
    stored = retriever.evaluator.encode_split(retriever.variables, split)
    np.testing.assert_array_equal(images, stored["image"])
    np.testing.assert_array_equal(texts, stored["text"])

    metrics = results(finished())["metrics"]
    for query, gallery, side in (("text", "image", "t2i"), ("image", "text", "i2t")):
        codes = {"image": images, "text": texts}
        found, scores = retriever.search((query, codes[query]), (gallery, codes[gallery]), k=5)
        assert (np.diff(scores, axis=1) <= 0).all()
        hits = split.groups[gallery][found] == split.groups[query][:, None]
        for k in (1, 5):
            share = 100 * hits[:, :k].any(axis=1).mean()
            assert share == pytest.approx(metrics[f"{side}/R@{k}"])


def test_load_takes_one_item_and_unknown_words(retriever):
    text = retriever.encode("text", ["a zyzzyva left of a RED circle!"])
    image = retriever.encode("image", {"regions": REGIONS[:1]})
    items, scores = retriever.search(("text", text), ("image", image), k=3)
    assert items.tolist() == [[0]]
    assert scores == pytest.approx(retriever.score(("image", image), ("text", text)))


def test_long_sentences_are_cut_as_long_captions_are(retriever):
    """The last bucket of the run is 32 long, <start> and <end> within."""
    long = " ".join(["red", "circle"] * 20)
    with pytest.warns(
        RuntimeWarning, match=r"cuts 1 of 2 texts of the request \(50.0%\) to the first 30"
    ):
        found = retriever.encode("text", ["a red star", long])
    cut = retriever.encode("text", ["a red star", " ".join(long.split()[:30])])
    np.testing.assert_array_equal(found, cut)
    retriever = hmgr_jax.load(finished())
    retriever.config.data.max_words = 4
    with pytest.warns(
        RuntimeWarning, match=r"cuts 1 of 1 texts of the request \(100.0%\) to the first 4 "
    ):
        found = retriever.encode("text", [long])
    np.testing.assert_array_equal(found, retriever.encode("text", ["red circle red circle"]))


@pytest.mark.parametrize(
    ("modality", "items", "sentence"),
    [
        ("video", ["a"], "vse knows image, text, not video"),
        ("text", "a sentence", "Items must be a list with a sentence each, or arrays, got 'a s"),
        ("text", [], "a list with at least a sentence"),
        ("text", None, "Items must be a list with a sentence each"),
        ("text", ["a dog", float("nan")], "Item 1 is nan, a float, where a sentence was"),
        ("text", [None], "Item 0 is None, a NoneType"),
        ("text", [b"a dog"], "Item 0 is b'a dog', a bytes"),
        ("text", [["a", "dog"]], r"Item 0 is \['a', 'dog'\], a list"),
        ("image", [None], "Item 0 is None, a NoneType, where a picture file was"),
        ("image", {"regions": np.full((1, 3, 60), 2**40)}, "the integer 1099511627776, which"),
        ("image", {"regions": [["a"]]}, "regions must be an array of numbers, got <U1"),
        ("image", {"regions": [[1, 2], [3]]}, "regions must be an array of numbers, got object"),
        ("text", ["a", " "], "Sentence 1 is empty"),
        (
            "image",
            ["a"],
            "was trained on regions, n_regions of images, not on pixels or features of",
        ),
        ("image", {}, "items must have one length, got {}"),
        ("image", {"regions": REGIONS[:0]}, "must have one length"),
        ("image", {"region": REGIONS}, rf"need regions of shape \[2, 6, {F}\], got nothing"),
        ("image", {"regions": REGIONS[0]}, rf"of shape \[6, 6, {F}\], got \[6, {F}\]"),
        ("image", {"regions": REGIONS[:, :4]}, rf"\[2, 6, {F}\], got \[2, 4, {F}\]"),
        ("image", {"regions": REGIONS, "n_regions": np.ones(3)}, "must have one length"),
        ("image", {"regions": np.float32(1)}, "must have one length"),
    ],
)
def test_encode_rejects_bad_items(retriever, modality, items, sentence):
    with pytest.raises(UserError, match=sentence):
        retriever.encode(modality, items)


def test_encode_rejects_non_finite_items(retriever):
    bad = REGIONS.copy()
    bad[1, 2, 3] = np.inf
    with pytest.raises(FoundNonFinite, match="regions of image item 1 holds NaN or infinity"):
        retriever.encode("image", {"regions": bad})
    codes = retriever.encode("text", ["a"])
    with pytest.raises(UserError, match="k must be at least 1"):
        retriever.search(("text", codes), ("text", codes), k=0)


def test_load_works_on_fewer_devices_than_training_used(monkeypatch):
    monkeypatch.setattr("hmgr_jax.evaluation.trained_run.with_tuples", _on_many_devices)
    assert hmgr_jax.load(finished()).evaluator.mesh.devices.size == 8


def _on_many_devices(tree):
    return {**tree, "parallel": {**tree["parallel"], "devices": 64}}


@pytest.mark.slow
def test_models_that_look_at_the_training_items_do_so_everywhere(monkeypatch, workdir):
    """``finalize`` sees the codes of the whole train split before every use of the model."""
    seen = []

    def finalize(self, variables, codes, rows):
        seen.append({modality: (len(x), len(rows[modality])) for modality, x in codes.items()})
        return variables

    monkeypatch.setattr(type(get_model("vse")), "finalize", finalize)
    monkeypatch.setattr(type(get_model("vse")), "needs_train", Model.needs_train)
    hmgr_jax.load(workdir)
    assert seen == [{"image": (40, 200), "text": (200, 200)}]


def test_codes_of_several_shapes_are_put_in_order(retriever):
    """As IMRAM's captions, which come in a bucket a length."""
    buckets = [
        Bucket(np.array([3, 0]), np.full((2, 4), [[3.0], [0.0]], np.float32)),
        Bucket(np.array([2, 1]), np.full((2, 4), [[2.0], [1.0]], np.float32)),
    ]
    found = Evaluator.vectors(retriever.evaluator, retriever.variables, "text", buckets)
    np.testing.assert_array_equal(found[:, 0], [0, 1, 2, 3])


# --- seeds and show ---------------------------------------------------------------------------


@pytest.mark.slow
def test_seeds(tmp_path, capsys):
    sizes = {"train__steps": 4}
    assert run(tmp_path, "--seeds=0,5", **sizes) == 0
    out = capsys.readouterr().out
    assert "vse on worlds, 2 seeds, test" in out
    assert f"results:    {tmp_path / 'seeds.json'}" in out
    found = json.loads((tmp_path / "seeds.json").read_text())
    runs = [results(tmp_path / f"seed{seed}") for seed in (0, 5)]
    assert found["seeds"] == [0, 5]
    assert found["config_hash"] == [r["config_hash"] for r in runs]
    assert found["step"] == [r["step"] for r in runs]
    assert len(set(found["config_hash"])) == 2
    for name, spread in found["metrics"].items():
        values = [r["metrics"][name] for r in runs]
        assert spread["mean"] == pytest.approx(np.mean(values))
        assert spread["std"] == pytest.approx(np.std(values, ddof=1))
    losses = [(tmp_path / f"seed{s}" / "metrics.jsonl").read_text() for s in (0, 5)]
    assert losses[0] != losses[1]

    before = files(tmp_path / "seed0")
    assert run(tmp_path, "--seeds=0,5", **sizes) == 0
    assert files(tmp_path / "seed0") == before


def test_a_stop_between_seeds_exits_with_0(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "train", lambda config, workdir, **_: None)
    assert run(tmp_path, "--seeds=0,1") == 0
    assert not (tmp_path / "seeds.json").exists()


@pytest.mark.parametrize(
    ("recipe", "sizes"),
    [
        ("f8k", "36 regions of 2,048 numbers, a vocabulary of 10,000 words"),
        ("coco_images", "pictures of 224 x 224 pixels, a vocabulary of 10,000 words"),
        ("modelnet", "4 views of 112 x 112 pixels, 1,024 points, 1,024 faces, 40 classes"),
        ("vqa", "36 regions of 2,048 numbers, a vocabulary of 10,000 words"),
        ("wikipedia", "image vectors of 4,096 numbers, text vectors of 300 numbers, 40 classes"),
        ("msrvtt", "36 frames of 2,048 numbers, a vocabulary of 10,000 words"),
    ],
)
def test_show_without_data_shows_the_model_and_what_is_wanted(tmp_path, capsys, recipe, sizes):
    root = tmp_path / "none"
    assert main(["main", "--mode=show", f"--config={recipe}", f"--config.data.root={root}"]) == 0
    out = capsys.readouterr().out
    assert f", as with {sizes}\n" in out
    assert re.search(r"total\s+[\d,]{6,}", out)
    assert f"data.root is {root}, which does not exist: give the f" in out


def test_show_without_data_says_why_a_model_cannot_be_shown(tmp_path, capsys):
    more = [f"--config.data.root={tmp_path / 'none'}"]
    assert main(["main", "--mode=show", "--config=f8k:clip", *more]) == 0
    assert "Model clip: clip needs pixels of its items, but the data" in capsys.readouterr().out


def test_show(tmp_path, capsys):
    assert run(tmp_path / "run", "--mode=show", model="hmgr") == 0
    out = capsys.readouterr().out
    assert "  train.steps = 12\n" in out
    assert "Model hmgr\n" in out
    parameters = {
        line.split()[0]: int(line.split()[1].replace(",", ""))
        for line in out.split("Model hmgr\n")[1].split("Data ")[0].splitlines()[1:]
    }
    assert parameters["image"] + parameters["text"] == parameters["total"]
    assert parameters["words"] == 8 * len(open_worlds(0, 4, 4, 4).vocabulary)
    assert ["train", "200", "40", "200"] in [line.split() for line in out.splitlines()]
    assert f"regions: float16 [6, {F}]" in out
    assert "Plan: 12 steps of 8 rows, 5 steps per epoch, 2.4 epochs, on 1 device(s)" in out
    flops = float(out.split("the matrix products of a step cost ")[1].split()[0])
    assert 1e-4 < flops < 1e-1
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_scan_folder_from_training_to_search(tmp_path):
    """The other kind of data, on all 8 devices: train, evaluate, encode."""
    root, workdir = scan_folder(tmp_path / "data"), tmp_path / "run"
    values = {
        "data__source": "scan",
        "data__batching": "rows",
        "data__root": root,
        "eval__protocols": "f8k",
        "eval__dev_protocols": "plain",
        "parallel__devices": 0,
        "train__steps": 4,
        "train__batch_size": 12,  # two rows a device, four of them padding
    }
    assert main(arguments(workdir, **values)) == 0
    moved = root.rename(tmp_path / "moved")
    for mode in ("evaluate", "encode"):
        command = ["main", f"--mode={mode}", f"--workdir={workdir}", f"--config.data.root={moved}"]
        assert main(command) == 0
    found = json.loads((workdir / "evaluation-test.json").read_text())
    assert {k: found[k] for k in ("metrics", "step", "config_hash", "protocol")} == {
        k: results(workdir)[k] for k in ("metrics", "step", "config_hash", "protocol")
    }
    ids = (workdir / "codes" / "test_text_ids.txt").read_text().splitlines()
    assert ids[:3] == ["test0.jpg#0", "test0.jpg#1", "test1.jpg#0"]
