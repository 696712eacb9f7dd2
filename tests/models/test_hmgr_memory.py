"""HMGR's loss from given codes: reads, writes and gradients of each kind of memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hmgr_cases import AFTER, BEFORE, SIZES, B, D, S, codes, hmgr, row, variables_of

from hmgr_jax.layers.dropout import Keys
from hmgr_jax.layers.memory import write, write_shares
from hmgr_jax.losses.triplet import negatives, triplet
from hmgr_jax.models.base import LocalAxis
from hmgr_jax.training.checkpoint import Checkpoints

GROUPS = 8
WRITERS = ("write_content_image", "write_content_text", "write_place_image", "write_place_text")
READERS = ("key", "query_image", "query_text", "hop_gate_image", "hop_content_text")


class Step:
    """Loss, gradient and next memory of a model from given codes."""

    def __init__(self, base=None, **overrides):
        self.model = hmgr(**overrides)
        self.variables = variables_of(self.model, base=base)
        self._run = jax.jit(jax.value_and_grad(self._loss, has_aux=True))

    def _loss(self, params, memory, given, rows, step):
        variables = self.variables.replace(params=params, memory=memory)
        keys = Keys.at(jnp.int32(0), step, rows["index"])
        total, terms, _, memory = self.model.loss(
            variables, given, rows, step=step, keys=keys, axis=LocalAxis()
        )
        return total, (terms, memory)

    def __call__(self, given=None, rows=None, step=AFTER):
        """(loss, terms, next memory, {name of a map: largest gradient})."""
        given = codes() if given is None else given
        rows = row() if rows is None else rows
        v = self.variables
        (total, (terms, memory)), gradient = self._run(
            v.params, v.memory, given, rows, jnp.int32(step)
        )
        maps = gradient.get("memory", {}) | {"slots": gradient.get("slots", jnp.zeros(1))}
        largest = {k: max(np.abs(x).max() for x in jax.tree.leaves(g)) for k, g in maps.items()}
        for value in (total, *terms.values(), *largest.values()):
            assert np.isfinite(value)
        return float(total), {k: float(x) for k, x in terms.items()}, memory, largest


@pytest.fixture(scope="module")
def joint():
    return Step()


def moved(step, memory):
    """How far each slot moved, {memory: [S]}."""
    return np.linalg.norm(memory.slots - step.variables.memory.slots, axis=-1)


# --- the default ----------------------------------------------------------------------------------


def by_group(model, variables, given, groups=GROUPS):
    """(codes after the memory, slots), computed group by group."""
    access, params = model._access(), {"params": variables.params["memory"]}

    @jax.jit
    def one(slots, image, text):
        v, r_v, at_v = access.apply(params, slots, image, "image", method="read")
        t, r_t, at_t = access.apply(params, slots, text, "text", method="read")
        c_v, a_v = access.apply(params, image, r_v, at_v, "image", method="content")
        c_t, a_t = access.apply(params, text, r_t, at_t, "text", method="content")
        gate = access.apply(params, image, text, (r_v + r_t) / 2, method="gate")
        valid = jnp.ones(len(image), bool)
        shares = write_shares(gate, (a_v, a_t), valid, model.write_rate, "slotwise", (True, True))
        return v, t, write(slots, *shares, (c_v, c_t))

    found = {m: np.zeros_like(x) for m, x in given.items()}
    slots = variables.memory.slots[0]
    for group in range(groups):
        rows = np.arange(group, B, groups)
        found["image"][rows], found["text"][rows], slots = one(
            slots, given["image"][rows], given["text"][rows]
        )
    return found, slots


def test_each_group_reads_the_writes_of_earlier_groups(joint):
    total, terms, memory, _ = joint()
    hats, slots = by_group(joint.model, joint.variables, codes())
    np.testing.assert_allclose(memory.slots[0], slots, rtol=0, atol=1e-6)
    pairs = negatives(jnp.ones(B, bool))
    after, before = (
        float(triplet(jnp.asarray(x["image"] @ x["text"].T), pairs)) for x in (hats, codes())
    )
    np.testing.assert_allclose([terms["triplet"], terms["triplet_pre"]], [after, before], rtol=1e-5)
    np.testing.assert_allclose(total, after + before, rtol=1e-5)
    norm = np.sqrt(np.mean(np.sum(np.square(slots), axis=-1)))
    np.testing.assert_allclose(terms["memory/norm"], norm, rtol=1e-5)
    assert 0 < terms["memory/usage_entropy"] <= np.log(S) + 1e-6


def test_every_map_gets_gradient_and_writes_are_counted(joint):
    _, _, memory, gradient = joint()
    for name in (*WRITERS, *READERS, "write_gate"):
        assert gradient[name] > 0, name
    assert memory.written == B
    assert moved(joint, memory).min() > 0


def test_an_inactive_memory_is_written_and_not_read(joint):
    total, terms, memory, gradient = joint(step=BEFORE)
    assert terms["triplet"] == terms["triplet_pre"]
    assert total == 2 * terms["triplet"]
    assert not any(gradient.values())
    assert not memory.active
    assert memory.written == B
    _, terms, later, _ = joint(step=AFTER)
    assert terms["triplet"] != terms["triplet_pre"]
    assert later.active
    np.testing.assert_array_equal(later.slots, memory.slots)


def test_the_warm_up_sums_over_negatives(joint):
    given = codes()
    pairs = negatives(jnp.ones(B, bool))
    scores = jnp.asarray(given["image"] @ given["text"].T)
    first = SIZES["sum_warmup_steps"]
    expected = [float(triplet(scores, pairs, hard=hard)) for hard in (False, True)]
    found = [joint(step=step)[1]["triplet"] for step in (first - 1, first)]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert expected[0] > 2 * expected[1] > 0


def test_an_invalid_row_changes_nothing(joint):
    valid = B - 5
    one = joint(rows=row(valid))
    garbage = {m: x.at[valid:].set(jnp.roll(x, 1, axis=1)[valid:]) for m, x in codes().items()}
    other = joint(given=garbage, rows=row(valid))
    assert one[2].written == valid
    assert one[:2] == other[:2]
    np.testing.assert_array_equal(one[2].slots, other[2].slots)
    assert one[3] == other[3]
    assert one[0] < joint()[0]


def test_rows_of_one_group_are_no_negatives(joint):
    same = row() | {"group": jnp.zeros(B, jnp.int32)}
    assert joint(rows=same)[0] == 0.0
    apart = Step(memory="none", mask_same_image=False)
    assert apart(rows=same)[0] == apart()[0] > 0.0


# --- the switches ---------------------------------------------------------------------------------


def test_without_memory_the_loss_is_the_ranking_loss():
    step = Step(memory="none")
    total, terms, memory, gradient = step()
    assert memory is None
    assert terms == {"triplet": total}
    assert list(gradient) == ["slots"]


@pytest.mark.slow
def test_separate_memories_differ(joint):
    step = Step(base=joint.variables, memory="separate")
    start = step.variables.memory.slots[:1]
    both = jnp.concatenate([start, start])
    step.variables = step.variables.replace(memory=step.variables.memory.replace(slots=both))
    _, _, memory, gradient = step()
    assert moved(step, memory).min() > 0
    assert np.abs(memory.slots[0] - memory.slots[1]).max() > 1e-3
    for name in WRITERS:
        assert gradient[name] > 0, name


def test_visual_only_write_learns_from_images_only(joint):
    step = Step(base=joint.variables, memory="visual_only_write")
    _, _, memory, gradient = step()
    for what in ("write_content", "write_place"):
        assert gradient[f"{what}_text"] == 0
        assert gradient[f"{what}_image"] > 0
    assert moved(step, memory).min() > 0
    assert memory.written == B


def test_text_only_write_with_content_address(joint):
    """One modality writes, and content addressing has no address map."""
    switches = {"memory": "text_only_write", "write_address": "content"}
    step = Step(base=joint.variables, **switches)
    _, _, memory, gradient = step()
    assert not [name for name in gradient if name.startswith("write_place")]
    assert gradient["write_content_image"] == 0
    assert gradient["write_content_text"] > 0
    assert moved(step, memory).min() > 0


def test_learned_slots_are_parameters_without_writes(joint, tmp_path):
    step = Step(base=joint.variables, memory="learned")
    _, _, memory, gradient = step()
    assert gradient["slots"] > 0
    assert gradient["query_image"] > 0
    assert not any(gradient[name] for name in (*WRITERS, "write_gate"))
    assert memory.slots is None
    assert memory.written == 0
    assert memory.active
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        checkpoints.save(1, step.variables, {}, None)
        restored, _, _ = checkpoints.restore(jax.eval_shape(lambda: step.variables))
    np.testing.assert_array_equal(restored.params["slots"], step.variables.params["slots"])


def test_episodic_memory_is_reset(joint):
    step = Step(base=joint.variables, memory="episodic")
    step.variables = step.variables.replace(memory=joint.variables.memory)
    total, _, memory, gradient = step()
    np.testing.assert_array_equal(memory.slots, joint.variables.memory.slots)
    assert memory.written == 0
    # Within the step it is the joint memory.
    assert total == pytest.approx(joint()[0], rel=1e-6)
    assert all(gradient[name] > 0 for name in WRITERS)


def test_slots_hops_write_rate_and_loss_weight(joint):
    """Slots, hops, a write rate of 0 and no loss before the memory, in one model."""
    step = Step(slots=3, hops=3, write_rate=0.0, pre_memory_loss=0.0)
    total, terms, memory, gradient = step()
    assert memory.slots.shape == (1, 3, D)
    assert moved(step, memory).max() == 0
    assert total == terms["triplet"] != terms["triplet_pre"]
    assert not any(gradient[name] for name in WRITERS)
    assert step.model._access().hops == 3


def test_one_group_gives_writes_no_gradient_and_hme_forgets(joint):
    """With one group nothing is read after it was written."""
    step = Step(base=joint.variables, memory_groups=1, write_rule="hme")
    _, _, memory, gradient = step()
    assert not any(gradient[name] for name in (*WRITERS, "write_gate"))
    assert all(gradient[name] > 0 for name in READERS)
    # Under the rule of HME another start leaves hardly a trace: every instance decays every slot.
    start = joint.variables.memory.replace(slots=-joint.variables.memory.slots)
    step.variables = step.variables.replace(memory=start)
    apart = np.abs(start.slots - joint.variables.memory.slots).max()
    assert np.abs(step()[2].slots - memory.slots).max() < 0.2 * apart
    # A slot of the default rule is still nearly what it was.
    assert moved(joint, joint()[2]).max() < 0.3
