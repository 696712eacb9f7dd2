"""Systems of a run behind a server: where words look, pairs, scenes without picture files."""

import numpy as np
import pytest
from tiny_run import finished

import hmgr_jax
from hmgr_jax.errors import UserError
from hmgr_jax.search import following, gallery
from hmgr_jax.search.report import pictures_of_items
from hmgr_jax.search.searcher import Searcher
from hmgr_jax.serve.explaining import explain
from hmgr_jax.serve.service import Job, Part, Service
from hmgr_jax.serve.snapshot import Filters

SENTENCE = "a red circle left of a blue square"
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=["hmgr", "imram"])
def service(request, tmp_path_factory):
    """A service of the test images of a run."""
    out = tmp_path_factory.mktemp(request.param) / "index"
    retriever = hmgr_jax.load(finished(request.param))
    Searcher.build(retriever, gallery.of_split(retriever, "test", "image")).save(out)
    return Service(out)


def _answer(service, *parts, k=4, **filters):
    (found,) = service.answer([Job(service.snapshot, parts, k, Filters(**filters))])
    if isinstance(found, Exception):
        raise found
    return found


def test_a_sentence_finds_what_the_run_scores_highest(service):
    retriever = service.encoder.retriever
    split = retriever.open(("test",)).splits["test"]
    images = retriever.evaluator.encode_split(retriever.variables, split)["image"]
    text = retriever.encode("text", [SENTENCE])
    scores = retriever.score(("image", images), ("text", text))[:, 0]
    hits = _answer(service, Part("text", SENTENCE), k=3)
    best = np.argsort(-scores, kind="stable")[:3]
    assert [hit.item.id for hit in hits] == [split.ids["image"][n] for n in best]
    np.testing.assert_allclose([hit.score for hit in hits], scores[best], atol=1e-5)
    assert _answer(service, Part("text", SENTENCE), folder="test", k=99)[0] == hits[0]
    assert _answer(service, Part("text", SENTENCE), folder="none") == []
    (drawn,) = pictures_of_items(retriever, "test", "image", [hits[0].item])
    assert drawn.shape == (96, 96, 3)


def test_words_have_weights_on_every_region(service):
    hit = _answer(service, Part("text", SENTENCE), k=1)[0]
    found = explain(service.encoder, service.snapshot, hit.item, SENTENCE)
    assert found["score"] == pytest.approx(hit.score, abs=1e-4)
    regions = len(found["boxes"])
    for each in found["maps"]:
        weights = np.array(each["words"])
        assert weights.shape == (len(found["words"]), regions)
        if service.pairs:
            assert (weights >= 0).all()
            assert (weights.sum(axis=1) <= 1 + 1e-5).all()
    if not service.pairs:
        assert sum(found["regions"]) == pytest.approx(1, abs=1e-4)
        assert sum(word["weight"] for word in found["words"]) == pytest.approx(1, abs=1e-4)


def test_pairs_take_one_query_of_the_other_kind(service):
    parts = [Part("text", SENTENCE), Part("id", "test/000003")]
    if not service.pairs:
        service.check(parts, service.snapshot)
        assert len(_answer(service, *parts)) == 4
        return
    with pytest.raises(UserError, match="cannot be combined"):
        service.check(parts, service.snapshot)
    with pytest.raises(UserError, match="both image items"):
        service.check(parts[1:], service.snapshot)


def test_removing_keeps_codes_beside_their_items(service):
    before = _answer(service, Part("text", SENTENCE), k=99)
    retriever = service.encoder.retriever
    following.remove(service.folder, [before[1].item.id], retriever=retriever)
    assert service.renew()
    after = _answer(service, Part("text", SENTENCE), k=99)
    assert [hit.item for hit in after] == [before[0].item, *(hit.item for hit in before[2:])]
    wanted = [before[0].score, *(hit.score for hit in before[2:])]
    np.testing.assert_allclose([hit.score for hit in after], wanted, atol=1e-5)
