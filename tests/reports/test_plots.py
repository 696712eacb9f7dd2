"""Pictures exist, show what the rows hold and never warn (warnings are errors here)."""

import json
import sys

import numpy as np
import pytest
from matplotlib.image import imread

from hmgr_jax.reports import plots

TRAINING = [{"step": s, "loss": 3 / s, "hinge": 2 / s, "lr": 1e-3} for s in range(10, 110, 10)]


def dev(directions, steps=(50, 100), **more):
    measures = {"R@1": 30.0, "R@5": 60.0, "R@10": 70.0, "medR": 3.0}
    recalls = {f"dev/{d}/{m}": value for d in directions for m, value in measures.items()}
    return [{"step": s, **recalls, "dev/rsum": 100.0 + s, **more} for s in steps]


@pytest.fixture
def figures(monkeypatch):
    """Every figure that is saved, beside its file."""
    kept = []
    save = plots.save_png
    monkeypatch.setattr(
        plots, "save_png", lambda figure, path: (kept.append(figure), save(figure, path))[1]
    )
    return kept


def draw(workdir, rows, **options):
    workdir.mkdir(exist_ok=True)
    (workdir / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return plots.curves(workdir, **options)


def titles(figure):
    return [axes.get_title() for axes in figure.axes]


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([], ["training loss"]),
        (TRAINING[:1], ["training loss"]),
        ([{"step": 0, "loss": 1.0}], ["training loss"]),
        (TRAINING, ["training loss"]),
        (
            dev(["i2t", "t2i"], [0]),
            ["training loss", "dev rsum", "dev image → text", "dev text → image"],
        ),
        (
            TRAINING + dev(["t2v", "v2t"]),
            ["training loss", "dev rsum", "dev text → video", "dev video → text"],
        ),
        (
            [*TRAINING, {"step": 100, "dev/vqa/accuracy": 40.0}],
            ["training loss", "dev vqa/accuracy"],
        ),
        (
            [*TRAINING, {"step": 100, "dev/image2point/mAP": 4.0, "dev/coco1k/i2t/R@1": 40.0}],
            ["training loss", "dev image → point"],
        ),
    ],
)
def test_curves_of_all_kinds_of_runs(tmp_path, figures, rows, expected):
    path = draw(tmp_path / "run", rows)
    assert titles(figures[0]) == expected
    assert path == tmp_path / "run" / "curves.png"
    assert np.ptp(imread(path)[..., :3]) == 1.0  # something black on something white
    assert sorted(x.name for x in path.parent.iterdir()) == ["curves.png", "metrics.jsonl"]


def test_curves_show_the_losses_and_nothing_else(tmp_path, figures):
    draw(tmp_path, TRAINING + dev(["i2t", "t2i"]))
    lines = {line.get_label(): line.get_xydata().tolist() for line in figures[0].axes[0].lines}
    assert lines == {
        name: [[row["step"], row[name]] for row in TRAINING] for name in ("loss", "hinge")
    }
    shown = {line.get_label() for line in figures[0].axes[2].lines}
    assert {"R@1", "R@5", "R@10"} < shown
    assert "medR" not in shown


def test_three_pairs_of_modalities_stand_side_by_side(tmp_path, figures):
    names = ["image2mesh", "image2point", "mesh2image", "mesh2point", "point2image", "point2mesh"]
    draw(tmp_path, TRAINING + dev(names))
    assert titles(figures[0])[2:] == [
        "dev image → mesh",
        "dev mesh → image",
        "dev image → point",
        "dev point → image",
        "dev mesh → point",
        "dev point → mesh",
    ]


def marked(figure):
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def test_the_best_step_is_marked_on_every_dev_panel(tmp_path, figures):
    rows = dev(["i2t"], [10, 20, 30])
    for row, rsum in zip(rows, (5.0, 9.0, 9.0), strict=True):
        row["dev/rsum"] = rsum
    draw(tmp_path, TRAINING + rows)
    assert marked(figures[0]) == ["best: step 20"] * 2
    draw(tmp_path, TRAINING + rows, best_step=30)
    assert marked(figures[1]) == ["best: step 30"] * 2


def test_many_losses_stay_apart(tmp_path, figures):
    draw(tmp_path, [{"step": s} | {f"term{i}": i + s / 9 for i in range(30)} for s in range(5)])
    lines = figures[0].axes[0].lines
    assert len(lines) == 30
    assert len({(line.get_color(), line.get_linestyle()) for line in lines[:18]}) == 18


@pytest.mark.parametrize(
    "metrics",
    [
        {"i2t/R@1": 50.0, "i2t/R@5": 75.0, "i2t/R@10": 100.0, "t2i/R@1": 0.0, "rsum": 225.0},
        {f"{a}2{b}/mAP": 60.0 for a in ("image", "mesh", "point") for b in ("x", "y")},
        {"t2v/R@1": 3.0, "v2t/mAP@50": 9.0},
        {"vqa/accuracy": 40.0},
        {},
    ],
)
def test_bars_of_all_kinds_of_results(tmp_path, figures, metrics):
    path = plots.recalls(tmp_path, metrics, "hmgr, test, F30K 1K")
    heights = sorted(bar.get_height() for bar in figures[0].axes[0].patches)
    drawn = sorted(v for name, v in metrics.items() if plots.DIRECTION.fullmatch(name))
    assert heights == drawn
    assert titles(figures[0]) == ["hmgr, test, F30K 1K"]
    assert np.ptp(imread(path)[..., :3]) == 1.0


def test_recalls_stand_in_the_order_of_their_depth(tmp_path, figures):
    plots.recalls(tmp_path, {f"i2t/R@{k}": float(k) for k in (10, 1, 5)}, "")
    assert [bar.get_height() for bar in figures[0].axes[0].patches] == [1.0, 5.0, 10.0]


def test_no_global_state_of_pyplot_is_touched():
    assert "matplotlib.pyplot" not in sys.modules
