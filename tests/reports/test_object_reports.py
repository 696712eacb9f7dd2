"""What a run on 3D objects draws: the heat map of all nine pairs, sheets of neighbours."""

import shutil

import numpy as np
import pytest
from PIL import Image
from tiny_run import finished, results

from hmgr_jax.main import main
from hmgr_jax.reports import object_reports

# One run for these tests and for test_every_system.py.
pytestmark = pytest.mark.xdist_group("every_system")
MODALITIES = ("image", "point", "mesh")


@pytest.mark.slow
def test_a_run_on_solids_ends_with_nine_values_and_their_pictures():
    workdir = finished("center3d")
    metrics = results(workdir)["metrics"]
    for query in MODALITIES:
        for gallery in MODALITIES:
            assert 0 < metrics[f"{query}2{gallery}/mAP"] <= 100
    others = [f"{a}2{b}/mAP" for a in MODALITIES for b in MODALITIES if a != b]
    assert metrics["mAP"] == pytest.approx(np.mean([metrics[name] for name in others]))
    names = [path.name for path in object_reports.files(workdir)]
    assert names == [
        "map.png",
        "objects-image2mesh.png",
        "objects-image2point.png",
        "objects-point2mesh.png",
    ]
    for path in object_reports.files(workdir):
        with Image.open(path) as picture:
            assert min(picture.size) > 200


@pytest.mark.slow
def test_an_evaluation_draws_its_own(tmp_path, capsys):
    workdir = tmp_path / "run"
    shutil.copytree(finished("center3d"), workdir)
    before = {path: path.read_bytes() for path in object_reports.files(workdir)}
    assert (
        main(["main", f"--workdir={workdir}", "--mode=evaluate", "--config.eval.batch_size=16"])
        == 0
    )
    drawn = object_reports.files(workdir, "-test")
    assert [path.name for path in drawn] == [
        f"{path.stem}-test.png" for path in object_reports.files(workdir)
    ]
    printed = capsys.readouterr().out.replace("\n", "")
    assert all(str(path) in printed for path in drawn)
    assert before == {path: path.read_bytes() for path in object_reports.files(workdir)}


def test_no_map_of_results_that_lack_a_pair(tmp_path):
    found = {"image2point/mAP": 50.0, "point2image/mAP": 40.0}
    assert object_reports.heat_map(tmp_path, found, ("image", "point"), "title") is None
    assert not (tmp_path / "map.png").exists()
    found |= {"image2image/mAP": 70.0, "point2point/mAP": 60.0}
    assert object_reports.heat_map(tmp_path, found, ("image", "point"), "title").is_file()
    assert object_reports.heat_map(tmp_path, {}, ("image", "point"), "title") is None
    assert not (tmp_path / "map.png").exists(), "one of other results would be taken for these"
    others = {f"modelnet_others/{name}": value for name, value in found.items()}
    assert object_reports.heat_map(tmp_path, others, ("image", "point"), "title").is_file()
