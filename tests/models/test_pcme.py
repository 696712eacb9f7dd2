"""PCME: devices, samples, scores in blocks, options, invalid options."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contract_cases import assert_close, assert_same_everywhere

from hmgr_jax.distributed.parallel import MappedAxis, make_mesh, map_step, replicate, shard
from hmgr_jax.errors import UserError
from hmgr_jax.layers import resnet
from hmgr_jax.layers.dropout import Keys
from hmgr_jax.layers.gaussian_distances import NAMES
from hmgr_jax.losses import soft_contrastive
from hmgr_jax.losses.soft_contrastive import Match, log_match_probability
from hmgr_jax.models.base import LocalAxis, Plan, Variables
from hmgr_jax.models.pcme import PCME
from hmgr_jax.training.optimizer import Optimizer, Schedule
from hmgr_jax.training.step import device_step, init_state

SMALL = {"dim": 8, "word_dim": 4, "vocabulary_size": 11, "regions": 3, "region_dim": 5}
POINTS = {"img_probemb": False, "txt_probemb": False}
ROWS, PADDED, SIDE = 6, 8, 8
ZERO = jnp.int32(0)


def small(**options):
    return PCME(**SMALL | {"samples_train": 3, "samples_eval": 3} | options)


def row_of(valid):
    place = jnp.arange(len(valid), dtype=jnp.int32)
    return {"index": place, "valid": jnp.asarray(valid), "group": place // 2, "item": place}


def batch_of(rows, pixels=False, seed=0):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(3, 7, rows).astype(np.int32)
    tokens = rng.integers(4, 11, (rows, 7)).astype(np.int32)
    tokens = np.where(np.arange(7) < lengths[:, None], tokens, 0).astype(np.int32)
    regions = rng.standard_normal((rows, 3, 5)).astype(np.float32)
    image = {"regions": regions, "n_regions": np.full(rows, 3, np.int32)}
    if pixels:
        image = {"pixels": rng.standard_normal((rows, SIDE, SIDE, 3)).astype(np.float32)}
    items = {"image": image, "text": {"tokens": tokens, "lengths": lengths}}
    return jax.tree.map(jnp.asarray, items)


def codes_of(model, variables, items, numbers=None):
    """Inference codes by item numbers."""
    numbers = np.arange(len(items["text"]["lengths"])) if numbers is None else numbers
    keys = Keys.at(ZERO, ZERO, jnp.asarray(numbers, jnp.int32))
    return {m: model.encode(variables, m, x, train=False, keys=keys)[0] for m, x in items.items()}


# --- pictures -----------------------------------------------------------------------------------


@pytest.fixture
def tiny_cnn(monkeypatch):
    """One stage of one block, which compiles in seconds."""
    monkeypatch.setitem(resnet.KINDS, "tiny", (False, (1,)))
    return {"cnn": "tiny", "cnn_width": 4, "cnn_small_stem": True, "picture_size": SIDE}


@pytest.mark.slow
def test_four_devices_give_the_update_of_one(tiny_cnn):
    """Samples, uniformity and batch norm: 6 rows on one device, or with 2 of padding on four."""
    model = small(**tiny_cnn, uniform_lambda=1.0, uniform_rows=8, word_removal=0.3)
    optimizer = Optimizer(Schedule(0.01, 9, decay="none"), model.parts(), kind="sgd")
    start = jax.device_get(init_state(model, optimizer, 0))
    ends = []
    for devices, rows in ((1, ROWS), (4, PADDED)):
        batch = jax.tree.map(np.array, batch_of(ROWS, pixels=True))
        filled = jax.tree.map(lambda x, n=rows: np.resize(x, (n, *x.shape[1:])), batch)
        for x in filled["image"].values():
            x[ROWS:] = 1e6
        filled["row"] = row_of(np.arange(rows) < ROWS)
        mesh = make_mesh(devices)
        step = map_step(device_step(model, optimizer, MappedAxis()), mesh)
        state = replicate(mesh, start)
        for _ in range(2):
            state, report = step(state, None, shard(mesh, filled))
        assert report["bad_total"] == 0
        assert_same_everywhere((state, report))
        ends.append(jax.device_get((state, report)))
    (one, of_one), (many, of_many) = ends
    for name in ("params", "stats"):
        assert_close(getattr(many, name), getattr(one, name), rtol=1e-4, atol=1e-5)
    assert_close(of_many, of_one, rtol=1e-4, atol=1e-5)
    moved = jax.tree.map(lambda a, b: bool(np.any(a != b)), one.stats, start.stats)
    assert all(jax.tree.leaves(moved))


def test_batch_stats_off_uses_running_statistics(tiny_cnn):
    """At evaluation, and in training with cnn_batch_stats=False, rows do not depend on others."""
    model = small(**tiny_cnn)
    variables = model.init(jax.random.key(0))
    items, row = batch_of(4, pixels=True), row_of(np.ones(4, bool))
    still = dataclasses.replace(model, cnn_batch_stats=False)
    keys = Keys.at(ZERO, ZERO, jnp.arange(4))
    given = {"keys": keys, "axis": LocalAxis()}
    by_batch, stats = model.encode_batch(variables, items, row, **given)
    alone, kept = still.encode_batch(variables, items, row, **given)
    inferred = codes_of(model, variables, items)["image"]["mu"]
    np.testing.assert_allclose(alone["image"]["mu"], inferred, rtol=1e-5, atol=1e-6)
    assert np.abs(np.asarray(by_batch["image"]["mu"] - inferred)).max() > 1e-3
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), kept, variables.stats))
    assert not jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), stats, variables.stats))


def test_sizes_of_the_paper():
    """Trainable numbers of COCO's model; GRUs lack PyTorch's second bias of two gates."""
    model = PCME(vocabulary_size=11755, picture_size=224)
    params = jax.eval_shape(model.init, jax.random.key(0)).params

    def count(tree):
        return sum(int(np.prod(x.shape)) for x in jax.tree.leaves(tree))

    image, text = params["image"], params["text"]
    assert count(image["cnn"]) == 58_143_808
    assert count(image["fc"]) == 2_098_176
    assert count(image["mean"]) == 4_198_400
    assert count(image["sigma"]) + count(image["fc_sigma"]) == 6_294_528
    assert count(text["words"]) == 3_526_500
    shared = 2 * 2 * 512  # PyTorch's second biases of the reset and update gates
    assert count(text["gru"]) == 2_500_608 - shared
    assert count(text["mean"]) == 355_422
    assert count(text["sigma"]) + count(text["gru_sigma"]) == 2_853_982 - shared
    fitted = model.fit_to(Plan(9, 3, 20, {"image": {"pixels": (64, 64, 3)}, "text": {}}))
    assert fitted.picture_size == 224
    assert fitted.inputs()["image"].keys() == {"pixels"}


def test_parts_freeze_stages_of_the_cnn(tiny_cnn):
    parts = small(**tiny_cnn).parts()
    assert parts["stem"] == ("image/cnn/conv1", "image/cnn/bn1")
    assert parts["layer1"] == ("image/cnn/layer1",)


# --- samples and scores -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made():
    """(model, variables, codes of 9 items)."""
    model = small(init_scale=3.0, init_shift=3.0)
    variables = model.init(jax.random.key(1))
    return model, variables, codes_of(model, variables, batch_of(9))


def test_equal_items_have_equal_samples(made):
    """Of any number; a picture and a caption have noise of their own."""
    model, variables, codes = made
    chosen = jnp.asarray([5, 2])
    items = jax.tree.map(lambda x: x[chosen], batch_of(9))
    alone = codes_of(model, variables, items, [5, 2])
    for m, found in alone.items():
        np.testing.assert_allclose(
            found["samples"], codes[m]["samples"][chosen], rtol=1e-6, atol=1e-6
        )
    others = codes_of(model, variables, items, [6, 2])["image"]["samples"]
    np.testing.assert_array_equal(others, alone["image"]["samples"])
    noise = {
        m: (found["samples"] - found["mu"][:, None]) / jnp.exp(found["log_sigma"])[:, None]
        for m, found in alone.items()
    }
    assert np.abs(np.asarray(noise["image"] - noise["text"])).max() > 0.1


def test_samples_have_the_mean_and_sigma_of_their_item(made):
    model, variables, _ = made
    many = dataclasses.replace(model, samples_eval=4000)
    codes = codes_of(many, variables, batch_of(3))["text"]
    samples, sigma = np.asarray(codes["samples"]), np.exp(codes["log_sigma"])
    np.testing.assert_allclose(samples.mean(1), codes["mu"], atol=0.1 * sigma.max())
    np.testing.assert_allclose(samples.std(1), sigma, rtol=0.1)
    logs = np.asarray(codes["log_sigma"])
    np.testing.assert_allclose(model.uncertainty(codes), np.exp(logs.mean(1)), rtol=1e-5)


def test_blocks_do_not_change_probabilities(made, monkeypatch):
    model, variables, codes = made
    direct = log_match_probability(
        Match(jnp.float32(3.0), jnp.float32(3.0)),
        codes["image"]["samples"],
        codes["text"]["samples"],
    )
    monkeypatch.setattr(soft_contrastive, "BLOCK_PAIRS", 4 * 3 * 9 * 3)  # four pictures of nine
    found = model.score(variables, ("image", codes["image"]), ("text", codes["text"]))
    np.testing.assert_allclose(found, direct / (2 * 3 * 8**0.5), rtol=1e-5, atol=1e-6)
    turned = model.score(variables, ("text", codes["text"]), ("image", codes["image"]))
    np.testing.assert_allclose(turned, found.T, rtol=1e-6)


def test_scoring_a_thousand_pictures_takes_less_than_a_gigabyte():
    """1,000 x 5,000 of 7 samples each in 1,024 dimensions."""
    model = PCME(vocabulary_size=9, regions=1, region_dim=4)
    sides = [{"samples": jax.ShapeDtypeStruct((n, 7, 1024), jnp.float32)} for n in (1000, 5000)]
    match = dict.fromkeys(("scale", "shift"), jax.ShapeDtypeStruct((), jnp.float32))

    def score(match, images, texts):
        variables = Variables({"match": match}, None, None, None)
        return model.score(variables, ("image", images), ("text", texts))

    memory = jax.jit(score).lower(match, *sides).compile().memory_analysis()
    held = memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
    assert held < 1e9, held


@pytest.mark.parametrize("distance", NAMES)
def test_test_distances_are_finite_and_agree_with_coarse(made, distance):
    _, variables, _ = made
    model = small(init_scale=3.0, init_shift=3.0, test_distance=distance)
    codes = codes_of(model, variables, batch_of(9))
    scores = model.score(variables, ("image", codes["image"]), ("text", codes["text"]))
    assert scores.shape == (9, 9)
    assert np.isfinite(scores).all()
    assert np.asarray(scores).std() > 1e-4
    a, b = (np.asarray(model.coarse(variables, m, codes[m])) for m in ("image", "text"))
    if model.coarse_exact:
        np.testing.assert_allclose(a @ b.T, scores, rtol=1e-4, atol=1e-4)
    else:
        assert (a @ b.T).shape == (9, 9)


def test_matmul_is_the_sum_over_pairs_of_samples(made):
    model, variables, codes = made
    summed = dataclasses.replace(model, test_distance="matmul")
    found = summed.score(variables, ("image", codes["image"]), ("text", codes["text"]))
    pairs = np.einsum("ajd,bkd->ab", codes["image"]["samples"], codes["text"]["samples"])
    np.testing.assert_allclose(found, pairs, rtol=1e-4, atol=1e-4)


# --- losses and settings ------------------------------------------------------------------------


def loss_of(model, rows=6, valid=None, seed=0):
    variables = model.init(jax.random.key(2))
    keys = Keys.at(ZERO, ZERO, jnp.arange(rows))
    row = row_of(np.ones(rows, bool) if valid is None else valid)
    codes, _ = model.encode_batch(
        variables, batch_of(rows, seed=seed), row, keys=keys, axis=LocalAxis()
    )
    total, terms, _, _ = model.loss(variables, codes, row, step=ZERO, keys=keys, axis=LocalAxis())
    return float(total), {name: float(x) for name, x in terms.items()}


def test_the_total_is_the_weighted_sum_of_its_terms():
    model = small(vib_beta=0.1, uniform_lambda=3.0)
    total, terms = loss_of(model)
    expected = 2 * (terms["positive"] + terms["negative"])
    expected += 0.1 * terms["vib"] + 3.0 * terms["uniform"]
    assert total == pytest.approx(expected, rel=1e-5)


def test_uniformity_may_draw_with_replacement():
    """Of 30 draws among 36 samples some are equal, and such a pair counts exp(0)."""
    once, again = (
        loss_of(small(uniform_lambda=1.0, uniform_rows=30, uniform_replace=replace))[1]["uniform"]
        for replace in (False, True)
    )
    assert again > once + 0.5


def test_match_group_has_all_captions_of_an_image_as_positives():
    """Groups of two rows: twice as many positives."""
    of_rows, of_groups = (loss_of(small(match=match))[1] for match in ("identity", "group"))
    assert of_groups["positive"] > 1.5 * of_rows["positive"]
    both = of_groups["positive"] + of_groups["negative"]
    assert both != pytest.approx(of_rows["positive"] + of_rows["negative"])


@pytest.mark.slow
def test_every_option_changes_the_loss():
    base = loss_of(small())[0]
    variants = [
        {"img_attention": False},
        {"txt_attention": False},
        {"img_probemb": False},
        {"txt_probemb": False},
        {"sigma_head": "normalised"},
        {"log_sigma_start": -1.0},
        {"bigru_pool": "final_states"},
        {"bigru_pool": "mean"},
        {"kl_form": "exact", "vib_beta": 1.0},
    ]
    found = [loss_of(small(**variant))[0] for variant in variants]
    assert np.isfinite(found).all()
    assert len({round(x, 3) for x in [base, *found]}) == 1 + len(variants)


def test_pvse_scores_the_best_pair_of_proposals():
    """Points with three proposals, and the triplet loss of their scores."""
    options = POINTS | {"objective": "triplet", "test_distance": "proposals"}
    model = small(**options, proposals=3)
    variables = model.init(jax.random.key(0))
    codes = codes_of(model, variables, batch_of(4))
    a, b = (np.asarray(codes[m]["samples"]) for m in ("image", "text"))
    assert a.shape == (4, 3, 8)
    np.testing.assert_allclose(np.linalg.norm(a, axis=-1), 1, rtol=1e-5)
    expected = np.einsum("akd,bld->abkl", a, b).max((2, 3))
    found = model.score(variables, ("image", codes["image"]), ("text", codes["text"]))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert "match" not in variables.params
    total, terms = loss_of(model)
    assert total == terms["triplet"] > 0


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"dim": 7}, r"model.dim must be even \(two GRU directions\), got 7"),
        ({"init_scale": 0.0}, "model.init_scale must be above 0, got 0.0: change it"),
        ({"logit_scale": -2.0}, "model.logit_scale must be above 0, got -2.0: change it"),
        ({"cnn": "vgg19"}, "model.cnn must be one of resnet10, resnet18"),
        ({"img_probemb": False, "test_distance": "elk"}, "elk needs a sigma on both sides"),
        ({"objective": "triplet"}, "model.objective triplet needs points: set"),
        ({"proposals": 2}, "model.proposals is 2: above 1 it needs model.objective triplet"),
        ({"word_removal": 1.5}, "model.word_removal must be in .0, 1., got 1.5"),
        ({"samples_train": 0}, "model.samples_train must be at least 1"),
    ],
)
def test_invalid_options_raise(options, sentence):
    with pytest.raises(UserError, match=sentence):
        small(**options)
