"""``--mode=explain`` of ReSG: node correspondences, and the strongest relations."""

import numpy as np
import pytest
from explain_cases import explain, numbers
from PIL import Image
from tiny_run import finished

import hmgr_jax
from hmgr_jax.data.generated.worlds import open_worlds
from hmgr_jax.reports.explanation import PairExplanation
from hmgr_jax.reports.grid import DPI
from hmgr_jax.reports.relation_picture import SHOWN, draw_relations


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    out = tmp_path_factory.mktemp("explained") / "pair"
    assert explain(finished("resg"), "test/000005", "test/000005#2", out) == 0
    return out


@pytest.mark.slow
def test_writes_pages_and_numbers(made):
    names = ["attention.json", "relations.png", "step1.png"]
    assert sorted(path.name for path in made.iterdir()) == names
    with Image.open(made / "relations.png") as page:
        assert page.width == 13 * DPI
        assert len(page.convert("L").getcolors()) > 50


@pytest.mark.slow
def test_relations_join_nodes_that_are_there(made):
    found = numbers(made)
    sizes = {"image": len(found["boxes"]), "text": len(found["words"])}
    for modality, edges in found["relations"].items():
        assert {edge["layer"] for edge in edges} == {1, 2}
        for edge in edges:
            assert 0 <= edge["from"] < sizes[modality]
            assert 0 <= edge["to"] < sizes[modality]
            assert edge["from"] != edge["to"]
        first = [edge["weight"] for edge in edges if edge["layer"] == 1]
        assert first == sorted(first, reverse=True)
    words = found["relations"]["text"]
    assert all(abs(edge["from"] - edge["to"]) <= 3 for edge in words)  # the window


@pytest.mark.slow
def test_the_score_is_that_of_the_retriever(made):
    retriever = hmgr_jax.load(finished("resg"))
    split = open_worlds(0, 40, 8, 12).splits["test"]
    image = retriever.encode("image", split.sources["image"].gather(np.array([5])))
    text = retriever.encode("text", [numbers(made)["sentence"]])
    score = retriever.score(("image", image), ("text", text))[0, 0]
    found = numbers(made)
    assert abs(found["score"] - score) < 1e-5
    step = found["steps"][0]
    matched = sum(np.mean(step[direction]["cosines"]) for direction in ("t2i", "i2t"))
    together = float(np.sum(image["vector"] * text["vector"]))
    assert abs(matched + together - found["score"]) < 1e-5


def test_the_strongest_edges_are_listed_and_drawn():
    weights = np.array([[[0.5, 0.3, 0.2], [0.1, 0.2, 0.7], [0.0, 0.0, 1.0]]])
    found = PairExplanation(
        ("<start>", "a", "<end>"), (), np.tile([0, 0, 1, 1], (3, 1)), 1.0, (1.0,), {},
        {"image": weights, "text": weights},
    )  # fmt: skip
    edges = [(e.to, e.source) for e in found.strongest("image", 0)]
    assert edges == [(1, 2), (0, 1), (0, 2), (1, 0)]  # neither loops nor what is not there
    figure = draw_relations(None, found, "a", "0")
    arrows = [len(axes.patches) for axes in figure.axes]
    assert max(arrows) >= 4
    assert SHOWN["image"] >= 4
