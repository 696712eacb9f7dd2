"""Checkpoints: restored exactly, kept by the rule, refused by another model."""

import importlib
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from checkpoint_cases import META, abstract, assert_same, fill, make_state
from jax.sharding import AxisType, NamedSharding, SingleDeviceSharding
from jax.sharding import PartitionSpec as P

from hmgr_jax.errors import UserError
from hmgr_jax.training.checkpoint import Checkpoints


def test_restores_exactly_what_was_saved(opened):
    checkpoints = opened()
    checkpoints.save(7, make_state(7), META, 12.5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        state, meta, step = checkpoints.restore(abstract(make_state(0)))
    assert_same(state, make_state(7))
    assert (meta, step) == (META, 7)


def test_a_slow_disk_is_waited_for_in_silence(opened, monkeypatch, caplog):
    manager = importlib.import_module("orbax.checkpoint.checkpoint_manager")
    monkeypatch.setattr(manager, "_WAIT_FOR_PREV_SAVE_WARNING_THRESHOLD_SECS", -1.0)
    checkpoints = opened()
    for step in range(3):
        checkpoints.save(step, make_state(step), META, None)
    checkpoints.wait()
    assert not caplog.records


def test_a_real_array_serves_as_template_and_numpy_stays_numpy(opened):
    state = {"a": jnp.arange(3), "b": np.arange(4)}
    checkpoints = opened()
    checkpoints.save(1, state, {}, None)
    restored, _, _ = checkpoints.restore(jax.tree.map(lambda x: x * 0, state))
    assert_same(restored, state)
    assert isinstance(restored["b"], np.ndarray)


@pytest.mark.parametrize("devices", [1, 4, 8])
def test_the_template_decides_where_arrays_go(opened, devices):
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    state = {"w": jax.device_put(jnp.arange(16.0), NamedSharding(mesh, P("data")))}
    checkpoints = opened()
    checkpoints.save(1, state, {}, None)
    smaller = jax.make_mesh(
        (devices,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:devices]
    )
    sharding = NamedSharding(smaller, P("data"))
    restored, _, _ = checkpoints.restore(abstract(state, sharding))
    assert restored["w"].sharding == sharding
    np.testing.assert_array_equal(restored["w"], np.arange(16.0))


def test_without_a_sharding_the_first_device_is_taken(opened):
    checkpoints = opened()
    checkpoints.save(1, make_state(1), {}, None)
    state, _, _ = checkpoints.restore(abstract(make_state(0)))
    assert state.params["dense"]["w"].sharding == SingleDeviceSharding(jax.devices()[0])


def test_a_template_may_depend_on_the_step_and_meta(opened):
    checkpoints = opened()
    fill(checkpoints, [None, None])
    seen = []

    def template(step, meta):
        seen.append((step, meta["at"]))
        return abstract(make_state(0))

    state, _, _ = checkpoints.restore(template)
    assert seen == [(2, 2)]
    assert_same(state, make_state(2))


def test_a_part_is_restored_only_when_asked_for(opened):
    checkpoints = opened()
    fill(checkpoints, [None])
    part = {"params": abstract(make_state(0).params)}
    state, _, _ = checkpoints.restore(part, partial=True)
    assert_same(state, {"params": make_state(1).params})
    with pytest.raises(UserError, match=r"key is uint32\[2\] in the checkpoint and absent"):
        checkpoints.restore(part)


def test_containers_without_arrays_do_not_count(opened):
    checkpoints = opened()
    checkpoints.save(1, {"w": jnp.ones(2), "opt": (optax.EmptyState(), None), "m": {}}, {}, None)
    template = {"w": jnp.zeros(2), "opt": None, "m": ()}
    state, _, _ = checkpoints.restore(template)
    assert_same(state, template | {"w": jnp.ones(2)})


def test_donated_and_overwritten_buffers_do_not_reach_the_disk(opened):
    checkpoints = opened()
    double = jax.jit(lambda tree: jax.tree.map(lambda x: x * 2, tree), donate_argnums=0)
    state = {"w": jnp.full((512, 512), 1.0)}
    host = np.ones(1 << 20)
    checkpoints.save(1, state | {"host": host}, {}, None)
    for _ in range(3):
        state = double(state)
    host[:] = 9
    restored, _, _ = checkpoints.restore({"w": jnp.zeros((512, 512)), "host": np.zeros(1 << 20)})
    assert (restored["w"] == 1).all()
    assert (restored["host"] == 1).all()


@pytest.mark.parametrize(
    ("metrics", "kept", "best"),
    [
        ([1.0, 5.0, 2.0, 3.0, 4.0], [2, 4, 5], 2),
        ([1.0, 2.0, 3.0], [2, 3], 3),
        ([9.0, float("nan"), 3.0, float("nan"), None], [1, 4, 5], 1),
        ([9.0, float("inf"), 3.0, 2.0, 1.0], [1, 4, 5], 1),
        ([None, 2.0, None, None, None], [2, 4, 5], 2),
        ([None, None, None], [2, 3], None),
        ([float("nan"), float("nan"), float("nan")], [2, 3], None),
        ([1.0, 5.0, 5.0, 5.0, 0.0], [2, 4, 5], 2),
        ([-3.0, -1.0, -2.0, -4.0], [2, 3, 4], 2),
        ([0.0, None, None], [1, 2, 3], 1),
    ],
)
def test_keeps_the_newest_two_and_the_best(opened, folder, metrics, kept, best):
    checkpoints = opened()
    fill(checkpoints, metrics)
    assert (checkpoints.steps(), checkpoints.best_step()) == (kept, best)
    assert sorted(int(x.name) for x in folder.iterdir()) == kept
    assert sorted(int(x.stem) for x in (folder.parent / "digests").iterdir()) == kept
    again = opened()
    assert (again.steps(), again.best_step()) == (kept, best)


def test_the_best_of_an_earlier_process_is_still_the_best(opened):
    first = opened(keep=1)
    first.save(1, make_state(1), META, 8.0)
    first.save(2, make_state(2), META, 3.0)
    first.wait()
    second = opened(keep=1)
    second.save(3, make_state(3), META, None)
    second.save(4, make_state(4), META, 8.0)
    second.wait()
    assert (second.steps(), second.best_step()) == ([1, 4], 1)
    state, meta, step = second.restore(make_state(0), second.best_step())
    assert step == 1
    assert meta == META
    assert_same(state, make_state(1))
    second.save(5, make_state(5), META, 8.5)
    second.wait()
    assert (second.steps(), second.best_step()) == ([5], 5)


def test_a_step_that_is_not_newer_is_an_error_and_changes_nothing(opened):
    checkpoints = opened()
    fill(checkpoints, [1.0, 9.0])
    for step in (1, 2):
        with pytest.raises(RuntimeError, match=f"step {step} cannot be saved: .* is 2"):
            checkpoints.save(step, make_state(8), META, 99.0)
    assert checkpoints.best_step() == 2
    assert_same(checkpoints.restore(make_state(0))[0], make_state(2))


def test_a_save_that_orbax_declines_is_an_error(opened, monkeypatch):
    monkeypatch.setattr(ocp.CheckpointManager, "save", lambda *_, **__: False)
    with pytest.raises(RuntimeError, match="step 1 was not saved"):
        opened().save(1, make_state(1), META, None)


def test_another_model_is_named_by_its_first_three_differences(opened):
    checkpoints = opened()
    fill(checkpoints, [1.0])
    other = make_state(0, width=5)
    other = other.replace(
        params=other.params | {"new": {"w": jnp.zeros(2)}},
        memory=other.memory.replace(slots=other.memory.slots.astype(jnp.bfloat16)),
    )
    with pytest.raises(UserError) as error:
        checkpoints.restore(other)
    text = str(error.value)
    assert "memory/slots is float32[2,5] in the checkpoint and bfloat16[2,5] in the model" in text
    assert "/mu/dense/w is float32[64,3] in the checkpoint and float32[64,5] in the model" in text
    assert "/nu/dense/w is" in text
    assert "; and 2 more)" in text
    assert "params" not in text
    assert checkpoints.steps() == [1]


def test_an_absent_sub_tree_is_a_difference(opened):
    checkpoints = opened()
    checkpoints.save(1, make_state(1).replace(memory=None), META, None)
    with pytest.raises(UserError, match=r"memory/active is absent in the checkpoint and bool\[\]"):
        checkpoints.restore(make_state(0))


def test_keep_must_be_positive(folder):
    with pytest.raises(UserError, match="keep must be at least 1, got 0"):
        Checkpoints(folder, keep=0)
