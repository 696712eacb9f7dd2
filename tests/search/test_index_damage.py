"""A damaged, replaced or hostile index is refused in a sentence."""

import contextlib
import hashlib
import json
import os
import shutil

import numpy as np
import pytest
from index_cases import captions, unit

from hmgr_jax.errors import FoundNonFinite, UserError
from hmgr_jax.files import digests
from hmgr_jax.search.index import Index, Item
from hmgr_jax.search.index_faiss import FILE
from hmgr_jax.search.pointer import point
from hmgr_jax.search.rerank import CodeStore

COUNT = 40


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("damage") / "index"
    Index.build(unit(COUNT), captions(COUNT), model="m", engine="hnsw").save(
        folder, command="make the index"
    )
    return folder


@pytest.fixture
def copy(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "index")


def _manifest(folder):
    return json.loads((folder / "index.json").read_text())


def _seal_anew(folder, change=lambda manifest: None):
    """Write a valid manifest of the files as they are, as an index from elsewhere has one."""
    manifest = _manifest(folder)
    for name in manifest["files"]:
        data = (folder / name).read_bytes()
        manifest["files"][name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    change(manifest)
    del manifest["sha256"]
    (folder / "index.json").write_text(json.dumps(digests.seal(manifest)))


def _is_refused(folder):
    """Whether a search is refused with the command that builds the index again."""
    with contextlib.suppress(UserError):
        Index.load(folder).search(unit(2), 3)
        return False
    with pytest.raises(UserError, match="make the index"):
        Index.load(folder)
    return True


def test_every_flipped_bit_of_the_manifest_is_refused_or_changes_nothing(copy):
    path = copy / "index.json"
    whole, before = path.read_bytes(), digests.unseal(_manifest(copy))
    for bit in np.random.default_rng(0).permutation(8 * len(whole))[:300].tolist():
        data = bytearray(whole)
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
        if not _is_refused(copy):
            assert digests.unseal(_manifest(copy)) == before


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.pop("deleted"),
        lambda m: m.update(about=1),
        lambda m: m.update(deleted=["0"]),
        lambda m: m.update(files=[]),
        lambda m: m["files"].update({FILE: 1}),
        lambda m: m["about"].update(model=None),
        lambda m: m["about"].update(workdir=5),
        lambda m: m["about"].update(count=COUNT + 1),
        lambda m: m["engine"].pop("effort"),
        lambda m: m["engine"].update(deleted=[COUNT]),
        lambda m: m["engine"].update(kind="flat"),
        lambda m: m["about"].update(dim=3),
    ],
)
def test_values_that_cannot_be_are_refused(copy, change):
    _seal_anew(copy, change)
    with pytest.raises(UserError, match="make the index"):
        Index.load(copy)


def test_an_index_of_an_older_version_has_no_seal(copy):
    manifest = digests.unseal(_manifest(copy))
    (copy / "index.json").write_text(json.dumps(manifest))
    assert len(Index.load(copy)) == COUNT
    (copy / "index.json").write_text(json.dumps(manifest | {"sha257": "0"}))
    with pytest.raises(UserError, match="damaged"):
        Index.load(copy)


@pytest.mark.parametrize("line", ["5", "[1, 2, 3, 4]", '["a"]', "{", "[" * 20_000, "\xff"])
def test_items_that_are_no_items_are_refused(copy, line):
    items = (copy / "items.jsonl").read_text().splitlines()
    (copy / "items.jsonl").write_bytes("\n".join([line, *items[1:], ""]).encode("latin-1"))
    _seal_anew(copy)
    with pytest.raises(UserError, match=r"items\.jsonl is damaged.*make the index"):
        Index.load(copy)


def test_a_hostile_header_of_the_vectors_is_refused(copy):
    """Sizes in it would otherwise be allocated: gigabytes for a file of kilobytes."""
    whole = (copy / FILE).read_bytes()
    refused = 0
    for seed in range(60):
        draw = np.random.default_rng(seed)
        data = bytearray(whole)
        for _ in range(2):
            data[int(draw.integers(120))] = int(draw.integers(256))
        (copy / FILE).write_bytes(data)
        _seal_anew(copy)
        refused += _is_refused(copy)
    assert refused > 20


def test_names_that_are_no_utf8_come_back(tmp_path):
    name = os.fsdecode(b"photo\xff.jpg")
    items = [*captions(2), Item(name)]
    Index.build(unit(3), items, model="m").save(tmp_path / "index")
    assert Index.load(tmp_path / "index").items([2])[0].id == name


def test_codes_are_those_of_the_index_that_was_opened(tmp_path):
    def write(folder, value):
        folder.mkdir()
        CodeStore.of({"a": np.full((4, 2), value, np.float32)}).write(folder)

    write(tmp_path / "old", 1)
    opened = CodeStore.read(tmp_path / "old", 4)
    shutil.rmtree(tmp_path / "old")
    write(tmp_path / "old", 2)
    assert opened.gather(np.array([3]))["a"].tolist() == [[1.0, 1.0]]
    for damaged in (
        "{",
        "null",
        '{"form": 0, "leaves": "x"}',
        '{"form": {"dict": 3}, "leaves": 1}',
    ):
        (tmp_path / "old" / "codes" / "form.json").write_text(damaged)
        with pytest.raises(UserError, match=r"form\.json is damaged"):
            CodeStore.read(tmp_path / "old", 4)


def test_codes_of_another_number_of_items_are_refused(tmp_path):
    CodeStore.of({"a": np.zeros((4, 2), np.float32)}).write(tmp_path)
    with pytest.raises(UserError, match="holds codes of 4 items, not of 5"):
        CodeStore.read(tmp_path, 5)


def test_an_index_that_was_replaced_meanwhile_is_refused(copy):
    from hmgr_jax.search import index_files

    manifest = index_files.manifest_of(copy)
    index_files.check_unchanged(copy, manifest)
    _seal_anew(copy, lambda m: m["about"].update(step=3))
    with pytest.raises(UserError, match="was replaced while it was read"):
        index_files.check_unchanged(copy, manifest)


def test_a_loop_of_links_is_no_index(saved, tmp_path):
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with pytest.raises(UserError, match="no index"):
        point(tmp_path / "name", tmp_path / "a")
    assert point(tmp_path / "a", saved) is not None  # the link is replaced


def test_a_swap_that_was_killed_is_no_obstacle(saved, tmp_path):
    (tmp_path / f".now.{os.getpid()}.tmp").symlink_to(tmp_path / "gone")
    point(tmp_path / "now", saved)
    assert (tmp_path / "now").resolve() == saved
    assert sorted(path.name for path in tmp_path.iterdir()) == ["now"]


def test_scores_that_are_not_finite_are_an_error():
    from hmgr_jax.evaluation.encoders import check_finite

    scores = np.array([[1.0, 2.0], [np.nan, 0.0]])
    with pytest.raises(FoundNonFinite, match=r"query 1 \(of 1\) holds NaN"):
        check_finite(scores, "The scores of query")
