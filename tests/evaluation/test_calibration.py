"""Calibration against its formula, and as inner products of wider vectors."""

import dataclasses

import numpy as np
import pytest
from layer_cases import unit

from hmgr_jax.evaluation import calibration as calibrations
from hmgr_jax.evaluation.calibration import SHARPNESS, STRENGTH, Calibration, choose

STORED = {"image": 7, "text": 9}
ITEMS = {"image": 5, "text": 6}
LAMBDA, BETA, UNIT = 0.4, 3.0, 2.5


def vectors(sizes, seed=0, dim=4):
    rng = np.random.default_rng(seed)
    return {m: unit(rng.standard_normal((n, dim))).astype(np.float32) for m, n in sizes.items()}


CALIBRATION = Calibration(vectors(STORED), LAMBDA, BETA)
OTHER = {"image": "text", "text": "image"}


def penalty(modality, x):
    """λ h in float64."""
    stored = CALIBRATION.vectors[OTHER[modality]].astype(np.float64)
    return LAMBDA * np.log(np.mean(np.exp(BETA * x @ stored.T), axis=1)) / BETA


# --- penalties ------------------------------------------------------------------------------------


@pytest.mark.parametrize("modality", ITEMS)
def test_the_penalty_is_the_formula(modality, monkeypatch):
    monkeypatch.setattr(calibrations, "ROWS", 2)
    x = vectors(ITEMS, seed=1)[modality]
    found = CALIBRATION.penalty(modality, x)
    np.testing.assert_allclose(found, penalty(modality, x), rtol=1e-5)
    assert found.std() > 0.01


def test_inner_products_of_wider_vectors_are_calibrated_scores():
    items = vectors(ITEMS, seed=1)
    wide = {m: CALIBRATION.widened(m, x, OTHER[m]) for m, x in items.items()}
    taken = {m: penalty(m, x) for m, x in items.items()}
    scores = items["image"] @ items["text"].T - taken["image"][:, None] - taken["text"][None]
    np.testing.assert_allclose(wide["image"] @ wide["text"].T, scores, rtol=0, atol=1e-6)


@pytest.mark.parametrize("modality", ITEMS)
def test_a_search_within_one_modality_is_not_calibrated(modality):
    x = vectors(ITEMS, seed=1)[modality]
    query = CALIBRATION.widened(modality, x, modality)
    stored = CALIBRATION.widened(modality, x, OTHER[modality])
    np.testing.assert_allclose(query @ stored.T, x @ x.T, rtol=0, atol=1e-6)


@pytest.mark.parametrize("modality", ITEMS)
def test_wider_vectors_hold_their_penalties_in_units_of_the_scores(modality):
    one, x = dataclasses.replace(CALIBRATION, unit=UNIT), vectors(ITEMS, seed=1)[modality]
    found = one.stored_penalties(modality, one.widened(modality, x, OTHER[modality]))
    np.testing.assert_allclose(found, UNIT * penalty(modality, x), rtol=1e-5)


# --- what is stored -------------------------------------------------------------------------------


def test_a_sample_is_stored_of_more_vectors_than_the_limit():
    found = calibrations.stored_items(100, 7)
    assert len(np.unique(found)) == 7
    np.testing.assert_array_equal(found, np.sort(found))
    np.testing.assert_array_equal(found, calibrations.stored_items(100, 7))
    np.testing.assert_array_equal(calibrations.stored_items(5, 7), np.arange(5))


# --- the choice of λ and β ------------------------------------------------------------------------


def chosen(quality, **options):
    items = vectors(ITEMS, seed=1)
    scores = items["image"] @ items["text"].T
    return choose(CALIBRATION, scores, items, quality, **{"exact": True} | options)


def test_no_calibration_is_chosen_if_none_is_better():
    start = dataclasses.replace(CALIBRATION, strength=0.0)
    items = vectors(ITEMS, seed=1)
    found = choose(start, items["image"] @ items["text"].T, items, lambda _: 50.0, exact=True)
    assert found.strength == 0
    assert "none" in found.describe()


def test_the_best_strength_and_sharpness_are_chosen():
    items = vectors(ITEMS, seed=1)
    wanted = dataclasses.replace(CALIBRATION, strength=STRENGTH[1], sharpness=SHARPNESS[2])
    wide = [wanted.widened(m, x, OTHER[m]) for m, x in items.items()]
    found = chosen(lambda scores: -np.abs(scores - wide[0] @ wide[1].T).sum())
    assert (found.strength, found.sharpness, found.unit) == (STRENGTH[1], SHARPNESS[2], 1.0)
    assert f"λ = {STRENGTH[1]:g}, β = {SHARPNESS[2]:g}" in found.describe()


def test_the_weakest_of_equally_good_calibrations_is_chosen():
    items = vectors(ITEMS, seed=1)
    plain = items["image"] @ items["text"].T
    found = chosen(lambda scores: float(not np.array_equal(scores, plain)))
    assert (found.strength, found.sharpness) == (STRENGTH[0], SHARPNESS[0])


def test_penalties_are_in_units_of_the_spread_of_scores_that_are_no_products():
    items = vectors(ITEMS, seed=1)
    scores = 3.0 * items["image"] @ items["text"].T
    found = choose(CALIBRATION, scores, items, lambda s: -s.sum(), exact=False)
    assert found.unit == pytest.approx(3.0, rel=1e-5)


def test_equal_scores_are_not_calibrated():
    items = vectors(ITEMS, seed=1)
    start = dataclasses.replace(CALIBRATION, strength=0.0)
    scores = np.zeros((ITEMS["image"], ITEMS["text"]), np.float32)
    found = choose(start, scores, items, lambda s: -s.sum(), exact=False)
    assert found.strength == 0
