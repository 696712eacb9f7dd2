"""The step benchmark: its row, and the count of FLOPs behind its share."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hmgr_jax.benchmarks.step import run
from hmgr_jax.benchmarks.workload import F8K_LENGTHS, parse_options, random_batch
from hmgr_jax.errors import UserError
from hmgr_jax.models import get_model
from hmgr_jax.models.base import Plan
from hmgr_jax.training.flops import matmul_flops

TINY = {"batch": 8, "dim": 8, "regions": 3, "region_dim": 5, "words": 4, "vocabulary": 20}
TINY |= {"repeats": 2, "matmul_size": 64}


@pytest.fixture(scope="module")
def measured():
    return {n: run("vse", devices=n, **TINY) for n in (1, 8)}


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 8])
def test_row(measured, devices):
    row = measured[devices]
    assert json.loads(json.dumps(row)) == row
    assert (row["model"], row["batch"], row["devices"]) == ("vse", 8, devices)
    for name in ("seconds", "compile_seconds", "xla_flops", "matmul_rate", "parameters"):
        assert row[name] > 0
    share = row["matmul_flops"] / row["seconds"] / row["matmul_rate"]
    assert row["share_of_matmul_rate"] == pytest.approx(share)
    assert row["memory_bytes"]["argument"] > 4 * row["parameters"]
    assert row["items_per_second"] == pytest.approx(8 / row["seconds"])


@pytest.mark.slow
def test_devices_share_the_work(measured):
    """The towers are shared out; what compares all pairs is done by all."""
    one, eight = (measured[n]["matmul_flops"] for n in (1, 8))
    assert one / 8 <= eight < one / 2


def test_options_are_hyper_parameters_of_their_types():
    found = parse_options("imram", "variant=text,steps=2,sharpness=4,mask_same_image=False")
    assert found == {"variant": "text", "steps": 2, "sharpness": 4.0, "mask_same_image": False}
    assert parse_options("hmgr", "") == {}
    for options, sentence in (("stpes=2", "did you mean 'steps'"), ("steps=two", "must be int")):
        with pytest.raises(UserError, match=sentence):
            parse_options("imram", options)


def test_lengths_of_flickr8k():
    model = get_model("vse", vocabulary_size=20, regions=3, region_dim=5)
    batch = random_batch(model, 500, 16, 3, 20, "f8k")
    lengths = batch["text"]["lengths"]
    assert set(lengths) == {min(n, 16) for n in F8K_LENGTHS}
    assert 12.5 < lengths.mean() < 13.5


def test_random_items_are_whole():
    plan = Plan(10, 5, 20, {"image": {"regions": (3, 5), "n_regions": ()}, "text": {}})
    batch = random_batch(get_model("vse", dim=8).fit_to(plan), 4, 6, 3, 20)
    assert batch["text"]["tokens"].shape == (4, 6)
    assert batch["text"]["lengths"].tolist() == [6] * 4
    assert batch["image"]["n_regions"].tolist() == [3] * 4
    assert batch["image"]["regions"].dtype == np.float16
    assert batch["row"]["valid"].all()


A, B = np.ones((4, 5), np.float32), np.ones((5, 6), np.float32)


def _scanned(a, b):
    return jax.lax.scan(lambda c, _: (c + a @ b, None), jnp.zeros((4, 6)), None, length=7)[0]


@pytest.mark.parametrize(
    ("function", "times"),
    [
        (lambda a, b: a @ b, 1),
        (lambda a, b: a + 1.0, 0),
        (jax.jit(lambda a, b: (a @ b) @ (a @ b).T @ a @ b), 2 + (4 * 4 * 6) / 120 + 80 / 120 + 1),
        (_scanned, 7),
        (jax.checkpoint(_scanned), 7),
        (lambda a, b: jax.vmap(lambda x: x @ b)(jnp.stack([a, a, a])), 3),
        (lambda a, b: jax.lax.cond(a.sum() > 0, lambda: a @ b, lambda: jnp.zeros((4, 6))), 1),
        (jax.grad(lambda a, b: (a @ b).sum()), 2),  # forward, and one backward
        (lambda a, b: jnp.einsum("ij,kj->ik", a, b.T), 1),
    ],
)
def test_count(function, times):
    assert matmul_flops(function, A, B) == pytest.approx(2 * 4 * 5 * 6 * times)


def test_count_of_batched_products():
    x = jax.ShapeDtypeStruct((3, 4, 5), jnp.float32)
    assert matmul_flops(lambda x: jnp.einsum("bij,bkj->bik", x, x), x) == 2 * 3 * 4 * 4 * 5
