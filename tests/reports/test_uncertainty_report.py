"""The report of uncertainties: its files, and which items are shown."""

import csv
import re
import xml.dom.minidom

import numpy as np
from PIL import Image

from hmgr_jax.data.generated.worlds import open_worlds
from hmgr_jax.data.pictures.pixels import Augmentation
from hmgr_jax.reports.uncertainty import files, report


def _split(pictures=True):
    small = Augmentation(size=16, resize=16, train="centre")
    return open_worlds(0, 4, 4, 12, pictures, augmentation=small).splits["test"]


def test_files(tmp_path):
    split = _split()
    rng = np.random.default_rng(0)
    scores = rng.random((12, 60)).astype(np.float32)
    uncertainty = {"image": rng.random(12), "text": rng.random(60)}
    table, rho = report(tmp_path, split, uncertainty, scores, title="<model> & worlds")
    assert [row["direction"] for row in table] == ["i2t"] * 10 + ["t2i"] * 10
    assert sum(row["queries"] for row in table[10:]) == 60
    assert {"i2t/rank", "t2i/rank", "t2i/length"} == rho.keys()
    with files(tmp_path)["table"].open(encoding="utf-8", newline="") as file:
        read = list(csv.DictReader(file))
    assert len(read) == 20
    assert float(read[3]["R@5"]) == np.float64(f"{table[3]['R@5']:.6g}")
    with Image.open(files(tmp_path)["bins"]) as drawn:
        assert min(drawn.size) > 200
    page = files(tmp_path)["sheet"].read_text("utf-8")
    assert "&lt;model&gt; &amp; worlds" in page
    assert page.count("<img ") == 48  # twelve at either end of both sides
    assert not re.search(r'(src|href)="(?!data:)', page)
    whole = re.sub(r"<(img|meta)([^>]*)>", r"<\1\2/>", page.replace("<br>", "<br/>"))
    xml.dom.minidom.parseString(whole.replace("<!doctype html>", "", 1))  # every tag is closed


def test_the_sheet_shows_the_ends(tmp_path):
    split = _split()
    scores = np.random.default_rng(0).random((12, 60)).astype(np.float32)
    report(tmp_path, split, {"text": np.arange(60.0)[::-1]}, scores, title="t")
    page = files(tmp_path)["sheet"].read_text("utf-8")
    certain, uncertain = page.split("Least certain")
    assert "test/000011#4" in certain
    assert "test/000011#4" not in uncertain
    assert "test/000000#0" in uncertain
    assert split.sources["text"].captions[59] in certain


def test_features_have_no_pictures(tmp_path):
    split = _split(pictures=False)
    scores = np.random.default_rng(0).random((12, 60)).astype(np.float32)
    report(tmp_path, split, {"image": np.arange(12.0)}, scores, title="t")
    page = files(tmp_path)["sheet"].read_text("utf-8")
    assert "<img" not in page
    assert page.count("<li>") == 24
