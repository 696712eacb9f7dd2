"""Three modalities are evaluated in all pairs, and none overwrites another."""

import itertools

import jax
import numpy as np
import pytest
from contract_cases import small

from hmgr_jax.reports import precision_recall

pytestmark = pytest.mark.slow

PROTOCOLS = ("modelnet", "modelnet_others", "plain")


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """(metrics, the codes' own mAP by direction, where the picture is) of fresh weights."""
    system, folder = small("center3d"), tmp_path_factory.mktemp("curves")
    variables = jax.device_get(system.start().variables(None))
    evaluator, split = system.evaluator, system.data.splits["test"]
    drawn = []
    more = precision_recall.reporter(folder, split, PROTOCOLS, title="t")

    def seen(scored):
        drawn.append(scored.modalities)
        return more(scored)

    metrics = evaluator.metrics(variables, split, PROTOCOLS, more=seen)
    codes = evaluator.encode_split(evaluator.to_local_devices(variables), split)
    return metrics, codes, split.labels["mesh"], drawn, folder


def average_precision(scores, right):
    """Of one query; there are no ties among random codes."""
    hits = right[np.argsort(-scores)]
    places = np.flatnonzero(hits)
    return (np.cumsum(hits)[places] / (places + 1)).mean()


def test_map_of_all_nine_pairs(evaluated):
    metrics, codes, labels, *_ = evaluated
    same = labels @ labels.T > 0
    for a, b in itertools.product(codes, repeat=2):
        scores = codes[a] @ codes[b].T
        expected = [average_precision(s, r) for s, r in zip(scores, same, strict=True)]
        assert metrics[f"{a}2{b}/mAP"] == pytest.approx(100 * np.mean(expected), abs=1e-3)
    for m in codes:
        scores = codes[m] @ codes[m].T
        others = [np.flatnonzero(np.arange(len(scores)) != k) for k in range(len(scores))]
        expected = [average_precision(scores[k, o], same[k, o]) for k, o in enumerate(others)]
        found = metrics[f"modelnet_others/{m}2{m}/mAP"]
        assert found == pytest.approx(100 * np.mean(expected), abs=1e-3)


def test_metrics_without_a_direction_are_means_over_all_pairs(evaluated):
    metrics, codes, *_ = evaluated
    crossed = [f"{a}2{b}" for a, b in itertools.permutations(codes, 2)]
    assert metrics["mAP"] == pytest.approx(np.mean([metrics[f"{d}/mAP"] for d in crossed]))
    recalls = [metrics[f"{d}/R@{k}"] for d in crossed for k in (1, 5, 10)]
    assert metrics["rsum"] == pytest.approx(sum(recalls))


def test_the_curves_of_all_pairs_are_in_one_picture(evaluated):
    *_, drawn, folder = evaluated
    assert drawn == [("image", "point"), ("image", "mesh"), ("point", "mesh")]
    assert [path.name for path in folder.iterdir()] == ["precision_recall.png"]
