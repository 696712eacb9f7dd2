"""DXR: vectors and losses in numpy, dropped cells and words, pictures, parts."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contract_cases import assert_close, assert_same_everywhere
from layer_cases import as64, linear, unit

from hmgr_jax.distributed.parallel import MappedAxis, make_mesh, map_step, replicate, shard
from hmgr_jax.errors import UserError
from hmgr_jax.layers import resnet
from hmgr_jax.layers.bert import Bert
from hmgr_jax.layers.dropout import Keys
from hmgr_jax.losses.contrastive import contrastive_hard
from hmgr_jax.losses.triplet import negatives, triplet
from hmgr_jax.models import get_model
from hmgr_jax.models.base import LocalAxis, Plan
from hmgr_jax.models.dxr import DXR
from hmgr_jax.training.optimizer import Optimizer, Schedule, Stage
from hmgr_jax.training.step import device_step, init_state

SMALL = {"dim": 6, "vocabulary_size": 11, "regions": 3, "region_dim": 5, "bert_layers": 1}
SMALL |= {"bert_width": 4, "bert_heads": 2, "bert_intermediate": 5, "bert_positions": 9}
ROWS, PADDED, SIDE, HARD = 6, 8, 8, 10
ZERO = jnp.int32(0)
KEYS = Keys.at(ZERO, ZERO, jnp.arange(ROWS))


def small(**options):
    return DXR(**SMALL | {"sum_warmup_steps": HARD} | options)


def row_of(valid):
    place = jnp.arange(len(valid), dtype=jnp.int32)
    return {"index": place, "valid": jnp.asarray(valid), "group": place // 2, "item": place}


def batch_of(rows, pixels=False):
    rng = np.random.default_rng(0)
    lengths = rng.integers(3, 8, rows).astype(np.int32)
    tokens = rng.integers(1, 11, (rows, 7)).astype(np.int32)
    image = {"regions": rng.standard_normal((rows, 3, 5)).astype(np.float32)}
    image["n_regions"] = rng.integers(1, 4, rows).astype(np.int32)
    if pixels:
        image = {"pixels": rng.standard_normal((rows, SIDE, SIDE, 3)).astype(np.float32)}
    items = {"image": image, "text": {"tokens": tokens, "lengths": lengths}}
    return jax.tree.map(jnp.asarray, items)


def encode(model, variables, items, keys=None):
    """Codes of both sides; with keys, training codes."""

    def both(variables, items, keys):
        return {
            m: model.encode(variables, m, items[m], train=keys is not None, keys=keys)[0]
            for m in model.modalities
        }

    return jax.jit(both)(variables, items, keys)


def test_fragments_are_projected_before_the_pool():
    model = small()
    variables, items = jax.jit(model.init)(jax.random.key(0)), batch_of(ROWS)
    codes, p = encode(model, variables, items), as64(variables.params)
    cells = linear(p["image"]["project"]["linear"], as64(items["image"]["regions"]))
    counts = np.asarray(items["image"]["n_regions"])
    expected = [unit(x[:n].max(axis=0)) for x, n in zip(cells, counts, strict=True)]
    np.testing.assert_allclose(codes["image"], expected, rtol=0, atol=1e-5)
    tokens, lengths = items["text"]["tokens"], np.asarray(items["text"]["lengths"])
    mask = jnp.asarray(np.arange(7)[None] < lengths[:, None])
    own = {"params": variables.params["text"]["bert"]}
    states = jax.jit(Bert(model.bert).apply)(own, tokens, mask)
    words = linear(p["text"]["project"], as64(states))
    expected = [unit(x[:n].max(axis=0)) for x, n in zip(words, lengths, strict=True)]
    np.testing.assert_allclose(codes["text"], expected, rtol=0, atol=1e-5)
    scores = model.score(variables, ("image", codes["image"]), ("text", codes["text"]))
    coarse = [np.asarray(model.coarse(variables, m, codes[m])) for m in model.modalities]
    np.testing.assert_allclose(scores, coarse[0] @ coarse[1].T, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("objective", "step"),
    [("triplet", 0), ("triplet", HARD), ("contrastive_hard", 0)],
)
def test_the_loss_is_a_mean_over_valid_rows(objective, step):
    model = small(objective=objective)
    rng = np.random.default_rng(1)
    codes = {m: jnp.asarray(unit(rng.standard_normal((ROWS, 6))), jnp.float32) for m in "ab"}
    codes = dict(zip(model.modalities, codes.values(), strict=True))
    row = row_of([True, True, True, True, True, False])
    variables = jax.eval_shape(model.init, jax.random.key(0))
    total, terms, _, _ = model.loss(
        variables, codes, row, step=jnp.int32(step), keys=KEYS, axis=LocalAxis()
    )
    scores = jnp.asarray(codes["image"] @ codes["text"].T)
    pairs = negatives(row["valid"], row["group"])
    expected = {
        "triplet": triplet(scores, pairs, hard=step >= HARD),
        "contrastive_hard": contrastive_hard(scores, pairs, row["valid"], margin=0.2),
    }[objective]
    np.testing.assert_allclose(total, expected / 5, rtol=1e-5)
    assert set(terms) == {objective}


@pytest.mark.parametrize("side", ["region", "word"])
def test_dropped_fragments_are_keyed_by_row(side):
    rates = {f"{other}_dropout": 0.0 for other in ("region", "word", "bert")}
    model = small(**rates | {f"{side}_dropout": 0.5})
    variables, items = jax.jit(model.init)(jax.random.key(0)), batch_of(ROWS)
    changed, same = ("image", "text") if side == "region" else ("text", "image")
    plain, drawn = encode(model, variables, items), encode(model, variables, items, KEYS)
    np.testing.assert_allclose(drawn[same], plain[same], rtol=0, atol=1e-6)
    assert np.abs(np.asarray(drawn[changed] - plain[changed])).max(axis=1).any()
    order = jnp.asarray([5, 2, 0, 1, 4, 3])
    moved = jax.tree.map(lambda x: x[order], items)
    again = encode(model, variables, moved, Keys(KEYS.base, KEYS.rows[order]))
    np.testing.assert_allclose(again[changed], drawn[changed][order], rtol=0, atol=1e-6)


# --- pictures -----------------------------------------------------------------------------------


@pytest.fixture
def with_cnn(monkeypatch):
    """One stage of one block, which compiles in seconds."""
    monkeypatch.setitem(resnet.KINDS, "tiny", (False, (1,)))
    return small(cnn="tiny", cnn_width=4, cnn_small_stem=True, picture_size=SIDE)


def test_four_devices_give_the_update_of_one(with_cnn):
    """6 rows on one device, or with 2 rows of padding on four; stem and BERT are frozen."""
    stage = Stage(9, frozen=("stem",), lr_factors={"bert": 0.0})
    schedule, parts = Schedule(0.01, 9, decay="none"), with_cnn.parts()
    optimizer = Optimizer(schedule, parts, kind="sgd", stage=stage)
    start = jax.device_get(init_state(with_cnn, optimizer, 0))
    ends = []
    for devices, rows in ((1, ROWS), (4, PADDED)):
        batch = jax.tree.map(np.array, batch_of(ROWS, pixels=True))
        filled = jax.tree.map(lambda x, n=rows: np.resize(x, (n, *x.shape[1:])), batch)
        filled["image"]["pixels"][ROWS:] = 1e6
        filled["row"] = row_of(np.arange(rows) < ROWS)
        mesh = make_mesh(devices)
        step = map_step(device_step(with_cnn, optimizer, MappedAxis()), mesh)
        state, report = step(replicate(mesh, start), None, shard(mesh, filled))
        assert report["bad_total"] == 0
        assert_same_everywhere((state, report))
        ends.append(jax.device_get(state))
    for name in ("params", "stats"):
        assert_close(getattr(ends[1], name), getattr(ends[0], name), rtol=1e-4, atol=1e-5)
    moved = jax.tree.map(lambda a, b: bool(np.any(a != b)), ends[0].params, start.params)
    cnn = moved["image"]["cnn"]
    assert not any(jax.tree.leaves((cnn["conv1"], cnn["bn1"], moved["text"]["bert"])))
    assert all(jax.tree.leaves((cnn["layer1"], moved["image"]["project"])))


def test_parts_name_bert_and_the_stages_of_the_cnn(with_cnn):
    assert set(dataclasses.replace(with_cnn, picture_size=0).parts()) == {
        "image",
        "text",
        "words",
        "bert",
    }
    assert {"cnn", "stem", "layer1", "layer4", "bert", "words"} <= set(with_cnn.parts())
    assert with_cnn.parts()["words"] == ("text/bert/embeddings/words",)


def test_parameters_at_the_papers_sizes():
    model = DXR(picture_size=224, vocabulary_size=30522)
    params = jax.eval_shape(model.init, jax.random.key(0)).params
    count = sum(int(np.prod(x.shape)) for x in jax.tree.leaves(params))
    assert count == 170_511_680 - 768 * 769  # BERT's pooler is left out


def test_sizes_come_from_the_data():
    shapes = {"image": {"regions": (7, 9)}, "text": {}}
    fitted = DXR().fit_to(Plan(100, 20, 50, shapes))
    assert (fitted.regions, fitted.region_dim, fitted.vocabulary_size) == (7, 9, 50)
    assert fitted.sum_warmup_steps == 20
    assert fitted.bert.vocabulary == 50
    pixels = DXR().fit_to(Plan(100, 20, 50, {"image": {"pixels": (32, 32, 3)}, "text": {}}))
    assert pixels.inputs()["image"]["pixels"].shape == (32, 32, 3)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"pool": "median"}, "model.pool must be one of"),
        ({"objective": "hinge"}, "model.objective must be one of triplet, infonce"),
        ({"temperature": 0.0}, "model.temperature must be above 0"),
        ({"bert_heads": 5}, "model.bert_heads must divide model.bert_width, 4, got 5"),
        ({"bert_layers": 0}, "model.bert_layers must be at least 1"),
        ({"bert_dropout": 1.0}, "model.bert_dropout must be in [0, 1)"),
    ],
)
def test_invalid_options_raise(options, sentence):
    with pytest.raises(UserError, match=re.escape(sentence)):
        small(**options)


def test_other_systems_can_use_bert():
    sizes = {k: v for k, v in SMALL.items() if k != "dim"} | {"dim": 8, "word_dim": 4}
    for name in ("vse", "imram"):
        plain, model = (get_model(name, text=text, **sizes) for text in ("gru", "bert"))
        params = [jax.eval_shape(m.init, jax.random.key(0)).params for m in (plain, model)]
        assert set(params[0]["text"]) - {"pool"} == {"words"}
        assert set(params[1]["text"]) - {"pool"} == {"bert", "project"}
        assert model.parts()["bert"] == ("text/bert",)
        assert (model.reads_pieces, plain.reads_pieces) == (True, False)
        assert "bert" not in plain.parts()
        assert dataclasses.replace(model, text="gru") == plain
