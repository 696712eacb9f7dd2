"""One training step of a model that is small enough to follow by hand."""

from dataclasses import dataclass, replace
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hmgr_jax.distributed.parallel import MAPPERS, MappedAxis, make_mesh, map_step, replicate, shard
from hmgr_jax.models.base import Feature, LocalAxis, Model, Variables
from hmgr_jax.training.optimizer import Optimizer, Schedule, Stage
from hmgr_jax.training.step import device_step, init_state


@dataclass(frozen=True)
class Point(Model):
    """One parameter w; the loss is the mean over rows of w·x + fault, so its gradient is mean x.

    ``fault`` comes into the loss, the statistics or the memory, or into the gradient at w = 0.
    """

    modalities: ClassVar[tuple[str, ...]] = ("first", "second")

    fault_in: str = "loss"

    def inputs(self):
        return {m: {"x": Feature((), "float32")} for m in self.modalities}

    def parts(self):
        return {"w": ("w",), "rest": ("rest",)}

    def init(self, key, tables=None):
        params = {"w": jax.random.normal(key, ()), "rest": jnp.ones(2)}
        return Variables(params, jnp.zeros(()), jnp.zeros(()), tables)

    def encode(self, variables, modality, items, *, train, keys):
        # Statistics pass through the modalities in turn: 0 -> 1 -> 11.
        stats = 10 * variables.stats + 1
        return variables.params["w"] * items["x"], stats

    def loss(self, variables, codes, row, *, step, keys, axis):
        first, fault, valid = axis.gather((codes["first"], row["fault"], row["valid"]))
        total = jnp.sum(jnp.where(valid, first, 0.0)) / jnp.sum(valid, dtype=jnp.float32)
        fault = jnp.sum(fault)
        found = {"loss": total, "stats": variables.stats, "memory": variables.memory + 1}
        if self.fault_in == "gradient":
            found["loss"] = total + jnp.sqrt(fault * variables.params["w"] ** 2)
        else:
            found[self.fault_in] = found[self.fault_in] + fault
        noise = axis.mean(jnp.mean(jax.vmap(jax.random.normal)(keys.named("noise").per_row())))
        return found["loss"], {"noise": noise}, found["stats"], found["memory"]

    def write_memory(self, memory, written, good, axis):
        return jnp.where(good, written, memory)


ROWS = 8
X = np.arange(ROWS, dtype=np.float32)  # the mean is 3.5


def batch(x=X, fault=0.0, valid=None):
    index = np.arange(ROWS, dtype=np.int32)
    row = {
        "index": index,
        "valid": np.ones(ROWS, bool) if valid is None else valid,
        "fault": np.full(ROWS, fault, np.float32),
    }
    return {"first": {"x": x}, "second": {"x": x}, "row": row}


SCHEDULE = Schedule(0.1, 4, decay="step", decay_at=0.5)  # 0.1, 0.1, 0.01, 0.01


def make(model=None, stage=None, **options):
    """(start, step) on one device without mapping."""
    model = model or Point()
    options = {"kind": "sgd", "clip": 2.0} | options
    optimizer = Optimizer(SCHEDULE, model.parts(), stage=stage or Stage(0), **options)
    return init_state(model, optimizer, 0), jax.jit(device_step(model, optimizer, LocalAxis()))


def test_one_step_by_hand():
    state, step = make()
    after, report = step(state, None, batch())
    assert float(report["grad_norm"]) == pytest.approx(3.5)
    assert float(report["lr"]) == pytest.approx(0.1)
    w = float(state.params["w"])
    assert float(report["loss"]) == pytest.approx(3.5 * w, rel=1e-6)
    assert float(after.params["w"]) == pytest.approx(w - 0.1 * 2.0, rel=1e-6)  # clipped to 2
    assert (after.step, after.memory, after.stats) == (1, 1, 11)
    np.testing.assert_array_equal(after.params["rest"], state.params["rest"])


@pytest.mark.parametrize("mapper", MAPPERS)
def test_the_norm_is_clipped_after_the_mean_over_devices(mapper):
    model = Point()
    optimizer = Optimizer(SCHEDULE, model.parts(), "sgd", clip=2.0)
    mesh = make_mesh(8)
    step = map_step(device_step(model, optimizer, MappedAxis()), mesh, mapper)
    state = jax.device_get(init_state(model, optimizer, 0))
    # Every device's own gradient is large, their mean is 1.
    x = np.asarray([100, -100, 50, -50, 30, -30, 4, 4], np.float32)
    after, report = step(replicate(mesh, state), None, shard(mesh, batch(x)))
    assert float(report["grad_norm"]) == pytest.approx(1.0)
    assert float(after.params["w"]) == pytest.approx(float(state.params["w"]) - 0.1, rel=1e-5)


@pytest.mark.parametrize("fault", [np.nan, np.inf])
@pytest.mark.parametrize("where", ["loss", "stats", "memory"])
def test_non_finite_values_are_not_kept(where, fault):
    state, step = make(Point(fault_in=where))
    bad, report = step(state, None, batch(fault=fault))
    for part in ("params", "stats", "memory", "optimizer", "seed"):
        same = jax.tree.map(np.array_equal, getattr(bad, part), getattr(state, part))
        assert all(jax.tree.leaves(same)), part
    assert (bad.step, bad.bad_in_a_row, bad.bad_total) == (1, 1, 1)
    assert report["bad_in_a_row"] == report["bad_total"] == 1


def test_a_bad_gradient_of_a_finite_loss_is_not_kept():
    state, step = make(Point(fault_in="gradient"))
    zero = state.replace(params=state.params | {"w": jnp.zeros(())})
    bad, report = step(zero, None, batch(fault=1.0))
    assert np.isfinite(report["loss"])
    assert not np.isfinite(report["grad_norm"])
    assert bad.bad_total == 1
    assert bad.params["w"] == 0


def test_bad_steps_are_counted_and_do_not_shift_the_schedule():
    state, step = make(clip=0.0)
    rates, in_a_row = [], []
    for fault in (np.nan, np.nan, 0.0, np.nan):
        state, report = step(state, None, batch(fault=fault))
        rates.append(float(report["lr"]))
        in_a_row.append(int(report["bad_in_a_row"]))
    np.testing.assert_allclose(rates, [0.1, 0.1, 0.01, 0.01], rtol=1e-6)
    assert in_a_row == [1, 2, 0, 1]
    assert (state.step, state.bad_total) == (4, 3)
    # The one good step was the third: its rate is that of the third, without a past.
    start, _ = make()
    expected = float(start.params["w"]) - 0.01 * 3.5
    assert float(state.params["w"]) == pytest.approx(expected, rel=1e-6)


def test_a_frozen_part_does_not_move():
    state, step = make(stage=Stage(0, frozen=("w",)))
    after, report = step(state, None, batch())
    assert after.params["w"] == state.params["w"]
    assert report["grad_norm"] == 0
    assert after.memory == 1


def test_random_numbers_belong_to_the_seed_and_the_step():
    state, step = make()

    def noise(state):
        return float(step(state, None, batch())[1]["noise"])

    first = noise(state)
    second = noise(step(state, None, batch())[0])
    other = noise(state.replace(seed=jnp.int32(1)))
    assert len({first, second, other}) == 3
    assert noise(state) == first


def test_the_first_state_depends_on_the_seed_alone():
    model = Point()
    plain = Optimizer(SCHEDULE, model.parts())
    states = [
        init_state(model, optimizer, seed)
        for optimizer, seed in ((plain, 3), (replace(plain, stage=Stage(9, ("w",))), 3), (plain, 4))
    ]
    assert states[0].params["w"] == states[1].params["w"] != states[2].params["w"]
    assert (states[0].step, states[0].seed, states[0].bad_total) == (0, 3, 0)


def test_more_devices_than_there_are_and_unknown_mappers_are_refused():
    with pytest.raises(ValueError, match="this machine has 8"):
        make_mesh(9)
    with pytest.raises(ValueError, match="xmap"):
        map_step(lambda *_: None, make_mesh(1), "xmap")


def test_sums_over_the_batch_are_reported_per_row():
    """The loss and its plateau of 6 rows and 2 of padding; the gradient is that of the sum."""

    @dataclass(frozen=True)
    class Summed(Point):
        summed: ClassVar[frozenset[str]] = frozenset(["loss"])

        def plateau(self, row, step, axis):
            return axis.sum(12.0 * jnp.ones(()))

    reports = {}
    for kind in (Point, Summed):
        state, step = make(kind())
        reports[kind] = step(state, None, batch(valid=np.arange(ROWS) < 6))[1]
    assert reports[Summed]["loss"] == pytest.approx(float(reports[Point]["loss"]) / 6, rel=1e-6)
    assert reports[Summed]["grad_norm"] == reports[Point]["grad_norm"]
    assert reports[Summed]["plateau"] == 2
    assert "plateau" not in reports[Point]
