"""The temperature of InfoNCE: its start, its bounds, its part."""

import jax
import jax.numpy as jnp
import pytest

from hmgr_jax.errors import UserError
from hmgr_jax.models import get_model, list_models
from hmgr_jax.models.ranking import COLDEST, WARMEST, Ranked

MODEL = Ranked(objective="infonce", temperature=0.3)


def at(temperature):
    return {"loss": {"log_temperature": jnp.log(jnp.float32(temperature))}}


def test_the_temperature_starts_as_the_option_says():
    assert MODEL.current_temperature(MODEL.loss_params()) == pytest.approx(0.3)


@pytest.mark.parametrize(("learned", "used"), [(1e-4, COLDEST), (0.5, 0.5), (30.0, WARMEST)])
def test_the_temperature_stays_within_its_bounds(learned, used):
    assert MODEL.current_temperature(at(learned)) == pytest.approx(used)


def test_a_temperature_beyond_its_bounds_can_return():
    slope = jax.grad(lambda t: MODEL.current_temperature(at(t)))
    assert slope(0.5) == pytest.approx(1.0)
    assert slope(2.0) > 0
    assert slope(1e-3) > 0


@pytest.mark.parametrize("temperature", [0.001, 5.0])
def test_rejects_a_first_temperature_beyond_the_bounds(temperature):
    with pytest.raises(UserError, match="temperature must be in"):
        Ranked(objective="infonce", temperature=temperature)


def test_the_triplet_objective_has_no_parameters():
    assert Ranked().loss_params() == Ranked().loss_parts() == {}


RANKED = [name for name in list_models() if isinstance(get_model(name), Ranked)]
RANKED.remove("pcme")  # which has objectives of its own


@pytest.mark.parametrize("name", RANKED)
def test_every_ranking_system_names_the_part_of_its_temperature(name):
    parts = get_model(name, objective="infonce").parts()
    assert parts["loss"] == ("loss",)
    assert "loss" not in get_model(name, objective="triplet").parts()
