"""A run on features of an encoder describes new pictures by itself, without its data."""

import json
import shutil

import numpy as np
import pytest
import tiny_run
from clip_files import written
from PIL import Image

import hmgr_jax
from hmgr_jax.errors import UserError
from hmgr_jax.files.manifest import ENCODER, ENCODER_PCA
from hmgr_jax.prepare import main as prepare
from hmgr_jax.search.command import main as search
from hmgr_jax.search.index import Index

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.*not in the vocabulary"),  # of six captions
]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Pictures, a CLIP, data prepared with it, and a run of them whose data are gone."""
    root = tmp_path_factory.mktemp("encoded")
    written(root / "clip", "clip")
    (root / "pictures").mkdir()
    rng, rows = np.random.default_rng(0), ["image,caption"]
    for n in range(24):
        pixels = rng.integers(0, 256, (9 + n, 20, 3), np.uint8)
        Image.fromarray(pixels).save(root / f"pictures/p{n}.png")
        rows.append(f"p{n}.png,picture {n}")
    (root / "c.csv").write_text("\n".join(rows) + "\n")
    command = ["prepare", "folder", "--pictures", root / "pictures", "--captions", root / "c.csv"]
    command += ["--encoder", f"clip={root / 'clip'}", "--grid", "2", "--pca", "5"]
    command += ["--dev", "0.2", "--test", "0.2", "--out", root / "data"]
    assert prepare([str(word) for word in command]) == 0
    options = {"data__source": "scan", "data__root": root / "data", "data__batching": "rows"}
    options |= {"eval__protocols": "('f8k',)", "eval__dev_protocols": "('f8k',)"}
    options |= {"train__steps": 2, "train__eval_steps": 2}
    assert tiny_run.run(root / "run", **options) == 0
    return root


@pytest.fixture
def run(made, tmp_path):
    """A copy of the run."""
    return shutil.copytree(made / "run", tmp_path / "run")


def test_pictures_are_described_as_the_data_were(made):
    retriever = hmgr_jax.load(made / "run")
    split = retriever.open(("test",)).splits["test"]
    files = [made / "pictures" / name for name in split.ids["image"]]
    prepared = split.sources["image"].gather(np.arange(len(files)))
    found = retriever.picture_source(files).gather(np.arange(len(files)))
    for name in ("regions", "n_regions", "boxes"):
        np.testing.assert_array_equal(found[name], prepared[name])
        assert found[name].dtype == prepared[name].dtype


def test_new_pictures_are_indexed_without_the_data(made, run, tmp_path):
    pytest.importorskip("faiss", reason="needs faiss-cpu: pip install 'hmgr-jax[index]'")
    data = (made / "data").rename(made / "elsewhere")
    try:
        given = ["--workdir", run, "--out", tmp_path / "index", "--images", made / "pictures"]
        assert search(["search", "index", *map(str, given)]) == 0
        asked = ["--index", tmp_path / "index", "--json", tmp_path / "found.json", "-k", "3"]
        asked += ["--image", made / "pictures" / "p3.png"]
        assert search(["search", "query", *map(str, asked)]) == 0
    finally:
        data.rename(made / "data")
    (query,) = json.loads((tmp_path / "found.json").read_text())["queries"]
    assert query["results"][0]["id"] == "p3.png"


def test_a_gallery_without_captions_is_indexed_as_its_pictures(made, tmp_path, capsys):
    pytest.importorskip("faiss", reason="needs faiss-cpu: pip install 'hmgr-jax[index]'")
    command = ["prepare", "folder", "--pictures", made / "pictures", "--out", tmp_path / "gallery"]
    command += ["--encoder", f"clip={made / 'clip'}", "--grid", "2"]
    given = ["search", "index", "--workdir", made / "run", "--out", tmp_path / "index"]
    given += ["--gallery", tmp_path / "gallery", "--pictures", made / "pictures"]

    def run(main, *words):
        return main([str(word) for word in words])

    assert run(prepare, *command, "--pca", "3") == 2
    assert "--pca 3 is fitted to pictures with captions" in capsys.readouterr().err
    assert run(prepare, *command) == 0
    assert run(search, *given) == 2
    assert "was made by another encoder" in capsys.readouterr().err
    shutil.rmtree(tmp_path / "gallery")
    assert run(prepare, *command, "--pca", made / "run" / ENCODER_PCA) == 0
    assert run(search, *given) == 0
    other = ["--images", made / "pictures", "--out", tmp_path / "same"]
    assert run(search, "search", "index", "--workdir", made / "run", *other) == 0
    both = [Index.load(tmp_path / name) for name in ("index", "same")]
    vectors = [index.engine.vectors(np.arange(24)) for index in both]
    np.testing.assert_array_equal(*vectors)
    assert both[0].items(range(24))[3].picture == both[1].items(range(24))[3].picture


def test_missing_weights_and_unknown_encoders_are_named(made, run):
    picture = [made / "pictures" / "p0.png"]
    path = run / ENCODER
    path.write_text(path.read_text().replace(str(made / "clip"), str(made / "gone")))
    with pytest.raises(UserError, match=r"encoder\.json names an encoder .*gone/config\.json"):
        hmgr_jax.load(run).encode("image", picture)
    path.unlink()
    with pytest.raises(UserError, match="not on pixels or features of prepare --encoder"):
        hmgr_jax.load(run).encode("image", picture)
