"""Parts of a model from another run: its dev-best step, the same shapes, the same words."""

import jax
import numpy as np
import pytest
from tiny_run import config, finished, results

from hmgr_jax.data.text.vocabulary import MARKS, Vocabulary
from hmgr_jax.errors import UserError
from hmgr_jax.evaluation.retriever import Retriever
from hmgr_jax.training.experiment import build
from hmgr_jax.training.warm_start import warm_start


@pytest.fixture(scope="module")
def trained():
    return jax.device_get(Retriever.load(finished()).variables.params)


def _params(**options):
    return jax.device_get(build(config(**options)).first_state().params)


def _equal(a, b):
    return all(map(np.array_equal, jax.tree.leaves(a), jax.tree.leaves(b)))


def test_a_part_comes_from_the_best_step(trained):
    drawn = _params()
    found = _params(init__image=finished())
    assert jax.tree.structure(found) == jax.tree.structure(drawn)
    assert _equal(found["image"], trained["image"])
    assert not _equal(found["image"], drawn["image"])
    assert _equal(found["text"], drawn["text"])
    # The fixture's best step is not its newest, so this would notice the wrong one.
    assert results(finished())["step"] != 12


@pytest.mark.slow
def test_parts_within_parts(trained):
    drawn, found = _params(), _params(init__words=finished())
    assert np.array_equal(found["text"]["words"]["vectors"], trained["text"]["words"]["vectors"])
    assert _equal(found["text"]["words"]["gru"], drawn["text"]["words"]["gru"])


@pytest.mark.slow
def test_all_parts_and_another_model(trained):
    """Another system takes over the parts that it shares; an empty folder leaves them drawn."""
    options = {"model__visual_graph": False, "model__text_graph": False, "model": "hmgr"}
    found = _params(**options, init__image=finished(), init__text="")
    assert _equal(found["image"], trained["image"])
    assert _equal(found["text"], _params(**options)["text"])
    assert _equal(_params(**options, init__text=finished())["text"], trained["text"])


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"init__image": "/none"}, "init.image names /none, which holds no checkpoints: give"),
        ({"init__image": finished, "model__dim": 24}, r"init.image cannot start from .*float32\["),
    ],
)
def test_rejects_weights_that_do_not_fit(options, sentence):
    options = {k: v() if callable(v) else v for k, v in options.items()}
    with pytest.raises(UserError, match=sentence):
        _params(**options)


def test_a_part_without_parameters(trained):
    with pytest.raises(UserError, match=r"init\.none is set, but the part has no parameters"):
        warm_start(trained, {"none": ("nowhere",)}, {"none": str(finished())}, Vocabulary(MARKS))


def test_word_vectors_of_other_words(monkeypatch):
    """As many words in another order: shapes agree, meanings do not."""
    experiment = build(config(init__text=finished()))
    words = list(experiment.data.vocabulary.words)
    words[5], words[6] = words[6], words[5]
    other = type(experiment.data.vocabulary)(tuple(words))
    object.__setattr__(experiment.data, "vocabulary", other)
    with pytest.raises(UserError, match="was trained with another vocabulary"):
        experiment.first_state()
    experiment.config.init.text = ""
    experiment.config.init.image = str(finished())
    experiment.first_state()  # pictures know no words
