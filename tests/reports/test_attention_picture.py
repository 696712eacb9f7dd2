"""Pages of attention: what is coloured, and that nothing lies on something else."""

import dataclasses

import numpy as np
import pytest
from tiny_run import finished

import hmgr_jax
from hmgr_jax.data.generated.worlds import open_worlds
from hmgr_jax.evaluation.retriever import Retriever
from hmgr_jax.reports import attention_picture, explanation
from hmgr_jax.reports.faded_picture import FadedPicture


@pytest.fixture(scope="module")
def retriever():
    return hmgr_jax.load(finished("imram"))


@pytest.fixture(scope="module")
def split():
    return open_worlds(0, 40, 8, 12).splits["test"]


def test_the_colours_are_where_the_region_is():
    picture = np.full((40, 80, 3), (200, 40, 90), np.uint8)
    boxes = np.array([[0, 0, 0.25, 0.5], [0.5, 0.5, 1, 1]])
    faded = FadedPicture(picture, boxes)
    heat = faded.heat(np.array([0.9, 0.1]))
    assert heat.shape == (40, 80)
    assert (heat[:20, :20] == 0.9).all()
    assert (heat[20:, 40:] == 0.1).all()
    assert np.count_nonzero(heat) == 20 * 20 + 20 * 40
    shown = faded.faded(np.array([0.9, 0.1]), full=0.9)
    assert (shown[:20, :20] == picture[:20, :20]).all()
    assert (np.ptp(shown[:20, 20:], axis=2) == 0).all()  # grey
    assert 0 < np.ptp(shown[30, 60]) < np.ptp(picture[30, 60])


def test_regions_that_overlap_show_the_higher_weight():
    faded = FadedPicture(
        np.zeros((10, 10, 3), np.uint8), np.array([[0, 0, 1, 1], [0, 0, 0.5, 0.5]])
    )
    assert faded.heat(np.array([0.2, 0.7]))[2, 2] == 0.7
    assert faded.heat(np.array([0.2, 0.1]))[2, 2] == 0.2


def test_panels_lie_on_the_page_and_apart():
    """A long caption: no panel leaves the page or covers another."""
    rng = np.random.default_rng(0)
    words = ("<start>", *["$x_{1}$", "incomprehensibilities" * 3] * 20, "<end>")
    weights = rng.dirichlet(np.ones(36), (2, 42)).astype(np.float32)
    back = rng.dirichlet(np.ones(42), (2, 36)).astype(np.float32)
    low, high = rng.random((36, 2)) / 2, 0.5 + rng.random((36, 2)) / 2
    found = explanation.PairExplanation(
        words=words,
        unknown=(),
        boxes=np.concatenate([low, high], axis=1),
        score=1.0,
        steps=(0.4, 0.6),
        attention={
            "t2i": explanation.Attention(weights, weights[:, :, 0]),
            "i2t": explanation.Attention(back, back[:, :, 0]),
        },
    )
    figure = attention_picture.draw_step(None, found, 1, " ".join(words), "x.jpg")
    places = [axes.get_position() for axes in figure.axes]
    assert len(places) == 42 + 2 * attention_picture.STRONGEST
    for number, place in enumerate(places):
        assert 0 <= place.x0 < place.x1 <= 1
        assert 0 <= place.y0 < place.y1 <= 1
        for other in places[:number]:
            assert (
                min(place.x1, other.x1) <= max(place.x0, other.x0) + 1e-9
                or min(place.y1, other.y1) <= max(place.y0, other.y0) + 1e-9
            )


@pytest.mark.slow
@pytest.mark.parametrize(("variant", "direction"), [("text", "t2i"), ("image", "i2t")])
def test_a_variant_shows_its_own_direction(retriever, split, variant, direction):
    model = dataclasses.replace(retriever.model, variant=variant, steps=1)
    other = Retriever(
        retriever.workdir, retriever.config, model, retriever.variables, retriever.vocabulary, 1
    )
    item = split.sources["image"].gather(np.array([0]))
    found = explanation.explain_pair(other, item, "a red star")
    assert found.attention.keys() == {direction}
    assert found.score == pytest.approx(found.steps[0], abs=1e-5)
    panels = {"text": 5, "image": 2 * len(found.boxes)}[variant]
    assert len(attention_picture.draw_step(None, found, 0, "a red star", "0").axes) == panels
