"""The contract of a model: the same tests for every registered system."""

import copy
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contract_cases import (
    BATCH,
    CASES,
    DEVICES,
    LENGTH,
    PMAPPED,
    ROWS,
    STEPS,
    assert_close,
    assert_devices_agree,
    assert_equal,
    assert_learns,
    assert_same_everywhere,
    compilations,
    params_of,
    small,
    with_garbage,
)

from hmgr_jax.layers.dropout import Keys
from hmgr_jax.models import list_models
from hmgr_jax.training.checkpoint import Checkpoints
from hmgr_jax.training.optimizer import Stage
from hmgr_jax.training.step import init_state

ITEMS = np.arange(BATCH)


@pytest.fixture(scope="module", params=params_of(CASES))
def system(request):
    return small(request.param)


def every_score(system, codes):
    """{pair of modalities: scores} of codes by modality."""
    return {(a, b): system.score(a, codes[a], b, codes[b]) for a, b in system.pairs}


# --- one device ---------------------------------------------------------------------------------


def test_training_learns(system):
    assert np.isfinite(system.one.end.of_steps("loss")).all()
    assert system.one.end.of_steps("bad_total")[-1] == 0
    assert_learns(system)


def test_steps_of_equal_shape_compile_once(system):
    assert system.one.end.compiled_later == 0
    assert system.eight.end.compiled_later == 0


def test_the_loss_gets_local_codes(system):
    assert system.one.end
    assert system.eight.end
    padded = -(-ROWS // DEVICES) * DEVICES
    assert {rows for rows, _ in system.model.seen} == {ROWS, padded // DEVICES}
    for rows, of_codes in system.model.seen:
        assert of_codes == {rows}


def test_init_depends_on_the_key_alone(system):
    again = jax.jit(lambda seed: init_state(system.model, system.optimizer, seed))  # traced anew
    assert_equal(again(jnp.int32(0)), system.start(0))
    zero, one = (jax.tree.leaves(system.start(seed).params) for seed in (0, 1))
    assert any(not np.array_equal(a, b) for a, b in zip(zero, one, strict=True))


def test_a_step_does_not_depend_on_padding(system):
    batch = system.batch(0)
    garbage = batch | {m: with_garbage(batch[m]) for m in system.model.modalities}
    at = jax.device_get(system.one.end.state)  # after all warm-ups
    for clean, dirty in zip(system.one.once(at, batch), system.one.once(at, garbage), strict=True):
        assert_close(dirty, clean, rtol=1e-5, atol=1e-6)


def test_a_non_finite_batch_changes_nothing_but_counters(system):
    at = jax.device_get(system.one.end.state)
    batch = system.batch(0)
    poisoned = [
        (m, name, x)
        for m in system.model.modalities
        for name, x in batch[m].items()
        if np.issubdtype(x.dtype, np.floating)
    ]
    assert poisoned, "no input is a float: set a parameter to NaN instead"
    for m, name, x in poisoned:
        bad = x.copy()
        bad[3, 0] = np.nan
        after, report = system.one.once(at, batch | {m: batch[m] | {name: bad}})
        for part in ("params", "stats", "memory", "optimizer", "seed"):
            assert_equal(getattr(after, part), getattr(at, part))
        assert (after.step, after.bad_in_a_row, after.bad_total) == (STEPS + 1, 1, 1)
        assert report["bad_in_a_row"] == 1
        after, _ = system.one.once(jax.device_get(after), batch)
        assert (after.step, after.bad_in_a_row, after.bad_total) == (STEPS + 2, 0, 1)
        moved = jax.tree.map(lambda a, b: bool((a != b).any()), after.params, at.params)
        assert any(jax.tree.leaves(moved))


def test_tables_are_swapped_without_compiling(system):
    if system.tables is None:
        pytest.skip("this system has no tables")
    at, batch = jax.device_get(system.one.end.state), system.batch(0)
    swapped = jax.tree.map(lambda x: np.asarray(x)[::-1], system.tables)
    _, report = system.one.once(at, batch)
    before = compilations()
    _, other = system.one.once(at, batch, swapped)
    assert compilations() == before
    assert float(report["loss"]) != float(other["loss"])


def test_parts_are_paths_that_cover_every_parameter(system):
    params, parts = system.start().params, system.model.parts()
    covered = np.zeros(len(jax.tree.leaves(params)), bool)
    for part, paths in parts.items():
        optimizer = dataclasses.replace(system.optimizer, stage=Stage(0, frozen=(part,)))
        frozen = np.array(jax.tree.leaves(optimizer.factors(params))) == 0
        of_paths = [jax.tree.leaves(_at(params, path)) for path in paths]
        assert frozen.sum() == sum(map(len, of_paths)) > 0, part
        covered |= frozen
    assert covered.all()


def _at(tree, path):
    for key in path.split("/"):
        tree = tree[key]
    return tree


def test_saved_and_restored_exactly(system, tmp_path):
    state = system.one.end.state
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        checkpoints.save(STEPS, state, {}, None)
        fresh = system.start()
        template = jax.eval_shape(lambda: fresh)
        restored, _, step = checkpoints.restore(template)
    assert step == STEPS
    assert_equal(restored, state)
    batch = system.batch(STEPS)
    on, again = (system.one.once(jax.device_get(s), batch) for s in (state, restored))
    assert_equal(on, again)


# --- many devices -------------------------------------------------------------------------------


def test_eight_devices_give_the_numbers_of_one(system):
    """Eight devices do not divide twelve rows: the four rows that are added do not count."""
    assert not system.batch(0, DEVICES)["row"]["valid"].all()
    assert_devices_agree(system.one, system.eight)


def test_a_step_uses_what_is_tested_under_pmap(system):
    assert system.eight.end
    assert system.eight.axis.used <= set().union(*PMAPPED.values())


@pytest.fixture(scope="module", params=params_of(PMAPPED, fast=("hmgr",)))
def mapped(request):
    """A system for tests of pmap."""
    return small(request.param)


def test_pmap_gives_the_numbers_of_shard_map(mapped):
    assert_devices_agree(mapped.eight, mapped.pmapped)
    assert mapped.pmapped.axis.used == PMAPPED[mapped.case]


def test_a_batch_that_divides_is_the_same_under_both_mappers(mapped):
    at = jax.device_get(mapped.one.end.state)
    full = mapped.batch(0, DEVICES)
    full["row"] = full["row"] | {"valid": np.ones_like(full["row"]["valid"])}
    ends = [run.once(at, full) for run in (mapped.eight, mapped.pmapped)]
    assert_same_everywhere(ends)
    assert_close(*ends, rtol=1e-5, atol=1e-6)


# --- evaluation ---------------------------------------------------------------------------------


def test_a_score_does_not_depend_on_padding(system):
    modalities = system.model.modalities
    clean = every_score(system, {m: system.encode(m, ITEMS) for m in modalities})
    for m in modalities:
        dirty = {n: system.encode(n, ITEMS) for n in modalities}
        dirty[m] = system.encode(m, ITEMS, with_garbage(system.items(m, ITEMS)))
        assert_close(every_score(system, dirty), clean, rtol=0, atol=1e-6)
        if system.data.splits["test"].sources[m].lengths is not None:
            dirty[m] = system.encode(m, ITEMS, system.items(m, ITEMS, LENGTH + 16))
            assert_close(every_score(system, dirty), clean, rtol=0, atol=1e-6)


def test_an_item_alone_has_the_codes_it_has_in_a_batch(system):
    for m in system.model.modalities:
        together = system.encode(m, ITEMS)
        alone = system.encode(m, ITEMS[5:6])
        assert_close(jax.tree.map(lambda x: x[5:6], together), alone, rtol=1e-6, atol=1e-6)
        others = system.encode(m, np.where(ITEMS == 5, 5, 0))
        assert_close(jax.tree.map(lambda x: x[5:6], others), alone, rtol=1e-6, atol=1e-6)


@pytest.fixture(scope="module")
def matrices(system):
    """[{pair: scores of the whole test split}] over eight devices, in one tile and in tiny ones."""
    if system.case not in list_models():
        pytest.skip("a variant scores pairs as its system does")
    whole, tiny = system.evaluator, copy.copy(system.evaluator)
    tiny.tile = 3
    splits, variables = system.data.splits, jax.device_get(system.trained)
    variables = whole.finalized(variables, splits.__getitem__)
    codes = whole.encode_split(variables, splits["test"])
    return [
        {(a, b): evaluator.scores(variables, a, codes[a], b, codes[b]) for a, b in system.pairs}
        for evaluator in (whole, tiny)
    ]


def test_scores_do_not_depend_on_the_tile_size(matrices):
    assert_close(*matrices, rtol=0, atol=1e-6)


def test_scores_of_a_split_are_those_of_a_few_items(system, matrices):
    for a, b in system.pairs:
        rows, columns = np.arange(BATCH)[::-1], np.arange(8, 8 + BATCH)
        direct = system.score(a, system.encode(a, rows), b, system.encode(b, columns))
        found = matrices[0][a, b][np.ix_(rows, columns)]
        np.testing.assert_allclose(found, direct, rtol=0, atol=1e-6)


def test_uncertainty_is_one_number_per_item(system):
    for m in system.model.modalities:
        found = system.model.uncertainty(system.encode(m, ITEMS))
        if found is not None:
            assert found.shape == ITEMS.shape
            assert np.isfinite(found).all()
            alone = system.model.uncertainty(system.encode(m, ITEMS[5:6]))
            np.testing.assert_allclose(found[5:6], alone, rtol=1e-5)


def test_coarse_vectors_give_finite_inner_products(system):
    model, variables = system.model, system.trained
    codes = {m: system.encode(m, ITEMS) for m in model.modalities}
    vectors = {m: np.asarray(model.coarse(variables, m, codes[m])) for m in model.modalities}
    for a, b in system.pairs:
        product = vectors[a] @ vectors[b].T
        assert product.shape == (BATCH, BATCH)
        assert np.isfinite(product).all()
        if model.coarse_exact:
            scores = system.score(a, codes[a], b, codes[b])
            np.testing.assert_allclose(product, scores, rtol=0, atol=1e-6)


def test_bfloat16_is_close_to_float32(system):
    half = dataclasses.replace(system.model, dtype="bfloat16")
    keys = Keys.at(jnp.int32(0), jnp.int32(0), jnp.asarray(ITEMS, jnp.int32))
    encode = jax.jit(
        lambda variables, m, items: half.encode(variables, m, items, train=False, keys=keys)[0],
        static_argnums=1,
    )
    codes = {m: encode(system.trained, m, system.items(m, ITEMS)) for m in half.modalities}
    exact = every_score(system, {m: system.encode(m, ITEMS) for m in half.modalities})
    for pair, found in every_score(system, codes).items():
        assert found.dtype == np.float32
        off = np.abs(found - exact[pair]).max()
        assert 0 < off < 0.03 * max(1.0, np.abs(exact[pair]).max())
