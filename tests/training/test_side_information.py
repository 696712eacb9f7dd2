"""What is known of regions besides their features, from the recipe to the model."""

import jax
import numpy as np
import pytest
from tiny_run import config, scan_folder

from hmgr_jax.data.worlds.scene import COLOURS, SHAPES
from hmgr_jax.errors import UserError
from hmgr_jax.models.base import Feature, demand_ids
from hmgr_jax.training.experiment import build

ON_FILES = {
    "data__source": "scan",
    "data__batching": "rows",
    "eval__protocols": "plain",
    "eval__dev_protocols": "plain",
}
CLASSES = len(SHAPES) * len(COLOURS)


def experiment(**options):
    return build(config(model="racg", **options))


def test_what_the_data_lacks_is_said_in_a_sentence(tmp_path):
    found = experiment(**ON_FILES, data__root=scan_folder(tmp_path / "data"))
    assert found.goes_without() == (
        "The data has no labels and no attributes and no boxes of image items: racg goes without."
    )
    assert found.model.inputs()["image"].keys() == {"regions", "n_regions"}


def test_worlds_have_no_attributes():
    found = experiment()
    assert found.goes_without() == "The data has no attributes of image items: racg goes without."
    assert {"labels", "boxes"} <= found.model.inputs()["image"].keys()
    off = experiment(model__semantic_embed=False)
    assert off.goes_without() == ""
    assert build(config(model="vse")).goes_without() == ""


def test_ids_out_of_range_are_refused():
    wanted = {"labels": Feature((2,), "int16", optional=True, below=3), "boxes": Feature((), "f")}
    demand_ids(wanted, {"labels": np.array([[-1, 2]], np.int16), "boxes": np.ones(3)})
    demand_ids(wanted, {})
    for bad in (3, -2):
        with pytest.raises(UserError, match=r"labels are ids from -1 \(none\) to 2, found"):
            demand_ids(wanted, {"labels": np.array([[0, bad]], np.int16)})
    found = experiment(model__object_classes=5)
    row = {"row": {}, "text": {}, "image": {"labels": np.array([[7]], np.int16)}}
    with pytest.raises(UserError, match="raise the model's number of classes"):
        found.for_model(row)


def test_names_of_classes_become_their_first_vectors(tmp_path):
    names = [f"{colour} {shape}" for shape in SHAPES for colour in COLOURS]
    names[3] = "unheard-of"
    (tmp_path / "names.txt").write_text("".join(f"{name}\n" for name in names))
    named = {
        "model__object_classes": CLASSES,
        "data__vectors": "captions",
        "data__object_names": tmp_path / "names.txt",
    }
    found = experiment(**named)
    with pytest.warns(
        RuntimeWarning, match=f"{CLASSES - 1} of {CLASSES} class names have a vector"
    ):
        params = jax.device_get(found.first_state().params)
    words, table = params["text"]["words"]["vectors"], params["image"]["classes"]["labels"]
    known = found.data.vocabulary
    expected = [words[[known.id(word) for word in name.split()]].mean(axis=0) for name in names]
    here = np.arange(CLASSES) != 3
    np.testing.assert_allclose(table["vectors"][1:][here], np.array(expected)[here], rtol=1e-6)
    assert not np.allclose(table["vectors"][4], words[3])  # <unk> has no meaning


def test_names_for_a_model_without_classes_are_refused(tmp_path):
    found = build(config(model="vse", data__object_names=tmp_path / "names.txt"))
    with pytest.raises(UserError, match="vse has no vectors for them here"):
        found.first_state()
