"""Whole runs on feature sets: vectors in a file, to results and to a search."""

import json
from pathlib import Path

import numpy as np
import pytest

import hmgr_jax
from hmgr_jax.main import main

RECIPE = Path(__file__).parents[2] / "configs" / "features.py"
ROWS = {"tr": 48, "vl": 16, "te": 16}
FEATURES, WORDS, KINDS = 6, 20, 4
SMALL = {"dim": 8, "image_hidden": "8,", "knn_k": 3, "filters": "2,2"}


@pytest.fixture
def file(tmp_path):
    """Images and bags of words of four kinds, which share words; one pair in eight has no kind."""
    rng = np.random.default_rng(0)
    found = {}
    for split, rows in ROWS.items():
        kinds = rng.integers(0, KINDS, rows)
        found[f"I_{split}"] = rng.normal(size=(rows, FEATURES)) + np.eye(KINDS, FEATURES)[kinds]
        rates = np.repeat(np.eye(KINDS), WORDS // KINDS, axis=1)[kinds] + 0.2
        found[f"T_{split}"] = rng.poisson(rates)
        labels = np.eye(KINDS, dtype=np.uint8)[kinds]
        found[f"L_{split}"] = labels * (np.arange(rows) % 8 > 0)[:, None].astype(np.uint8)
    np.savez(tmp_path / "set.npz", **found)
    return tmp_path / "set.npz"


def arguments(file, model, **options):
    fields = SMALL if model != "gpldan" else {"dim": 8, "gate_dim": 4}
    given = {f"model.{k}": v for k, v in fields.items()} | {
        "data.root": file,
        "train.steps": 6,
        "train.eval_steps": 3,
        "train.batch_size": 16,
        "train.lr": 1e-2,
        "eval.protocols": "map,plain",
        "eval.dev_protocols": "map,",
        "eval.select": "mAP",
    }
    given |= options
    return [
        "main",
        f"--config={RECIPE}:{model}",
        f"--workdir={file.parent / model}",
        *(f"--config.{key}={value}" for key, value in given.items()),
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "options"),
    [
        ("gin", {"model.match": "label", "eval.train_gallery": True}),
        ("sckr", {"model.match": "group"}),
        ("gpldan", {"model.similarity": "knn", "model.neighbours": 5}),
    ],
)
def test_from_a_file_to_a_search(file, model, options, capsys):
    assert main(arguments(file, model, **options)) == 0, capsys.readouterr().err
    workdir = file.parent / model
    metrics = json.loads((workdir / "results.json").read_text())["metrics"]
    assert metrics["mAP"] > 20
    assert (workdir / "precision_recall.png").is_file()
    assert ("train_gallery/i2t/mAP@100" in metrics) == ("eval.train_gallery" in options)
    if model != "gpldan":  # its tables are kept, so that a search needs no data
        moved = file.rename(file.with_suffix(".moved"))
        retriever = hmgr_jax.load(workdir)
        with np.load(moved) as arrays:
            texts = retriever.encode("text", {"features": arrays["T_te"].astype(np.float32)})
            images = retriever.encode("image", {"features": arrays["I_te"].astype(np.float32)})
        numbers, scores = retriever.search(("text", texts), ("image", images), k=3)
        assert numbers.shape == scores.shape == (ROWS["te"], 3)


def test_labels_that_are_not_there_are_missed_before_training(file, capsys):
    with np.load(file) as arrays:
        without = {k: v for k, v in arrays.items() if not k.startswith("L_")}
    np.savez(file, **without)
    for options, said in (
        ({"model.match": "label"}, "learns from labels, but the training data has none"),
        ({"eval.train_gallery": True, "eval.protocols": "plain,"}, "eval.train_gallery needs"),
    ):
        plain = {"eval.protocols": "plain,", "eval.dev_protocols": "plain,"}
        plain |= {"eval.select": "rsum"}
        assert main(arguments(file, "gin", **(plain | options))) == 2
        assert said in capsys.readouterr().err
        assert not (file.parent / "gin" / "metrics.jsonl").exists()
