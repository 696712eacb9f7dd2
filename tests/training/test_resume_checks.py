"""What a run that resumes says of the checkpoint that it found."""

import warnings
from types import SimpleNamespace

import pytest

from hmgr_jax.training.resume import LOSSES, Saved, warn_of_summed_losses

SUMMED = SimpleNamespace(summed=frozenset({"loss", "triplet"}))


def test_a_checkpoint_of_a_version_that_logged_sums_is_told():
    with pytest.warns(UserWarning, match="up to step 7 .* means per row: loss, triplet"):
        warn_of_summed_losses(Saved(7, {}), SUMMED)


@pytest.mark.parametrize(
    ("meta", "model"),
    [({"losses": LOSSES}, SUMMED), ({}, SimpleNamespace(summed=frozenset()))],
)
def test_rows_that_have_one_meaning_are_not_told(meta, model):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_summed_losses(Saved(7, meta), model)
