"""What a manifest lists it stands for; what it does not list counts by itself."""

import hashlib
import json

import pytest

from hmgr_jax.data import fingerprint as fingerprints
from hmgr_jax.data.fingerprint import fingerprint
from hmgr_jax.files.manifest import listed

SHA = hashlib.sha256(b"a").hexdigest()


@pytest.fixture
def root(tmp_path):
    (tmp_path / "a.npy").write_bytes(b"a")
    (tmp_path / "manifest.json").write_text(json.dumps({"files": {"a.npy": {"bytes": 1}}}))
    return tmp_path


def test_the_manifest_stands_for_what_it_lists(root):
    plain = hashlib.sha256((root / "manifest.json").read_bytes()).hexdigest()
    assert fingerprint([root / "a.npy"], root) == fingerprint([], root) == plain


def test_unlisted_files_count_by_name_and_contents(root):
    more, plain = root / "dev_caps.conllu", fingerprint([], root)
    found = {plain}
    for name, text in ((more, "one"), (more, "two"), (root / "test_caps.conllu", "two")):
        name.write_text(text)
        found.add(fingerprint([root / "a.npy", name], root))
    assert len(found) == 4
    assert fingerprint([more, root / "a.npy"], str(root)) == fingerprint([more], root)


def test_files_outside_the_folder_do_not_count(root, tmp_path_factory):
    path = tmp_path_factory.mktemp("index") / "train_caps.txt"
    path.write_text("a dog")
    assert fingerprint([path], root) == fingerprint([], root)


@pytest.mark.parametrize("text", ["{}", "[]", "no JSON", '{"files": 3}'])
def test_a_manifest_of_another_program_stands_for_all(root, text):
    (root / "manifest.json").write_text(text)
    plain = hashlib.sha256(text.encode()).hexdigest()
    assert fingerprint([root / "a.npy"], root) == plain


@pytest.mark.parametrize("known", [{}, {"sha256": SHA}, {"sampled": SHA}])
def test_a_listed_file_that_was_replaced_counts_by_itself(root, known):
    entry = {"bytes": 1, **known}
    (root / "manifest.json").write_text(json.dumps({"files": {"a.npy": entry}}))
    plain = fingerprint([root / "a.npy"], root)
    assert plain == fingerprint([], root)
    (root / "a.npy").write_bytes(b"longer")
    assert fingerprint([root / "a.npy"], root) != plain
    if known:
        (root / "a.npy").write_bytes(b"b")
        assert fingerprint([root / "a.npy"], root) != plain


def test_a_large_file_counts_by_the_blocks_in_the_manifest(tmp_path):
    path, data = tmp_path / "a.npy", bytearray(1 << 20)
    path.write_bytes(data)
    files = listed(tmp_path, ["a.npy"])
    (tmp_path / "manifest.json").write_text(json.dumps({"files": files}))
    plain = fingerprint([path], tmp_path)
    data[-1] = 1
    path.write_bytes(data)
    assert fingerprint([path], tmp_path) != plain


def test_of_very_many_files_each_is_compared_by_size(tmp_path, monkeypatch):
    monkeypatch.setattr(fingerprints, "COMPARED", 2)
    paths = [tmp_path / "below" / f"{k}.npy" for k in range(5)]
    paths[0].parent.mkdir()
    for path in paths:
        path.write_bytes(b"a")
    files = listed(tmp_path, [path.relative_to(tmp_path).as_posix() for path in paths])
    (tmp_path / "manifest.json").write_text(json.dumps({"files": files}))
    plain = fingerprint(paths, tmp_path)
    for path, text, equal in ((paths[1], b"b", True), (paths[3], b"b", False), (paths[1], b"", 0)):
        path.write_bytes(text)
        assert (fingerprint(paths, tmp_path) == plain) == equal
        path.write_bytes(b"a")
