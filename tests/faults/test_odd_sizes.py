"""Sizes that nothing divides, and items with next to nothing in them."""

from dataclasses import dataclass, replace

import jax
import numpy as np
import pytest
from contract_cases import BATCH, CAPTIONED, DEVICES, LENGTH, params_of, small
from tiny_run import rows, run

from hmgr_jax.data.split import Source
from hmgr_jax.distributed.parallel import make_mesh
from hmgr_jax.evaluation.evaluate import Evaluator


@dataclass
class Part:
    """The first items of a source."""

    source: Source
    count: int

    @property
    def lengths(self):
        return None if self.source.lengths is None else self.source.lengths[: self.count]

    def __len__(self):
        return self.count

    def gather(self, items, length=None):
        return self.source.gather(items, length)


def _of_pictures(split, count):
    """The first ``count`` pictures of a split with their captions."""
    counts = {m: int((split.groups[m] < split.groups["image"][count]).sum()) for m in split.sources}
    return replace(
        split,
        sources={m: Part(split.sources[m], n) for m, n in counts.items()},
        groups={m: split.groups[m][:n] for m, n in counts.items()},
        families={},
    )


def _oracle(scores, a, b):
    """Recalls in percent by walking down each query's sorted gallery."""
    found = {}
    for name, matrix, own, other in (("i2t", scores, a, b), ("t2i", scores.T, b, a)):
        order = np.argsort(-matrix, axis=1, kind="stable")
        ranks = (other[order] == own[:, None]).argmax(axis=1)
        found |= {f"{name}/R@{k}": 100 * np.mean(ranks < k) for k in (1, 5, 10)}
    return found


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 3, 17])
def test_any_number_of_pictures_on_four_devices(count):
    """A single one too; against codes of one item at a time and a sorting oracle."""
    system = small("vse")
    split = _of_pictures(system.data.splits["train"], count)
    evaluator = Evaluator(system.model, make_mesh(4), batch_size=BATCH, tile=7, buckets=(LENGTH,))
    variables = jax.device_get(system.trained)
    found = evaluator.metrics(variables, split, ("plain",))

    def code(modality, item):
        items = split.sources[modality].gather(np.array([item]), LENGTH)
        return system.encode(modality, np.array([item]), system.wanted(modality, items))

    codes = {
        m: jax.tree.map(lambda *x: np.concatenate(x), *[code(m, i) for i in range(len(source))])
        for m, source in split.sources.items()
    }
    scores = system.score("image", codes["image"], "text", codes["text"])
    expected = _oracle(scores, split.groups["image"], split.groups["text"])
    assert {name: found[name] for name in expected} == pytest.approx(expected)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_fewer_rows_in_a_batch_than_devices(tmp_path):
    """Three rows on eight devices have the losses that they have on one."""
    options = {"train__batch_size": 3, "data__batching": "rows", "train__steps": 3}
    found = {}
    for devices in (1, DEVICES):
        assert run(tmp_path / f"{devices}", parallel__devices=devices, **options) == 0
        found[devices] = rows(tmp_path / f"{devices}")
    assert len(found[1]) == len(found[DEVICES]) == 4
    for one, eight in zip(found[1], found[DEVICES], strict=True):
        assert eight == pytest.approx(one, rel=1e-5)


@pytest.fixture(scope="module", params=params_of(CAPTIONED))
def system(request):
    return small(request.param)


def test_items_with_next_to_nothing_in_them(system):
    """No region, one region, a caption of its two marks alone: finite scores, loss and gradient.

    Of systems that read one vector an item: vectors of zeros.
    """
    batch = system.batch(0)
    image = {k: np.array(v) for k, v in batch["image"].items()}
    text = {k: np.array(v) for k, v in batch["text"].items()}
    if "features" in image:
        image["features"][:2] = text["features"][1:3] = 0
    else:
        if "n_regions" in image:
            image["n_regions"][:2] = 0, 1
        text["lengths"][1:3] = 2
    state = jax.device_get(system.one.end.state)
    after, report = system.one.once(state, batch | {"image": image, "text": text})
    assert (after.bad_total, report["bad_in_a_row"]) == (0, 0)
    assert np.isfinite([float(value) for value in report.values()]).all()
    codes = {}
    for modality, items in (("image", image), ("text", text)):
        few = {name: value[:BATCH] for name, value in items.items()}
        codes[modality] = system.encode(modality, np.arange(BATCH), few)
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(codes[modality]))
    assert np.isfinite(system.score("image", codes["image"], "text", codes["text"])).all()
