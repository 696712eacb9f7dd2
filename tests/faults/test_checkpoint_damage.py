"""Damaged checkpoints are found, named, set aside and never deleted."""

import json
import os
import re
import shutil

import pytest
from checkpoint_cases import META, assert_same, fill, flip, largest_file, make_state, truncate

from hmgr_jax.errors import UserError
from hmgr_jax.files import digests


@pytest.mark.parametrize("harm", [flip, truncate, os.remove])
def test_a_damaged_newest_step_is_set_aside(opened, folder, harm):
    fill(opened(), [1.0, 2.0, 3.0])
    file = largest_file(folder / "3")
    harm(file)
    checkpoints = opened()
    with pytest.warns(RuntimeWarning, match=re.escape(f"{file}") + ".* as 3.damaged"):
        state, meta, step = checkpoints.restore(make_state(0))
    assert_same(state, make_state(2))
    assert (meta["at"], step, checkpoints.steps(), checkpoints.best_step()) == (2, 2, [2], 2)
    assert (folder / "3.damaged" / "state").is_dir()
    # Training goes on over the same steps, in this process and in another.
    checkpoints.save(3, make_state(33), META, 3.0)
    assert_same(checkpoints.restore(make_state(0))[0], make_state(33))
    flip(largest_file(folder / "3"))
    with pytest.warns(RuntimeWarning, match=r"as 3.damaged-2"):
        assert opened().newest() == 2
    assert opened().steps() == [2]


@pytest.mark.parametrize("name", ["meta/metadata", "metrics/metrics", "state/_METADATA"])
@pytest.mark.parametrize("harm", [flip, truncate, os.remove])
def test_damage_to_the_small_files_is_found_too(opened, folder, name, harm):
    fill(opened(), [1.0, 2.0])
    harm(folder / "2" / name)
    checkpoints = opened()
    with pytest.warns(RuntimeWarning, match=name):
        state, _, step = checkpoints.restore(make_state(0))
    assert step == 1
    assert_same(state, make_state(1))


def test_when_every_step_is_damaged_it_says_so_and_keeps_them(opened, folder):
    fill(opened(), [1.0, 2.0])
    for step in ("1", "2"):
        flip(largest_file(folder / step))
    checkpoints = opened()
    with (
        pytest.warns(RuntimeWarning, match="damaged"),
        pytest.raises(UserError, match="holds no complete checkpoint"),
    ):
        checkpoints.restore(make_state(0))
    assert sorted(x.name for x in folder.iterdir()) == ["1.damaged", "2.damaged"]
    assert checkpoints.best_step() is None


def test_a_damaged_step_that_was_asked_for_is_an_error(opened, folder):
    fill(opened(), [9.0, 1.0])
    file = largest_file(folder / "1")
    flip(file)
    checkpoints = opened()
    with (
        pytest.warns(RuntimeWarning, match="damaged"),
        pytest.raises(UserError, match=rf"step 1 .*{re.escape(str(file))}.*steps \[2\]"),
    ):
        checkpoints.restore(make_state(0), 1)
    assert checkpoints.best_step() == 2
    with pytest.raises(UserError, match=r"step 1 .*found it damaged"):
        checkpoints.restore(make_state(0), 1)
    with pytest.raises(UserError, match=r"step 5 .*found none\): choose one of the steps \[2\]"):
        checkpoints.restore(make_state(0), 5)


def test_a_reader_changes_nothing(opened, folder):
    fill(opened(), [1.0, 2.0])
    flip(largest_file(folder / "2"))
    (folder / "3.orbax-checkpoint-tmp").mkdir()  # a run is saving
    before = sorted(folder.parent.rglob("*"))
    reader = opened(read_only=True)
    with pytest.warns(RuntimeWarning, match="set aside$"):
        state, _, _ = reader.restore(make_state(0))
    assert_same(state, make_state(1))
    assert (reader.steps(), reader.meta(1)["at"]) == ([1], 1)
    with pytest.raises(RuntimeError, match="read-only"):
        reader.save(9, make_state(9), META, None)
    assert sorted(folder.parent.rglob("*")) == before


def test_a_reader_of_nothing_makes_nothing(opened, folder):
    reader = opened(read_only=True)
    assert (reader.steps(), reader.best_step(), reader.newest()) == ([], None, None)
    with pytest.raises(UserError, match="holds no complete checkpoint"):
        reader.restore(make_state(0))
    assert not folder.exists()


@pytest.mark.parametrize("harm", [flip, truncate, os.remove])
def test_without_whole_digests_a_step_is_unverified_not_damaged(opened, folder, harm):
    fill(opened(), [1.0, 2.0])
    harm(folder.parent / "digests" / "2.json")
    with pytest.warns(RuntimeWarning, match=r"step 2 .* is not verified: .*2\.json is missing or"):
        state, _, step = opened().restore(make_state(0))
    assert step == 2
    assert_same(state, make_state(2))


@pytest.mark.parametrize("name", ["metrics/metrics", "meta/metadata"])
@pytest.mark.parametrize("harm", [flip, truncate, os.remove])
def test_instead_of_a_damaged_best_step_the_next_best_is_used_with_a_warning(
    opened, folder, name, harm
):
    fill(opened(keep=3), [1.0, 9.0, 5.0])
    harm(folder / "2" / name)
    reader = opened(read_only=True)
    with pytest.warns(RuntimeWarning) as told:
        state, _, step = reader.restore(make_state(0), best=True)
    assert step == 3
    assert_same(state, make_state(3))
    first, second = (str(warning.message) for warning in told)
    assert re.match(rf"the checkpoint of step 2 .*{name}", first)
    assert "step 2 was the best on dev (9.0), but its checkpoint is damaged or gone" in second
    assert second.endswith("step 3 (5.0) is used")


def test_a_lost_best_step_is_missed(opened, folder):
    fill(opened(keep=3), [1.0, 9.0, 5.0])
    shutil.rmtree(folder / "2")
    with pytest.warns(RuntimeWarning, match="step 2 was the best on dev"):
        assert opened().best() == 3


def test_a_damaged_metric_of_a_worse_step_does_not_make_it_the_best(opened, folder):
    fill(opened(), [3.0, 1.0])
    (folder / "2" / "metrics" / "metrics").write_text('{"selected": 7.0}')
    assert opened().best() == 1


def test_digests_of_older_versions_vouch_for_the_metric(opened, folder):
    fill(opened(), [3.0, 1.0])
    for step in ("1", "2"):
        file = folder.parent / "digests" / f"{step}.json"
        file.write_text(json.dumps({"files": json.loads(file.read_text())["files"]}))
    assert opened().best() == 1
    flip(folder / "1" / "metrics" / "metrics")
    with pytest.warns(RuntimeWarning, match="unknown whether this step is the best"):
        assert opened().best() == 2


@pytest.mark.filterwarnings("ignore:.*is not verified")
def test_damaged_meta_of_an_unverified_step_is_found(opened, folder):
    fill(opened(), [1.0, 2.0])
    shutil.rmtree(folder.parent / "digests")
    file = folder / "2" / "meta" / "metadata"
    file.write_text(file.read_text().replace("hmgr", "hmgs"))
    with pytest.warns(RuntimeWarning, match="2 .*cannot be read: ValueError: its contents do not"):
        assert opened().restore(make_state(0))[2] == 1


def test_digests_of_a_lost_step_do_not_condemn_the_next_of_its_number(opened, folder, monkeypatch):
    fill(opened(), [1.0])
    shutil.rmtree(folder / "1")
    monkeypatch.setattr(digests, "write", lambda *_, **__: None)  # killed before the new ones
    checkpoints = opened()
    checkpoints.save(1, make_state(11), META, 1.0)
    with pytest.warns(RuntimeWarning, match="not verified"):
        assert_same(checkpoints.restore(make_state(0))[0], make_state(11))


def test_digests_that_cannot_be_written_are_an_error_not_lost(opened, folder, monkeypatch):
    checkpoints = opened()
    fill(checkpoints, [1.0])

    def fail(*_, **__):
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(digests, "write", fail)
        checkpoints.save(2, make_state(2), META, 1.0)
        with pytest.raises(UserError, match=r"\(OSError: no space left.* steps \[1, 2\]"):
            checkpoints.wait()
    with pytest.warns(RuntimeWarning, match="not verified"):
        assert checkpoints.restore(make_state(0))[2] == 2


@pytest.mark.filterwarnings("ignore:.*is not verified")
def test_an_unverified_step_that_cannot_be_read_is_damaged(opened, folder):
    fill(opened(), [1.0, 2.0])
    (folder.parent / "digests" / "2.json").write_text("{")  # illegible digests are none
    os.remove(folder / "2" / "state" / "_METADATA")
    with pytest.warns(RuntimeWarning, match="cannot be read"):
        state, _, step = opened().restore(make_state(0))
    assert step == 1
    assert_same(state, make_state(1))


def test_an_error_of_the_caller_does_not_condemn_a_step(opened, folder):
    fill(opened(), [1.0])
    shutil.rmtree(folder.parent / "digests")
    checkpoints = opened()
    with pytest.warns(RuntimeWarning, match="not verified"), pytest.raises(ZeroDivisionError):
        checkpoints.restore(lambda step, meta: 1 // 0)
    assert checkpoints.steps() == [1]


def test_meta_of_a_step(opened, folder):
    checkpoints = opened()
    fill(checkpoints, [1.0, 2.0])
    assert [checkpoints.meta(step)["at"] for step in checkpoints.steps()] == [1, 2]
    truncate(folder / "1" / "meta" / "metadata")
    for step in (1, 8):
        with pytest.raises(UserError, match=f"complete checkpoint of step {step}"):
            checkpoints.meta(step)
