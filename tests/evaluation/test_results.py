"""The results of a finished run are shown only as they were written."""

import json
import os
import shutil

import numpy as np
import pytest
from tiny_run import config, finished

from hmgr_jax.errors import UserError
from hmgr_jax.evaluation import results
from hmgr_jax.files import digests
from hmgr_jax.files.workdir import check_writable
from hmgr_jax.training.tables import FILE, keep_tables, read_tables


@pytest.fixture
def workdir(tmp_path):
    return shutil.copytree(finished(), tmp_path / "run")


def _change(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_results_are_those_that_were_written(workdir):
    found = results.finished(workdir, config())
    assert found == json.loads((workdir / "results.json").read_text())
    assert results.finished(workdir, config(train__lr=0.5)) is None


def test_a_changed_digit_is_refused(workdir):
    _change(workdir / "results.json", '"step": ', '"step": 1')
    with pytest.raises(
        UserError, match=r"results\.json has .* changed .*: remove it, and the same"
    ):
        results.finished(workdir, config())


@pytest.mark.parametrize("text", ["null", "{", "[" * 100_000, ""])
def test_a_damaged_configuration_is_named(workdir, text):
    (workdir / "config.json").write_text(text)
    for known in (True, False):  # as of an older version, without digests
        if not known:
            digests.write(workdir, workdir / digests.RUN, ["results.json"])
        with pytest.raises(UserError, match=r"run/config\.json"):
            results.finished(workdir, config())


def test_a_lost_configuration_is_named(workdir):
    (workdir / "config.json").unlink()
    with pytest.raises(UserError, match=r"run/config\.json cannot be read"):
        results.finished(workdir, config())


@pytest.mark.parametrize("text", ["null", "{", '{"model": "vse"}'])
def test_another_file_of_that_name_is_refused(workdir, text):
    (workdir / "results.json").write_text(text)
    with pytest.raises(UserError, match=r"run/results\.json"):
        results.finished(workdir, config())


def test_lost_rows_are_missed(workdir):
    path = workdir / "metrics.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[2:]))
    with pytest.warns(RuntimeWarning, match=r"metrics\.jsonl was changed or has lost rows"):
        assert results.finished(workdir, config())


@pytest.mark.parametrize("damage", [os.remove, lambda path: path.write_text("{}")])
def test_without_digests_the_results_are_shown_with_a_warning(workdir, damage):
    damage(workdir / digests.RUN)
    with pytest.warns(RuntimeWarning, match=r"results\.json is not verified: .*run\.json"):
        assert results.finished(workdir, config())


def test_killed_before_the_digests_were_written_the_results_are_made_again(workdir):
    names = digests.read(workdir / digests.RUN)["files"].keys() - {"results.json"}
    digests.write(workdir, workdir / digests.RUN, names)
    assert results.finished(workdir, config()) is None


@pytest.mark.parametrize("change", ["empty", "values", "lacking"])
def test_changed_constants_of_a_model_are_refused(tmp_path, change):
    tables = {"graph": np.ones((3, 4), np.float32), "ids": np.arange(3)}
    keep_tables(tmp_path, tables)
    digests.write_run(tmp_path)
    path = tmp_path / FILE
    if change == "empty":
        path.write_bytes(b"")
    else:
        kept = {"graph": np.full((3, 4), np.nan, np.float32), "ids": np.arange(3)}
        np.savez_compressed(path, **(kept if change == "values" else {"ids": kept["ids"]}))
    with pytest.raises(UserError, match=r"changed .*: delete it to compute it again"):
        read_tables(tmp_path)
    (tmp_path / digests.RUN).unlink()
    if change == "empty":
        with pytest.raises(UserError, match="cannot be read"):
            read_tables(tmp_path)


def test_a_folder_that_cannot_be_written_is_refused_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(UserError, match="cannot be written"):
        check_writable(tmp_path)
