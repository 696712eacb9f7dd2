"""Padded regions and regions cut to their true number give the same loss and scores."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_run

from hmgr_jax.data.regions.scan import open_scan
from hmgr_jax.layers.dropout import Keys
from hmgr_jax.models import defaults, get_model
from hmgr_jax.models.base import LocalAxis, Plan
from hmgr_jax.training.experiment import item_shapes

REGIONS, SHORT, ROWS = 5, 3, 8
SIZES = {"dim": 16, "word_dim": 8, "slots": 8, "graph_layers": 1}
SYSTEMS = {
    "hmgr": {"boxes": True, "residual_gain": 1.0, "region_scale": "sqrt_l2"},
    "imram": {"variant": "full"},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Train of 24 images with 1 to 3 of 5 regions, zero after them, and boxes."""
    root = tiny_run.scan_folder(tmp_path_factory.mktemp("ragged"), regions=REGIONS)
    counts = np.random.default_rng(0).integers(1, SHORT + 1, 24).astype(np.int32)
    counts[0] = SHORT
    true = np.arange(REGIONS) < counts[:, None]
    features = np.load(root / "train_ims.npy") * true[..., None]
    boxes = np.tile(np.float32([0.1, 0.2, 0.6, 0.8]), (24, REGIONS, 1)) * true[..., None]
    np.save(root / "train_ims.npy", features)
    np.save(root / "train_counts.npy", counts)
    np.save(root / "train_boxes.npy", boxes.astype(np.float32))
    return open_scan(root, splits={"train": "train"})


def _model(name, data):
    known = defaults(name)
    fields = SIZES | SYSTEMS[name]
    fields = {key: value for key, value in fields.items() if key in known}
    fields |= {key: 0.0 for key in known if key.endswith("dropout")}
    plan = Plan(10, 5, len(data.vocabulary), item_shapes(data.splits["train"]))
    return get_model(name, **fields).fit_to(plan)


def _batch(model, data, regions):
    split = data.splits["train"]
    rows = np.arange(0, 2 * ROWS, 2)
    found = {}
    for modality, wanted in model.inputs().items():
        source = split.sources[modality]
        length = 16 if source.lengths is not None else None
        items = source.gather(split.rows[modality][rows], length)
        found[modality] = {name: jnp.asarray(items[name]) for name in wanted}
    image = found["image"]
    found["image"] = {k: x if x.ndim == 1 else x[:, :regions] for k, x in image.items()}
    assert int(image["n_regions"].max()) <= SHORT
    index = jnp.arange(ROWS, dtype=jnp.int32)
    row = {"index": index, "valid": index < ROWS, "group": index, "item": index}
    return found, row


def _close(a, b):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert np.isfinite(x).all()
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", SYSTEMS)
def test_padded_and_trimmed_rows_have_the_same_loss_and_gradient(data, name):
    model = _model(name, data)
    variables = jax.jit(model.init)(jax.random.key(0))

    def value(params, items, row):
        own = variables.replace(params=params)
        keys = Keys.at(jnp.int32(0), jnp.int32(0), row["index"])
        codes = {m: model.encode(own, m, items[m], train=True, keys=keys)[0] for m in items}
        step = jnp.int32(9)
        return model.loss(own, codes, row, step=step, keys=keys, axis=LocalAxis())[0]

    grad = jax.jit(jax.value_and_grad(value))
    both = [grad(variables.params, *_batch(model, data, regions)) for regions in (REGIONS, SHORT)]
    assert float(both[0][0]) > 0
    _close(*both)


@pytest.mark.parametrize("name", SYSTEMS)
def test_padded_and_trimmed_rows_have_the_same_scores(data, name):
    model = _model(name, data)
    variables = jax.jit(model.init)(jax.random.key(0))

    @jax.jit
    def score(image, text):
        codes = {
            m: model.encode(variables, m, items, train=False, keys=None)[0]
            for m, items in (("image", image), ("text", text))
        }
        return model.score(variables, ("image", codes["image"]), ("text", codes["text"]))

    items, _ = _batch(model, data, REGIONS)
    padded = score(items["image"], items["text"])
    counts = items["image"]["n_regions"]
    for count in range(1, SHORT + 1):  # images of so many regions alone, cut to exactly these
        which = np.flatnonzero(counts == count)
        own = {k: x[which] for k, x in items["image"].items()}
        own = {k: x if x.ndim == 1 else x[:, :count] for k, x in own.items()}
        _close(score(own, items["text"]), padded[which])
