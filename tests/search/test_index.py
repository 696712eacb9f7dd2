"""An index: what it finds, what it refuses, and that its folder is whole or not there."""

import json
import shutil

import numpy as np
import pytest
from index_cases import DIM, best, captions, unit

from hmgr_jax.errors import FoundNonFinite, UserError
from hmgr_jax.search import index_faiss, index_numpy
from hmgr_jax.search.index import Index, Item
from hmgr_jax.search.pointer import check_alike

pytest.importorskip("faiss", reason="needs faiss-cpu: pip install 'hmgr-jax[index]'")


COUNT = 1000
KINDS = ("flat", "hnsw", "ivf")


def _index(count=COUNT, engine=None, model="m", seed=0):
    return Index.build(unit(count, seed=seed), captions(count), model=model, engine=engine)


@pytest.mark.parametrize("engine", KINDS)
def test_the_nearest_come_first(engine):
    index, queries = _index(engine=engine), unit(40, seed=1)
    numbers, scores = index.search(queries, k=10)
    assert (numbers.shape, numbers.dtype, scores.dtype) == ((40, 10), np.int64, np.float32)
    truth = best(queries, unit(COUNT), 10)
    kept = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(numbers, truth, strict=True)])
    assert kept >= (1.0 if engine == "flat" else 0.9)
    assert index.recall(queries) == pytest.approx(kept)
    assert (np.diff(scores, axis=1) <= 0).all()
    of_pairs = np.einsum("qe,qke->qk", queries, unit(COUNT)[numbers])
    np.testing.assert_allclose(scores, of_pairs, atol=1e-6)
    assert index.items(numbers[0])[0].caption == f"caption {numbers[0, 0]}"


@pytest.mark.parametrize("engine", ["hnsw", "ivf"])
def test_recall_is_measured_at_building_and_effort_raised_for_it(engine, monkeypatch):
    monkeypatch.setitem(index_faiss.EFFORT, engine, 1)
    monkeypatch.setattr(index_faiss, "LINKS", 4)
    about = _index(engine=engine).about
    assert about["recall@10"] >= 0.95
    assert about["effort"] > 1


@pytest.mark.parametrize("engine", ["hnsw", "ivf"])
def test_any_of_equal_items_is_right_for_recall(engine):
    equal = Index.build(np.repeat(unit(2), 300, axis=0), captions(600), model="m", engine=engine)
    assert equal.about["recall@10"] == 1
    assert equal.recall(unit(5, seed=1)) == 1
    assert _index(1, engine=engine).about["recall@10"] == 1


def test_worse_items_are_wrong_for_recall():
    index, queries = _index(engine="flat"), unit(5, seed=1)
    real = index.engine.search

    def half(asked, k, **more):
        numbers, scores = real(asked, 2 * k, **more)
        return numbers[:, 1::2], scores[:, 1::2]  # every second one

    index.engine.search = half
    assert index.recall(queries) == 0.5


def test_many_vectors_go_into_cells(monkeypatch):
    monkeypatch.setattr("hmgr_jax.search.engines.FLAT_UP_TO", 100)
    assert _index(100).about["engine"] == "flat"
    assert _index(101).about["engine"] == "ivf"


@pytest.mark.parametrize("engine", KINDS)
def test_an_owner_s_items_are_left_out(engine):
    index, queries = _index(engine=engine), unit(COUNT)[:50]
    owners = [f"p{n // 5}" for n in range(50)]
    owners[3], owners[4] = None, "nobody"
    numbers, _ = index.search(queries, k=10, without=owners)
    for query, found in enumerate(numbers):
        own = set(range(query // 5 * 5, query // 5 * 5 + 5))
        assert (query in found) if query in (3, 4) else not own & set(found.tolist())
    if engine == "flat":
        scores = queries @ unit(COUNT).T
        for query in set(range(50)) - {3, 4}:
            scores[query, query // 5 * 5 : query // 5 * 5 + 5] = -9
        np.testing.assert_array_equal(numbers, np.argsort(-scores, axis=1)[:, :10])


def test_an_owner_of_nearly_everything_is_left_out():
    items = [Item(f"c{n}", owner="all" if n % 100 else "few") for n in range(COUNT)]
    for engine in KINDS:
        index = Index.build(unit(COUNT), items, model="m", engine=engine)
        numbers, _ = index.search(unit(3, seed=2), k=COUNT // 100, without=["all"] * 3)
        assert (np.sort(numbers, axis=1) == np.arange(0, COUNT, 100)).all()


def test_equal_scores_stand_in_the_order_of_numbers():
    vectors = np.repeat(unit(4), 300, axis=0)[np.random.default_rng(1).permutation(1200)]
    queries = unit(6, seed=3)
    index = Index.build(vectors, captions(1200), model="m")
    for k in (1, 7, 300, 301, 1200):
        np.testing.assert_array_equal(index.search(queries, k)[0], best(queries, vectors, k))
    zeros = Index.build(np.zeros((500, DIM), np.float32), captions(500), model="m")
    assert (zeros.search(queries, 5)[0] == np.arange(5)).all()


@pytest.mark.parametrize("engine", KINDS)
def test_added_and_deleted(engine, tmp_path):
    index, more = _index(engine=engine), unit(5, seed=9)
    index.add(more, captions(5, first=COUNT))
    assert index.search(more, 1)[0].ravel().tolist() == list(range(COUNT, COUNT + 5))
    assert index.delete(["c3", f"c{COUNT + 1}"]) == 2
    assert len(index) == COUNT + 3
    index.save(tmp_path / "index")
    for found in (index, Index.load(tmp_path / "index")):
        assert len(found) == COUNT + 3
        numbers, _ = found.search(np.concatenate([unit(COUNT)[3:4], more[1:2]]), COUNT // 2)
        assert not {3, COUNT + 1} & set(numbers.ravel().tolist())
        assert set(found.numbers()) == set(range(COUNT + 5)) - {3, COUNT + 1}
    index.add(more[1:2], [Item("again")])
    assert index.search(more[1:2], 1)[0] == COUNT + 5  # numbers are not used twice
    with pytest.raises(UserError, match="holds no 'c3'"):
        index.delete(["c4", "c3"])
    assert len(index) == COUNT + 4


@pytest.mark.parametrize("engine", KINDS)
def test_saved_and_loaded(engine, tmp_path):
    index, queries = _index(engine=engine), unit(9, seed=4)
    index.save(tmp_path / "index", command="make index")
    loaded = Index.load(tmp_path / "index", model="m")
    for before, after in zip(index.search(queries, 20), loaded.search(queries, 20), strict=True):
        np.testing.assert_array_equal(before, after)
    assert loaded.items([7]) == index.items([7])
    assert loaded.about == {**index.about, "count": COUNT}
    assert not (tmp_path / "index.partial").exists()


def test_rejects_swapping_to_another_model_or_size():
    with pytest.raises(UserError, match="has model other, the one in use m"):
        check_alike(_index(50).about, _index(50, model="other").about)
    other = Index.build(unit(50, dim=8), captions(50), model="m")
    with pytest.raises(UserError, match="has dimension 8, the one in use 16"):
        check_alike(_index(50).about, other.about)


def test_numpy_and_faiss_find_the_same(monkeypatch):
    queries, gone = unit(9, seed=1), [f"c{n}" for n in range(0, COUNT, 7)]
    found = []
    for below in (COUNT + 1, COUNT):
        monkeypatch.setattr(index_numpy, "BELOW", below)
        index = _index(engine="flat")
        index.delete(gone)
        index.add(unit(5, seed=3), captions(5, first=COUNT))
        found.append(index.search(queries, 20, ["p1", *[None] * 8]))
    np.testing.assert_array_equal(found[0][0], found[1][0])
    np.testing.assert_allclose(found[0][1], found[1][1], atol=1e-6)
    assert not {*found[0][0].reshape(-1).tolist()} & {*range(0, COUNT, 7)}


def test_a_small_index_needs_no_faiss_and_a_large_one_names_the_extra(monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "faiss", None)
    monkeypatch.setattr(index_numpy, "BELOW", 10)
    _index(9).save(tmp_path / "index")
    assert Index.load(tmp_path / "index").search(unit(1), 3)[0][0, 0] == 0
    with pytest.raises(UserError, match=r"pip install 'hmgr-jax\[index\]'"):
        _index(10)


def test_an_added_item_replaces_that_of_its_id():
    index = _index(20)
    index.add(unit(2, seed=4), [Item("c3", caption="new"), Item("other")])
    assert len(index) == 21
    (number,) = index.search(unit(1, seed=4), 1)[0][0]
    assert index.items([number])[0] == Item("c3", caption="new")
    for items, why in (
        ([Item("")], "Item 0 has an empty id"),
        ([Item("x"), Item("x")], "Two items have the id 'x'"),
    ):
        with pytest.raises(UserError, match=why):
            index.add(unit(len(items)), items)
    assert len(index) == 21


def test_rejects_bad_vectors_and_engines():
    for vectors in (unit(3)[:0], unit(3)[0], unit(3)[:, :0]):
        with pytest.raises(UserError, match="at least one, dimension"):
            Index.build(vectors, captions(len(vectors)), model="m")
    with pytest.raises(UserError, match="3 vectors need as many items, got 2"):
        Index.build(unit(3), captions(2), model="m")
    bad = unit(3)
    bad[2, 1] = np.nan
    with pytest.raises(FoundNonFinite, match="row 2"):
        Index.build(bad, captions(3), model="m")
    with pytest.raises(UserError, match="no engine 'annoy': choose from flat, hnsw, ivf, milvus"):
        _index(3, engine="annoy")
    with pytest.raises(UserError, match="uri is for engine milvus, but the engine is flat"):
        Index.build(unit(3), captions(3), model="m", engine="flat", uri="http://localhost:19530")


def test_rejects_bad_queries_and_additions():
    index = _index(20)
    with pytest.raises(UserError, match="Queries have dimension 8, but the index has 16"):
        index.search(unit(2, dim=8), 3)
    with pytest.raises(UserError, match="Vectors have dimension 8, but the index has 16"):
        index.add(unit(2, dim=8), captions(2))
    with pytest.raises(FoundNonFinite, match="Queries: row 1"):
        index.search(np.array([np.zeros(DIM), np.full(DIM, np.inf)]), 3)
    with pytest.raises(UserError, match="at least one"):
        index.search(unit(2)[:0], 3)
    for k in (0, 21):
        with pytest.raises(UserError, match=f"from 1 to 20, the size of the index; got {k}"):
            index.search(unit(2), k)
    with pytest.raises(UserError, match=r"from 1 to 15, .* without the items of one owner; got 16"):
        index.search(unit(2), 16, without=["p1", None])
    for without in (["p1"], "p1"):
        with pytest.raises(UserError, match="for each of 2 queries"):
            index.search(unit(2), 3, without=without)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "index"
    _index(50).save(folder, command="make the index")
    return folder


@pytest.fixture
def copy(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "index")


def test_another_model_s_is_refused(saved):
    with pytest.raises(UserError, match=r"model m, but this run is model n, .*make the index"):
        Index.load(saved, model="n")


def test_an_existing_index_is_not_overwritten(saved):
    before = (saved / "index.json").read_bytes()
    with pytest.raises(UserError, match="exists: give another --out"):
        _index(10).save(saved)
    assert (saved / "index.json").read_bytes() == before


def test_no_index(tmp_path):
    with pytest.raises(UserError, match=r"no index .*none: build one with python -m hmgr_jax\.sea"):
        Index.load(tmp_path / "none")


@pytest.mark.parametrize("name", ["vectors.npy", "items.jsonl"])
def test_truncated_missing_and_altered_files(copy, name):
    whole = (copy / name).read_bytes()
    for content, why in ((whole[:-9], "bytes instead of"), (whole[:-1] + b"?", "sha256")):
        (copy / name).write_bytes(content)
        with pytest.raises(UserError, match=f"damaged: .*{name} .*{why}.*again: make the index"):
            Index.load(copy)
    (copy / name).unlink()
    with pytest.raises(UserError, match=f"{name} is missing.*again: make the index"):
        Index.load(copy)


def test_a_folder_that_was_not_finished(tmp_path):
    def stopped(folder):
        raise KeyboardInterrupt

    folder = tmp_path / "index"
    with pytest.raises(KeyboardInterrupt):
        _index(10).save(folder, command="make the index", more=stopped)
    assert not folder.exists()
    with pytest.raises(UserError, match=r"is incomplete.* again: make the index"):
        Index.load(folder)
    _index(10).save(folder)
    assert len(Index.load(folder)) == 10
    (folder / "index.json").unlink()
    with pytest.raises(UserError, match="no complete index"):
        Index.load(folder)


def test_a_manifest_of_another_format(copy):
    manifest = json.loads((copy / "index.json").read_text())
    for content, why in ((json.dumps({**manifest, "format": 9}), "format 9"), ("{", "no complete")):
        (copy / "index.json").write_text(content)
        with pytest.raises(UserError, match=f"{why}.*make the index"):
            Index.load(copy)


def test_equal_vectors_that_cut_a_graph_off_are_found_all_the_same():
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((600, 8)).astype(np.float32)
    vectors[300:] = vectors[300]  # such as a caption that stands there 300 times
    items = [Item(str(n), owner="own" if n < 5 else "") for n in range(len(vectors))]
    index = Index.build(vectors, items, model="m", engine="hnsw")
    queries = rng.standard_normal((3, 8)).astype(np.float32)
    numbers, scores = index.search(queries, k=590, without=["own", None, None])
    assert numbers.min() >= 0
    assert np.isfinite(scores).all()
    assert not set(numbers[0]) & set(range(5))
    np.testing.assert_allclose(
        scores, np.einsum("qkd,qd->qk", vectors[numbers], queries), atol=1e-4
    )
