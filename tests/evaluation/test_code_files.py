"""Codes of a split are replaced together or not at all, and only by those of the same data."""

import json
import os

import numpy as np
import pytest

from hmgr_jax.errors import UserError
from hmgr_jax.evaluation.code_files import FINGERPRINT, check_same_data, write_codes

IDS = {"image": ["a", "b"], "text": ["é", "d", "e"]}


def _write(folder, value, fingerprint="one"):
    vectors = {m: np.full((len(names), 4), value, np.float32) for m, names in IDS.items()}
    write_codes(folder, "test", vectors, IDS, {FINGERPRINT: fingerprint})


def _content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def folder(tmp_path):
    """Codes of the data "one"."""
    _write(tmp_path / "codes", 1)
    return tmp_path / "codes"


def test_codes_lie_beside_their_ids_and_their_record(folder):
    assert sorted(_content(folder)) == [
        "test.json", "test_image.npy", "test_image_ids.txt", "test_text.npy", "test_text_ids.txt"
    ]  # fmt: skip
    assert (folder / "test_text_ids.txt").read_text("utf-8").splitlines() == IDS["text"]
    assert np.load(folder / "test_text.npy").shape == (3, 4)
    assert json.loads((folder / "test.json").read_text()) == {FINGERPRINT: "one"}


def test_codes_of_other_data_are_not_replaced(folder):
    check_same_data(folder, "test", IDS, "one")
    check_same_data(folder, "dev", IDS, "other")
    with pytest.raises(UserError, match=r"codes holds codes of the test of other data.*: move"):
        check_same_data(folder, "test", IDS, "other")
    (folder / "test.json").write_text("[]")
    with pytest.raises(UserError, match=r"test\.json holds a list .*: move"):
        check_same_data(folder, "test", IDS, "one")


def test_codes_without_a_record_are_told_by_their_ids(folder):
    (folder / "test.json").unlink()
    check_same_data(folder, "test", IDS, "other")
    with pytest.raises(UserError, match="of other data"):
        check_same_data(folder, "test", {**IDS, "text": ["x"]}, "other")


@pytest.mark.parametrize("last", range(5))
def test_a_full_disk_leaves_all_codes_as_they_were(folder, monkeypatch, last):
    before, left, real = _content(folder), [last], os.fsync

    def fail(descriptor):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(28, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        _write(folder, 2)
    assert _content(folder) == before


def test_a_crash_between_two_files_leaves_no_record(folder, monkeypatch):
    real = os.replace

    def crash(old, new):
        if str(new).endswith("test_text_ids.txt"):
            raise KeyboardInterrupt
        real(old, new)

    monkeypatch.setattr(os, "replace", crash)
    with pytest.raises(KeyboardInterrupt):
        _write(folder, 2)
    assert not (folder / "test.json").exists()
