"""A search with a calibrated run gives its calibrated scores."""

import numpy as np
import pytest
from tiny_run import finished

import hmgr_jax
from hmgr_jax.evaluation.calibration import Calibration
from hmgr_jax.search import gallery
from hmgr_jax.search.searcher import Searcher, model_key

pytest.importorskip("faiss", reason="needs faiss-cpu: pip install 'hmgr-jax[index]'")

K = 5


def retriever_of(system):
    """A run with a strong calibration by items of its test split, and their codes."""
    retriever = hmgr_jax.load(finished(system))
    split = retriever.open(("test",)).splits["test"]
    codes = retriever.evaluator.encode_split(retriever.variables, split)
    plain = retriever.evaluator.calibrated(None)
    stored = {m: plain.vectors(retriever.variables, m, codes[m])[:9] for m in codes}
    retriever.evaluator = plain.calibrated(Calibration(stored, 2.0, 5.0, 1.0))
    if not retriever.model.coarse_exact:
        retriever.evaluator = plain.calibrated(Calibration(stored, 2.0, 5.0, 0.3))
    return retriever, plain, codes


@pytest.mark.parametrize("system", ["vse", pytest.param("imram", marks=pytest.mark.slow)])
@pytest.mark.parametrize("modality", ["image", "text"])
def test_a_search_gives_the_calibrated_order_and_scores(system, modality):
    """A system that scores pairs ranks a shortlist of all items again."""
    retriever, plain, codes = retriever_of(system)
    other = "text" if modality == "image" else "image"
    given = (other, codes[other]), (modality, codes[modality])
    numbers, scores = retriever.search(*given, k=K)
    searcher = Searcher.build(retriever, gallery.of_split(retriever, "test", modality))
    candidates = len(searcher.index) if system == "imram" else None
    found = searcher.search(other, codes[other], K, candidates=candidates)
    np.testing.assert_array_equal(found[0], numbers)
    np.testing.assert_allclose(found[1], scores, rtol=0, atol=1e-5)
    retriever.evaluator = plain
    assert (retriever.search(*given, k=K)[0] != numbers).any()


@pytest.mark.slow
def test_a_shortlist_is_by_calibrated_vectors():
    retriever, _, codes = retriever_of("imram")
    searcher = Searcher.build(retriever, gallery.of_split(retriever, "test", "text"))
    numbers, _ = searcher.search("image", codes["image"], K, candidates=K)
    wide = [
        retriever.evaluator.vectors(retriever.variables, m, codes[m]) for m in ("image", "text")
    ]
    near = np.argsort(-(wide[0] @ wide[1].T), axis=1)[:, :K]
    np.testing.assert_array_equal(np.sort(numbers, axis=1), np.sort(near, axis=1))


def test_a_search_within_one_modality_is_not_calibrated():
    retriever, _, codes = retriever_of("vse")
    searcher = Searcher.build(retriever, gallery.of_split(retriever, "test", "image"))
    numbers, scores = searcher.search("image", codes["image"], K)
    products = codes["image"] @ codes["image"].T
    np.testing.assert_array_equal(numbers, np.argsort(-products, axis=1, kind="stable")[:, :K])
    np.testing.assert_allclose(scores, -np.sort(-products, axis=1)[:, :K], rtol=0, atol=1e-5)


def test_an_index_is_of_one_calibration():
    retriever, plain, _ = retriever_of("vse")
    calibrated = model_key(retriever)
    retriever.evaluator = plain
    assert model_key(retriever) != calibrated
