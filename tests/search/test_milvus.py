"""An index in Milvus Lite finds what FAISS finds, and ends with the process."""

import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from index_cases import DIM, captions, unit

from hmgr_jax.errors import UserError
from hmgr_jax.search.index import Index, Item

WHY = "needs Milvus: pip install 'hmgr-jax[milvus]'"
pytest.importorskip("pymilvus", reason=WHY)
pytest.importorskip("milvus_lite", reason=WHY)

COUNT = 400


@pytest.fixture(scope="module")
def index():
    found = Index.build(unit(COUNT), captions(COUNT), model="m", engine="milvus")
    yield found
    found.close()


@pytest.fixture(scope="module")
def saved(index, tmp_path_factory):
    folder = tmp_path_factory.mktemp("milvus") / "index"
    index.save(folder, command="make the index")
    return folder


def test_it_finds_what_faiss_finds(index):
    flat = Index.build(unit(COUNT), captions(COUNT), model="m")
    queries = unit(20, seed=1)
    for options in ({}, {"without": [f"p{n}" for n in range(20)]}):
        numbers, scores = index.search(queries, 12, **options)
        wanted, of_wanted = flat.search(queries, 12, **options)
        np.testing.assert_array_equal(numbers, wanted)
        np.testing.assert_allclose(scores, of_wanted, atol=1e-6)
    assert index.recall(queries) == 1
    chosen = np.array([7, 3, 399])
    np.testing.assert_array_equal(index.engine.vectors(chosen), unit(COUNT)[chosen])


def test_a_saved_one_stays_as_it_is(index, saved):
    before = {path: path.read_bytes() for path in saved.rglob("*") if path.is_file()}
    queries = unit(5, seed=2)
    loaded = Index.load(saved, model="m")
    try:
        np.testing.assert_array_equal(loaded.search(queries, 7)[0], index.search(queries, 7)[0])
        loaded.delete(["c4"])
        loaded.add(unit(1, seed=8), [Item("new", caption="a new one")])
        assert len(loaded) == COUNT
        found = loaded.search(np.concatenate([unit(COUNT)[4:5], unit(1, seed=8)]), 3)[0]
        assert 4 not in found
        assert loaded.items(found[1])[0].caption == "a new one"
    finally:
        loaded.close()
    assert before == {path: path.read_bytes() for path in saved.rglob("*") if path.is_file()}
    assert 4 in index.search(unit(COUNT)[4:5], 3)[0]


def test_a_truncated_one_is_refused(saved, tmp_path):
    copy = shutil.copytree(saved, tmp_path / "index")
    largest = max((p for p in (copy / "milvus.db").rglob("*") if p.is_file()), key=_size)
    largest.write_bytes(largest.read_bytes()[:-5])
    with pytest.raises(UserError, match=r"damaged: .*bytes instead of.*again: make the index"):
        Index.load(copy)


def test_rejects_an_address_without_a_server(monkeypatch):
    monkeypatch.setattr("hmgr_jax.search.index_milvus.SECONDS", 0.5)
    with pytest.raises(UserError, match=r"Milvus at http://127\.0\.0\.1:9 failed.*start it"):
        Index.build(unit(3), captions(3), model="m", engine="milvus", uri="http://127.0.0.1:9")


def test_more_than_milvus_gives(index):
    with pytest.raises(UserError, match="at most 16384"):
        index.engine.search(unit(1), 20_000)


def test_nothing_is_left_when_it_is_closed():
    before = {thread.ident for thread in threading.enumerate()}
    index = Index.build(unit(9), captions(9), model="m", engine="milvus")
    folder = Path(index.engine._where)
    assert folder.exists()
    index.close()
    assert not folder.parent.exists()
    more = [t for t in threading.enumerate() if t.ident not in before and "milvus" in t.name]
    for thread in more:
        thread.join(5)
    assert not any(thread.is_alive() for thread in more)


def test_a_process_that_forgets_to_close_it_ends():
    code = f"""
import numpy as np
from hmgr_jax.search.index import Index, Item
items = [Item(str(n)) for n in range({DIM})]
index = Index.build(np.eye({DIM}, dtype="f4"), items, model="m", engine="milvus")
print(index.engine._where)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True
    )
    assert not Path(done.stdout.strip()).parent.exists()
    assert "Traceback" not in done.stderr


def test_without_pymilvus_a_sentence_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "pymilvus", None)
    with pytest.raises(UserError, match=r"pip install 'hmgr-jax\[milvus\]'"):
        Index.build(unit(3), captions(3), model="m", engine="milvus")


def _size(path):
    return path.stat().st_size
