"""HMGR's memory: what items read, what a step writes and learns, what is stored for evaluation."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hmgr_cases import OTHERS, B, D, S, codes, hmgr, memory_of, row, variables_of
from layer_cases import as64, softmax, unit

from hmgr_jax.errors import UserError
from hmgr_jax.layers import bank as banks
from hmgr_jax.layers.dropout import Keys
from hmgr_jax.models import hmgr as hmgr_file
from hmgr_jax.models.base import LocalAxis

MODALITIES = ("image", "text")
STEP = 9
"""After both warm-ups."""
LEARNED = {"learned_reads": True, "slots": 2 * B}


def step_of(model, variables, rows=None, step=STEP, good=True):
    """(total, terms, next memory, gradient) of a step from `codes`."""
    rows = row() if rows is None else rows

    def loss(params, memory, rows, step):
        given = variables.replace(params=params, memory=memory)
        keys = Keys.at(jnp.int32(0), step, rows["index"])
        total, terms, _, written = model.loss(
            given, codes(), rows, step=step, keys=keys, axis=LocalAxis()
        )
        memory = model.write_memory(memory, written, jnp.asarray(good), LocalAxis())
        return total, (terms, memory)

    run = jax.jit(jax.value_and_grad(loss, has_aux=True))
    given = variables.params, variables.memory, rows, jnp.int32(step)
    (total, (terms, memory)), gradient = run(*given)
    return float(total), {name: float(x) for name, x in terms.items()}, memory, gradient


# --- what an item reads ---------------------------------------------------------------------------


@functools.partial(jax.jit, static_argnums=(0, 2))
def remember(model, variables, modality, x):
    return model.remember(variables, modality, x)


def remembered(model, variables, x, modality):
    """The vectors after the memory, in numpy."""
    gates = {"image": model.visual_read, "text": model.text_read}
    gate, kernel, temperature = gates[modality], np.eye(D), model.read_temperature
    if model.learned_reads:
        own = as64(variables.params["memory"])
        gate, kernel = own[modality]["gate"], own[modality]["map"]
        temperature = np.exp(own["log_temperature"])
    vectors, x = as64(variables.memory.bank.vectors), as64(x)
    (other,) = (m for m in MODALITIES if m != modality)
    for _ in range(model.hops):
        cosines = x @ vectors[modality].T
        slots = np.argsort(-cosines, axis=1)[:, : model.read_top]
        weights = softmax(np.take_along_axis(cosines, slots, axis=1) / temperature)
        x = unit(x + gate * (np.einsum("nk,nkd->nd", weights, vectors[other][slots]) @ kernel))
    return x


@pytest.mark.parametrize("modality", MODALITIES)
@pytest.mark.parametrize("options", [{}, {"hops": 3}, {"learned_reads": True}], ids=str)
def test_items_read_what_the_equations_say(options, modality):
    model = hmgr(**options)
    variables, x = variables_of(model), codes()[modality]
    found, _ = remember(model, variables, modality, x)
    expected = remembered(model, variables, x, modality)
    assert np.abs(expected - x).max() > 0.01
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_learned_reads_start_as_the_others_stay():
    plain, learned = hmgr(), hmgr(learned_reads=True)
    start = jax.jit(lambda key: learned.init(key).params["memory"])(jax.random.key(0))
    variables = variables_of(plain).replace(params={"memory": start})
    for m, x in codes().items():
        expected, found = (remember(model, variables, m, x)[0] for model in (plain, learned))
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


# --- what a step writes ---------------------------------------------------------------------------


def test_a_step_writes_the_valid_pairs_of_its_batch():
    model = hmgr(slots=2 * B)
    variables = variables_of(model)
    empty = variables.memory.replace(bank=banks.empty_bank(MODALITIES, 2 * B, D))
    _, _, memory, _ = step_of(model, variables.replace(memory=empty), row(valid=5))
    assert memory.bank.head == 5
    for m, x in codes().items():
        np.testing.assert_array_equal(memory.bank.vectors[m][:5], x[:5])
    np.testing.assert_array_equal(memory.bank.group[:6], [0, 1, 2, 3, 4, -1])
    np.testing.assert_array_equal(memory.bank.step[:5], STEP)


def test_the_bank_wakes_up_after_the_warm_up():
    model = hmgr(memory_warmup_steps=5)
    variables = model.before_finalize(variables_of(model))
    awake = [bool(step_of(model, variables, step=step)[2].active) for step in (3, 4)]
    assert awake == [False, True]  # after 4 and after 5 steps


def test_a_bad_step_leaves_the_memory_as_it_was():
    model = hmgr(**LEARNED, memory_warmup_steps=5)
    variables = model.before_finalize(variables_of(model))
    memory = step_of(model, variables, good=False)[2]
    jax.tree.map(np.testing.assert_array_equal, memory, variables.memory)


# --- what is learned ------------------------------------------------------------------------------


def test_without_learned_reads_the_loss_is_that_without_a_memory():
    plain = hmgr(memory="none")
    variables = variables_of(plain)
    total, terms, memory, _ = step_of(plain, variables)
    assert memory is None
    found = step_of(hmgr(), variables.replace(memory=memory_of(hmgr())))
    assert found[:2] == (total, terms)
    assert total > 0


@pytest.fixture(scope="module")
def learned():
    model = hmgr(**LEARNED)
    variables = variables_of(model)
    return model, variables, step_of(model, variables)


def test_learned_reads_get_gradients(learned):
    for path, leaf in jax.tree.leaves_with_path(learned[2][3]["memory"]):
        assert np.isfinite(leaf).all()
        assert np.any(leaf), jax.tree_util.keystr(path)


def test_the_loss_is_that_of_the_vectors_after_the_memory_and_of_those_before(learned):
    model, variables, (total, terms, _, _) = learned
    plain = hmgr(memory="none")
    before = step_of(plain, variables.replace(memory=None))[0]
    hats = {m: jnp.float32(remembered(model, variables, x, m)) for m, x in codes().items()}
    after = plain.rank_vectors(variables.params, hats, row(), jnp.int32(STEP), LocalAxis())
    assert terms["before_memory"] == pytest.approx(before, rel=1e-5)
    assert terms["triplet"] == pytest.approx(float(after), rel=1e-4)
    assert abs(after - before) > 1e-2
    assert total == pytest.approx(terms["triplet"] + terms["before_memory"], rel=1e-6)


def test_the_loss_before_the_memory_is_weighted(learned):
    _, variables, (_, terms, _, _) = learned
    found = step_of(hmgr(**LEARNED, pre_memory_loss=0.25), variables)[0]
    expected = terms["triplet"] + 0.25 * terms["before_memory"]
    assert found == pytest.approx(expected, rel=1e-6)


def test_in_training_the_pairs_of_the_own_picture_are_not_read(learned):
    model, variables, (_, terms, _, _) = learned
    one = row() | {"group": jnp.full(B, OTHERS)}
    bank = variables.memory.bank.replace(group=jnp.full(model.slots, OTHERS))
    own = variables.replace(memory=variables.memory.replace(bank=bank))
    _, found, memory, _ = step_of(model, own, one)
    assert found["memory/text/moved"] == pytest.approx(0, abs=1e-6)
    assert terms["memory/text/moved"] > 0.01
    assert not memory.bank.read.any()


def test_slots_that_the_batch_reads_are_marked_unless_it_writes_them(learned):
    model, variables, (_, _, memory, _) = learned
    slots = [remember(model, variables, m, x)[1].slots for m, x in codes().items()]
    written = np.asarray(memory.bank.step) == STEP
    expected = np.isin(np.arange(model.slots), slots) & ~written
    np.testing.assert_array_equal(memory.bank.read, expected)
    assert expected.any()


def test_the_share_of_slots_ever_read_is_reported(learned):
    model, variables, _ = learned
    read = jnp.arange(model.slots) < model.slots // 4
    memory = variables.memory.replace(bank=variables.memory.bank.replace(read=read))
    _, terms, _, _ = step_of(model, variables.replace(memory=memory))
    assert terms["memory/slots_read"] == pytest.approx(0.25)


def test_a_sleeping_memory_learns_nothing(learned):
    model, variables, _ = learned
    _, terms, memory, gradient = step_of(model, model.before_finalize(variables))
    assert terms["triplet"] == pytest.approx(terms["before_memory"], rel=1e-6)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(gradient["memory"]))
    assert not memory.bank.read.any()


# --- evaluation -----------------------------------------------------------------------------------

IMAGES, CAPTIONS = 4, 12
ROWS = {
    "image": np.random.default_rng(1).permutation(np.arange(CAPTIONS) // 3),
    "text": np.random.default_rng(2).permutation(CAPTIONS),
}


def train_codes():
    rng, sizes = np.random.default_rng(0), {"image": IMAGES, "text": CAPTIONS}
    return {m: unit(rng.standard_normal((n, D))).astype(np.float32) for m, n in sizes.items()}


def finalized(slots):
    model, given = hmgr(slots=slots), train_codes()
    variables = variables_of(model)
    return model, given, model.finalize(variables, given, ROWS)


def assert_stored(model, found, given, pictures):
    """The filled slots hold these pictures, each with the mean of its captions, as told."""
    bank, told = found.memory.bank, model.stored_items(found, ROWS)
    np.testing.assert_array_equal(told["image"], bank.group)
    np.testing.assert_array_equal(bank.group[: len(pictures)], pictures)
    assert (np.asarray(bank.group[len(pictures) :]) == banks.EMPTY).all()
    for slot, picture in enumerate(pictures):
        own = ROWS["text"][ROWS["image"] == picture]
        mean = given["text"][own].mean(axis=0)
        expected = mean / np.linalg.norm(mean)
        np.testing.assert_allclose(bank.vectors["text"][slot], expected, rtol=0, atol=1e-6)
        np.testing.assert_array_equal(bank.vectors["image"][slot], given["image"][picture])
        assert told["text"][slot] == own[0]
    stored = model.stored_vectors(found)
    assert {m: len(x) for m, x in stored.items()} == dict.fromkeys(MODALITIES, len(pictures))


@pytest.mark.parametrize("slots", [CAPTIONS, IMAGES - 1])
def test_pictures_with_the_means_of_their_captions_are_stored_for_evaluation(slots):
    model, given, found = finalized(slots)
    drawn = np.random.default_rng(0).permutation(IMAGES)[:slots]
    assert_stored(model, found, given, drawn)


def test_another_training_split_than_the_stored_one_is_refused():
    model, _, found = finalized(CAPTIONS)
    with pytest.raises(UserError, match="The memory holds pairs of another training split"):
        model.stored_items(found, {"image": np.arange(9), "text": np.arange(9)})


def test_training_items_are_encoded_at_the_end_only():
    assert hmgr().needs_train_at_end
    assert not hmgr().needs_train


def test_storing_the_training_pairs_changes_nothing_else():
    model, given, found = finalized(slots=S)
    variables = variables_of(model)
    again = model.finalize(variables, given, ROWS)
    assert again.params is variables.params
    assert again.memory.active == variables.memory.active
    np.testing.assert_array_equal(again.memory.bank.group, found.memory.bank.group)


@pytest.mark.parametrize("options", [{"memory": "none"}, {"rewrite_bank": False}], ids=str)
def test_a_bank_that_is_not_rewritten_needs_no_training_items(options):
    model = hmgr(**options)
    variables = variables_of(model)
    assert not model.needs_train
    assert not model.needs_train_at_end
    assert model.finalize(variables, train_codes(), ROWS) is variables


def test_training_items_are_encoded_before_the_memory():
    variables = variables_of(hmgr())
    asleep = hmgr().before_finalize(variables)
    assert not asleep.memory.active
    assert asleep.memory.bank is variables.memory.bank


def test_the_report_of_a_split_has_its_codes_after_the_memory(monkeypatch):
    monkeypatch.setattr(hmgr_file, "ROWS", 3)
    model = hmgr(visual_read=0.0)
    variables, given = variables_of(model), codes()
    after, report = model.memory_report(variables, given)
    np.testing.assert_array_equal(after["image"], given["image"])
    expected, reading = remember(model, variables, "text", given["text"])
    np.testing.assert_allclose(after["text"], expected, rtol=0, atol=1e-6)
    assert set(report) == {f"memory/text/{n}" for n in ("slots_read", "entropy", "top1", "moved")}
    assert report["memory/text/slots_read"] == len(np.unique(reading.slots)) / S
    assert report["memory/text/top1"] == pytest.approx(float(reading.weights[:, 0].mean()))


def test_a_sleeping_memory_reports_the_codes_as_they_are():
    model = hmgr()
    after, report = model.memory_report(model.before_finalize(variables_of(model)), codes())
    assert not report
    jax.tree.map(np.testing.assert_array_equal, after, codes())
