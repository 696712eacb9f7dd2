"""center3d: views, centres and their gradients, rows without a class, invalid options."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from shape_data import CLASSES, FACES, POINTS, SIDE, open_shapes

from hmgr_jax.data.pipeline import Batches
from hmgr_jax.errors import UserError
from hmgr_jax.layers.dropout import Keys
from hmgr_jax.models import get_model
from hmgr_jax.models.base import LocalAxis, Plan, Variables
from hmgr_jax.models.center3d import encoder_inputs, single_label
from hmgr_jax.training.experiment import classes_of, item_shapes

B, D = 6, 5
SHAPES = {
    "image": {"views": (4, SIDE, SIDE, 3)},
    "point": {"points": (POINTS, 3)},
    "mesh": {"faces": (FACES, 15), "neighbours": (FACES, 3)},
}
SMALL = {"dim": D, "head_dim": 4, "cnn": "resnet10", "cnn_width": 4, "cnn_small_stem": True}
SMALL |= {"cloud_width": 4, "mesh_width": 4, "neighbours": 5}
RNG = np.random.default_rng(0)
VECTORS = {m: jnp.asarray(abs(RNG.standard_normal((B, D))), jnp.float32) for m in SHAPES}
KINDS = jnp.asarray([0, 1, 1, 2, 0, 1], jnp.int32)


def model(found=CLASSES, **options):
    return get_model("center3d", **(SMALL | options)).fit_to(Plan(10, 5, 4, SHAPES, found))


def variables(system, **stats):
    """With a classifier and centres, but without encoders, which the loss does not touch."""
    made = jax.eval_shape(system.init, jax.random.key(0))
    rng = np.random.default_rng(1)
    params = {
        name: jax.tree.map(lambda s: jnp.asarray(rng.standard_normal(s.shape), s.dtype), tree)
        for name, tree in made.params.items()
        if name in ("head", "centers")
    }
    return Variables(params, stats, None, None)


def loss(system, given, params=None, kinds=KINDS, valid=None):
    index = jnp.arange(B)
    labels = jnp.asarray(np.eye(CLASSES + 1, dtype=np.uint8)[np.asarray(kinds)][:, :CLASSES])
    row = {"index": index, "item": index, "group": index, "labels": labels}
    row["valid"] = jnp.ones(B, bool) if valid is None else jnp.asarray(valid)
    given = given if params is None else Variables(params, given.stats, None, None)
    step = jnp.int32(0)
    codes = {m: VECTORS[m] for m in system.modalities}
    keys = Keys.at(step, step, index)
    return system.loss(given, codes, row, step=step, keys=keys, axis=LocalAxis())


def test_the_total_is_the_weighted_sum_of_its_terms():
    system = model()
    total, terms, _, _ = loss(system, variables(system))
    parts = (terms["ce"] + 10.0 * terms["center"] + 0.1 * terms["mse"], terms["center_least"])
    assert total == pytest.approx(float(parts[0]), rel=1e-6)
    assert 0 < parts[1] < terms["center"]


@pytest.mark.parametrize("off", ["ce", "center", "mse"])
def test_each_loss_can_be_left_out(off):
    system = model(**{f"w_{off}": 0.0})
    total, terms, _, _ = loss(system, variables(system))
    assert off not in terms
    assert np.isfinite(total)


def test_centres_follow_the_unweighted_center_loss():
    system = model()
    given = variables(system)
    gradient = jax.grad(lambda p: loss(system, given, p)[0])(given.params)["centers"]
    gaps = sum(
        given.params["centers"][KINDS] - VECTORS[m] for m in system.modalities
    )  # of every row
    expected = np.zeros((CLASSES, D))
    np.add.at(expected, np.asarray(KINDS), np.asarray(gaps))
    expected *= 2 / (3 * B)
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-6)


def test_batch_mean_starts_a_centre_at_its_first_mean():
    system = model(center_init="batch_mean")
    zero, none = jnp.zeros((CLASSES, D), jnp.float32), jnp.zeros(CLASSES, jnp.float32)
    given = variables(system, centers={"value": zero, "seen": none})
    given.params["centers"] = zero
    _, terms, stats, _ = loss(system, given)
    rows = np.stack([np.asarray(VECTORS[m]) for m in system.modalities])
    means = np.stack([rows[:, np.asarray(KINDS) == k].mean((0, 1)) for k in range(3)])
    np.testing.assert_allclose(stats["centers"]["value"][:3], means, rtol=1e-5)
    np.testing.assert_array_equal(stats["centers"]["seen"], [1, 1, 1, 0])
    far = ((rows - means[np.asarray(KINDS)]) ** 2).sum(-1).mean()
    assert terms["center"] == pytest.approx(far, rel=1e-5)
    again = loss(system, Variables(given.params, stats, None, None), kinds=(KINDS + 1) % 4)[2]
    np.testing.assert_array_equal(again["centers"]["value"][:3], stats["centers"]["value"][:3])
    assert again["centers"]["seen"][3] == 1


def test_moving_centres_are_statistics():
    system = model(center_update="wen_ema")
    assert "centers" not in jax.eval_shape(system.init, jax.random.key(0)).params
    value = jnp.ones((CLASSES, D), jnp.float32)
    given = variables(system, centers={"value": value, "seen": jnp.ones(CLASSES, jnp.float32)})
    stats = loss(system, given)[2]["centers"]
    rows = np.stack([np.asarray(VECTORS[m]) for m in system.modalities])
    own = rows[:, np.asarray(KINDS) == 0]
    count = own.shape[0] * own.shape[1]
    moved = 1 - 0.5 * (count - own.sum((0, 1))) / (1 + count)
    np.testing.assert_allclose(stats["value"][0], moved, rtol=1e-5)
    np.testing.assert_array_equal(stats["value"][3], value[3])


def test_rows_without_a_class_count_in_the_mse_alone():
    system = model()
    given = variables(system)
    kinds, valid = KINDS.at[4:].set(-1), [True] * 4 + [False] * 2
    _, unknown, _, _ = loss(system, given, kinds=kinds)
    _, fewer, _, _ = loss(system, given, valid=valid)
    for name in ("ce", "center", "center_least"):
        assert unknown[name] == pytest.approx(float(fewer[name]), rel=1e-6)
    assert unknown["mse"] == pytest.approx(float(loss(system, given)[1]["mse"]), rel=1e-6)


@pytest.mark.slow
def test_four_views_give_the_mean_of_two_pairs():
    system = model(modalities=("image", "point"))
    made = jax.jit(system.init)(jax.random.key(0))
    views = jnp.asarray(RNG.standard_normal((2, 4, SIDE, SIDE, 3)), jnp.float32)

    def vectors(count, of):
        chosen = model(modalities=("image", "point"), views_test=count)
        return chosen._vectors(made, "image", {"views": of}, None, False)[0]

    four, first, last = vectors(4, views), vectors(2, views), vectors(2, views[:, 2:])
    np.testing.assert_allclose(four, (first + last) / 2, rtol=1e-5, atol=1e-6)
    twice = vectors(2, jnp.repeat(views[:, :1], 2, axis=1))
    np.testing.assert_allclose(vectors(1, views), twice, rtol=1e-5, atol=1e-6)
    with pytest.raises(UserError, match=r"views_test is 4, but the data has 2 views"):
        vectors(4, views[:, :2])


def test_corners_are_relative_and_missing_neighbours_are_the_face_itself():
    faces = jnp.asarray(RNG.standard_normal((1, 3, 15)), jnp.float32)
    neighbours = jnp.asarray([[[1, 2, -1], [0, -1, -1], [0, 1, 2]]], jnp.int32)
    found = encoder_inputs("mesh", {"faces": faces, "neighbours": neighbours})
    np.testing.assert_array_equal(found.neighbours[0], [[1, 2, 0], [0, 1, 1], [0, 1, 2]])
    np.testing.assert_allclose(found.corners[0, :, 3:6], faces[0, :, 6:9] - faces[0, :, :3])
    np.testing.assert_array_equal(found.normals, faces[..., 12:])


def test_only_rows_with_one_label_have_a_class():
    labels = np.array([[0, 1, 0], [1, 0, 0], [1, 1, 0], [0, 0, 0]], np.uint8)
    np.testing.assert_array_equal(single_label(jnp.asarray(labels)), [1, 0, -1, -1])
    train = open_shapes().splits["train"]
    row = Batches(train, batch_size=6, seed=0, pad_to=4)[0]["row"]
    np.testing.assert_array_equal(single_label(jnp.asarray(row["labels"])), row["item"] % CLASSES)
    assert classes_of(train) == CLASSES
    assert item_shapes(train)["mesh"]["neighbours"] == (FACES, 3)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            {"modalities": ("point", "image")},
            "must be two or three of image, point, mesh in this",
        ),
        ({"modalities": ("mesh",)}, "must be two or three of image, point, mesh in this"),
        ({"views_test": 3}, "views_test must be one of 1, 2, 4, got 3"),
        ({"w_ce": 0.0, "w_center": 0.0, "w_mse": 0.0}, "are all 0"),
        ({"w_mse": -1.0}, "model.w_mse must be at least 0"),
        ({"neighbours": 33}, "model.neighbours is 33, but clouds have 32 points"),
        ({"neighbours": 0}, "model.neighbours must be at least 1"),
        ({"center_update": "ema"}, "model.center_update must be one of sgd, wen_ema, got 'ema'"),
    ],
)
def test_invalid_options_raise(options, sentence):
    with pytest.raises(UserError, match=sentence):
        model(**options)


def test_data_without_the_expected_classes_raise():
    with pytest.raises(UserError, match=r"the data has 0\. Give data with one class per object"):
        model(found=0)
    with pytest.raises(UserError, match=r"model.classes is 3, the data has 4"):
        model(classes=3)
