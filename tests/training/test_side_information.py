"""What is known of regions besides their features, from the recipe to the model."""

import jax
import numpy as np
import pytest
from tiny_run import config, scan_folder

from hmgr_jax.data.generated.worlds.scene import COLOURS, SHAPES
from hmgr_jax.errors import UserError
from hmgr_jax.models.base import Feature, check_ids, select_inputs
from hmgr_jax.training import recipe_file
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


def test_missing_side_information_is_reported(tmp_path):
    found = experiment(**ON_FILES, data__root=scan_folder(tmp_path / "data"))
    assert found.goes_without() == (
        "The data has no labels and no attributes and no boxes of image items: racg goes without."
    )
    assert found.model.inputs()["image"].keys() == {"regions", "n_regions"}


def test_worlds_have_no_attributes():
    found = experiment()
    assert found.goes_without() == "The data has no attributes of image items: racg goes without."
    assert {"labels", "boxes"} <= found.model.inputs()["image"].keys()
    off = experiment(model__object_classes=0, model__attribute_classes=0)
    assert off.goes_without() == ""
    assert build(config(model="vse")).goes_without() == ""


def test_word_graphs_that_the_data_lacks_are_named(tmp_path):
    root = scan_folder(tmp_path / "data")
    found = build(config(model="resg", **ON_FILES, data__root=root))
    assert found.goes_without().endswith(
        "of image items and no word graphs of text items: resg goes without."
    )
    assert found.model.inputs()["text"].keys() == {"tokens", "lengths"}
    wanted = {"model__text_support": "dependency"}
    with pytest.raises(UserError, match=r"needs word graphs of each text.* _caps.conllu"):
        build(config(model="resg", **ON_FILES, data__root=root, **wanted))
    full = {"model__text_support": "full", "model__text_edges": "distance"}
    found = build(config(model="resg", **ON_FILES, data__root=root, **full))
    assert "word graphs" not in found.goes_without()


@pytest.mark.parametrize("model", ["racg", "racg_strict", "resg"])
def test_ids_in_files_reach_the_model(tmp_path, model):
    """Labels and attributes of a folder; one that is out of range is named before any step."""
    root = scan_folder(tmp_path / "data")
    for name, count in (("train", 24), ("dev", 8), ("test", 8)):
        for kind, most in (("labels", 7), ("attributes", 5)):
            values = np.arange(count * 4, dtype=np.int16).reshape(count, 4) % (most + 2) - 1
            np.save(root / f"{name}_{kind}.npy", values)
    sizes = {"model__object_classes": 8, "model__attribute_classes": 6}
    given = {"model": model, **ON_FILES, "data__root": root}
    found = build(config(**given, **sizes))
    assert "labels" not in found.goes_without()
    assert "attributes" not in found.goes_without()
    assert {"labels", "attributes"} <= found.model.inputs()["image"].keys()
    batch = found.data.splits["test"].sources["image"].gather(np.arange(3))
    assert batch["attributes"].max() == 5
    with pytest.raises(
        UserError,
        match=r"attributes of the train image train1.jpg reach 5, .* set model.attribute_classes",
    ):
        build(config(**given, **sizes | {"model__attribute_classes": 3}))


@pytest.mark.parametrize("model", ["racg", "racg_strict", "resg"])
def test_recipes_have_the_classes_of_their_data(model):
    colours_of_shapes = recipe_file.load(f"configs/worlds.py:{model}", {})
    assert colours_of_shapes.model.object_classes == CLASSES
    assert recipe_file.load(f"configs/f8k.py:{model}", {}).model.object_classes == 80


def test_rejects_missing_required_inputs():
    wanted = {"heads": Feature((None,), "int32"), "boxes": Feature((4,), "f", optional=True)}
    with pytest.raises(UserError, match="needs heads of text items, found tokens"):
        select_inputs(wanted, {"tokens": 1}, "text items")
    assert select_inputs(wanted, {"tokens": 1, "heads": 2}) == {"heads": 2}


def test_rejects_ids_out_of_range():
    wanted = {
        "labels": Feature((2,), "int16", optional=True, num_classes=3),
        "boxes": Feature((), "f"),
    }
    check_ids(wanted, {"labels": np.array([[-1, 2]], np.int16), "boxes": np.ones(3)})
    check_ids(wanted, {})
    for bad in (3, -2):
        with pytest.raises(
            UserError, match=r"labels of items must be ids from -1 \(none\) to 2, f"
        ):
            check_ids(wanted, {"labels": np.array([[0, bad]], np.int16)})
    found = experiment(model__object_classes=5)
    items = found.data.splits["train"].sources["image"].gather(np.arange(8))
    with pytest.raises(UserError, match=r"found -1 to \d+: .*raise model.object_classes"):
        found.for_model({"row": {}, "text": {}, "image": items})


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
    with pytest.raises(UserError, match="vse has no vectors for them"):
        found.first_state()
