"""Models that have collapsed or are not finite are never good, by whatever protocol."""

import dataclasses

import jax
import numpy as np
import pytest
from contract_cases import params_of, small
from tiny_run import results, run

from hmgr_jax.errors import FoundNonFinite
from hmgr_jax.evaluation.evaluate import Evaluator
from hmgr_jax.metrics import coco_protocols
from hmgr_jax.metrics.protocols import PROTOCOLS
from hmgr_jax.models import list_models

SLOW = pytest.mark.slow
WORST = ("medR", "meanR")
"""Less is better there."""


@pytest.fixture
def lists_of_coco(monkeypatch):
    """ECCV Caption's and CxC's lists for 20 pictures: right are a picture's own three captions."""
    own = {
        "i2t": {i: [3 * i, 3 * i + 1, 3 * i + 2] for i in range(20)},
        "t2i": {j: [j // 3] for j in range(60)},
    }
    monkeypatch.setattr(coco_protocols, "ground_truth", lambda name: own)


def _the_right_ones_last(names):
    """The mAP of the worst ranking, not 0: 3 of 60 captions, 1 of 20 pictures are right."""

    def average(hits, items, depth):
        places = range(items - hits + 1, items + 1)
        found = [(k + 1) / place for k, place in enumerate(places) if place <= depth]
        return 100 * sum(found) / hits

    def value(name):
        depth = int(name.partition("@")[2] or 60)
        sides = {"i2t": average(3, 60, depth), "t2i": average(1, 20, depth)}
        return next((v for d, v in sides.items() if d in name), np.mean(list(sides.values())))

    return {name: value(name) for name in names}


@pytest.mark.usefixtures("lists_of_coco")
@pytest.mark.parametrize("name", [name for name in PROTOCOLS if name != "vqa"])
@pytest.mark.parametrize("constant", [0.0, 1.0, -3.5])
def test_a_constant_model_finds_nothing(name, constant):
    """20 pictures in families of 4, with 3 captions each; ties count against the model."""
    each = 1 if name == "msrvtt1ka" else 3  # which is defined on one
    images, captions = np.arange(20), np.repeat(np.arange(20), each)
    protocol = dataclasses.replace(PROTOCOLS[name], items=20)
    scores = np.full((20, 20 * each), constant, np.float32)
    objects = np.repeat(np.eye(20, dtype=np.uint8), 4, axis=1)  # no two pictures share a kind
    about = {
        "families": {"image": images // 4, "text": captions // 4},
        "labels": {"image": objects, "text": objects[captions]},
        "numbers": {"image": images, "text": np.arange(20 * each)},
    }
    found = protocol.evaluate(scores, images, captions, **about)
    worst = {measure: found.pop(measure) for measure in list(found) if measure.endswith(WORST)}
    assert found
    # Folds have only four pictures: rank 4 of 4 is within the first five.
    below = {m: v for m, v in found.items() if not name.startswith("coco1k") or m.endswith("R@1")}
    # The first 20, 50 or 100 of as many or fewer are all of them, whatever their order.
    everything = ("i2t/P@100", "t2i/P@20", "t2i/P@50", "t2i/P@100")
    if name.startswith(("map", "modelnet")):
        assert below == pytest.approx(_the_right_ones_last(found))
        return
    assert {v for m, v in below.items() if m not in everything} == {0.0}
    items = 4 if name == "coco1k" else 20
    assert all(v in (items, each * (items - 1) + 1) for v in worst.values())


def _hmgr_alone(cases):
    """By default the first system stands for all."""
    return [
        case if case.values == ("hmgr",) else pytest.param(*case.values, marks=[*case.marks, SLOW])
        for case in cases
    ]


@pytest.fixture(scope="module", params=_hmgr_alone(params_of(list_models())))
def system(request):
    return small(request.param)


def _evaluate(system, value):
    """Metrics of a system whose parameters all have one value."""
    variables = jax.device_get(system.start().variables(system.tables))
    params = jax.tree.map(lambda x: np.full_like(x, value), variables.params)
    evaluator, splits = system.evaluator, system.data.splits
    given = dataclasses.replace(variables, params=params)
    variables = evaluator.finalized(given, splits.__getitem__)
    asked = system.model.modalities[0] == "question"
    return evaluator.metrics(variables, splits["test"], ("vqa",) if asked else ("plain",))


def test_a_collapsed_system_is_no_better_than_chance(system):
    found = _evaluate(system, 0.0)
    if "vqa/accuracy" in found:  # of answers with the same score the worst one counts
        assert set(found.values()) == {0.0}
        return
    items = len(system.data.splits["test"].sources[system.model.modalities[0]])
    for k in (1, 5):
        recalls = [value for name, value in found.items() if name.endswith(f"/R@{k}")]
        assert len(recalls) == 2 * len(system.pairs)
        assert max(recalls) <= 100 * k / items, found


def test_weights_that_are_not_finite_are_an_error(system):
    with pytest.raises(FoundNonFinite, match="every score must be finite, found nan in row 0"):
        _evaluate(system, np.nan)


@pytest.mark.slow
def test_a_run_whose_scores_are_not_finite_stops_in_a_sentence(tmp_path, monkeypatch, capsys):
    real = Evaluator.scores

    def scores(self, *arguments, **options):
        found = np.array(real(self, *arguments, **options))
        found[2, 1] = np.nan
        return found

    monkeypatch.setattr(Evaluator, "scores", scores)
    assert run(tmp_path / "run") == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert "every score must be finite, found nan in row 2, column 1" in error
    assert not (tmp_path / "run" / "results.json").exists()
    monkeypatch.undo()
    assert run(tmp_path / "run") == 0
    assert results(tmp_path / "run")["metrics"]["rsum"] > 0
