"""A scoring that was interrupted goes on where it stood, and ends with the very same scores."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from hmgr_jax.errors import UserError
from hmgr_jax.evaluation import all_pairs, score_store
from hmgr_jax.evaluation.all_pairs import Bucket, score_matrix
from hmgr_jax.files.workdir import lock

RNG = np.random.default_rng(0)
IMAGES = {"r": RNG.standard_normal((17, 4, 8)).astype(np.float32)}
CAPTIONS = [  # of two lengths, whose columns are mixed
    Bucket(np.arange(0, 22, 2), RNG.standard_normal((11, 3, 8)).astype(np.float32)),
    Bucket(np.arange(1, 22, 2)[::-1], RNG.standard_normal((11, 5, 8)).astype(np.float32)),
]
WEIGHTS = RNG.standard_normal((8, 8)).astype(np.float32)
TILES = 4 * (4 + 4)  # of at most 5 rows and 3 columns


def best_word(weights, regions, words):
    return jnp.einsum("ard,de,ble->abrl", regions["r"], weights, words).max((2, 3))


def score(weights=WEIGHTS, captions=CAPTIONS, tile=(5, 3), **options):
    one = jax.devices()[:1]
    return score_matrix(
        Partial(best_word, weights), IMAGES, captions, tile=tile, devices=one, **options
    )


class Stop(BaseException):
    """Stands for Ctrl-C or a kill: nothing catches it."""


def stop_at(tile):
    def progress(done, total):
        assert total == TILES
        if done == tile:
            raise Stop

    return progress


@pytest.fixture
def scored(monkeypatch):
    """Tiles that went to the device so far."""
    shapes, real = [], all_pairs._score

    def counted(score_tile, a, b, *, mesh):
        shapes.append((len(a["r"]), len(b)))
        return real(score_tile, a, b, mesh=mesh)

    monkeypatch.setattr(all_pairs, "_score", counted)
    return shapes


@pytest.fixture(scope="module")
def whole():
    return score()


@pytest.mark.parametrize("stopped_at", [1, 8, 13, TILES])
def test_scored_tiles_are_not_scored_again(tmp_path, scored, whole, stopped_at):
    store = tmp_path / "scores" / "test"
    with pytest.raises(Stop):
        score(store=store, progress=stop_at(stopped_at))
    del scored[:]
    seen = []
    found = score(store=store, progress=lambda *x: seen.append(x))
    assert len(scored) == TILES - stopped_at
    assert seen == [(i, TILES) for i in range(stopped_at, TILES + 1)]
    np.testing.assert_array_equal(found, whole)
    assert found.dtype == np.float32
    assert type(found) is np.ndarray
    del scored[:]
    np.testing.assert_array_equal(score(store=store), whole)
    assert scored == []  # kept until it is discarded
    score_store.discard(store)
    assert list(tmp_path.iterdir()) == []
    np.testing.assert_array_equal(found, whole)  # still mapped


def test_stopped_again_and_again(tmp_path, scored, whole):
    for stopped_at in range(2, TILES, 5):
        with pytest.raises(Stop):
            score(store=tmp_path / "s", progress=stop_at(stopped_at))
    np.testing.assert_array_equal(score(store=tmp_path / "s"), whole)
    stops = len(range(2, TILES, 5))
    assert len(scored) <= TILES + stops * all_pairs.IN_FLIGHT  # only what was under way is lost


def test_a_kill_loses_what_was_not_recorded_yet(tmp_path, scored, whole, monkeypatch):
    """The folder as it stands in the middle, without the record that an exception still writes."""
    times = iter(np.arange(0, 1e6, 1.0))
    monkeypatch.setattr(score_store.time, "monotonic", lambda: next(times))

    def copy(done, total):
        if done == 20:
            shutil.copytree(tmp_path / "s", tmp_path / "killed")

    score(store=tmp_path / "s", progress=copy)
    recorded = json.loads((tmp_path / "killed" / "tiles.json").read_text())["done"]
    assert 10 <= recorded < 20  # every five seconds of one a tile
    on_disk = np.load(tmp_path / "killed" / "scores.npy")
    assert np.mean(on_disk == whole) >= recorded / TILES / 2
    on_disk = np.lib.format.open_memmap(tmp_path / "killed" / "scores.npy", mode="r+")
    on_disk[on_disk != whole] = np.nan  # nothing that is not recorded may be relied on
    on_disk.flush()
    del scored[:]
    np.testing.assert_array_equal(score(store=tmp_path / "killed"), whole)
    assert len(scored) == TILES - recorded


def test_other_weights_codes_and_tiles_begin_anew(tmp_path, scored, whole):
    other = [CAPTIONS[0], Bucket(CAPTIONS[1].items, CAPTIONS[1].codes.copy())]
    other[1].codes[7, 4, 7] += 1
    turned = [Bucket(CAPTIONS[0].items[::-1], CAPTIONS[0].codes), CAPTIONS[1]]
    for changed in (
        {"weights": WEIGHTS + np.float32(1e-3)},
        {"captions": other},
        {"captions": turned},
        {"tile": (5, 4)},
    ):
        with pytest.raises(Stop):
            score(store=tmp_path / "s", progress=stop_at(20))
        del scored[:]
        with pytest.warns(RuntimeWarning, match="of other weights, items or tiles: scoring starts"):
            found = score(**changed, store=tmp_path / "s")
        assert len(scored) >= 24
        np.testing.assert_array_equal(found, score(**changed))
        if "tile" in changed:
            np.testing.assert_allclose(found, whole, rtol=0, atol=1e-6 * np.abs(whole).max())
        else:
            assert np.abs(found - whole).max() > 1e-4
        score_store.discard(tmp_path / "s")


@pytest.mark.parametrize("damage", ["truncated", "missing", "shape", "record", "bit"])
def test_a_damaged_store_begins_anew(tmp_path, scored, whole, damage):
    with pytest.raises(Stop):
        score(store=tmp_path / "s", progress=stop_at(20))
    scores, record = (tmp_path / "s" / name for name in ("scores.npy", "tiles.json"))
    if damage == "truncated":
        scores.write_bytes(scores.read_bytes()[:500])
    elif damage == "shape":
        np.save(scores, np.zeros((3, 4), np.float32))
    elif damage == "bit":
        data = bytearray(scores.read_bytes())
        data[130] ^= 1  # of the first tile
        scores.write_bytes(data)
    elif damage == "record":
        record.write_text("{")
    else:
        scores.unlink()
    del scored[:]
    if damage == "missing":
        found = score(store=tmp_path / "s")
    else:
        with pytest.warns(RuntimeWarning, match="damaged or incomplete: scoring starts from"):
            found = score(store=tmp_path / "s")
    assert len(scored) == TILES
    np.testing.assert_array_equal(found, whole)


def test_scores_that_were_returned_outlive_a_new_beginning(tmp_path, whole):
    found = score(store=tmp_path / "s")
    with pytest.warns(RuntimeWarning, match="starts from the beginning"):
        score(2 * WEIGHTS, store=tmp_path / "s")
    np.testing.assert_array_equal(found, whole)


def test_one_scoring_at_a_time(tmp_path):
    with lock(tmp_path / "s"), pytest.raises(UserError, match="is in use by process"):
        score(store=tmp_path / "s")


def test_rejects_a_full_disk_before_scoring(tmp_path, scored, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(score_store.os, "posix_fallocate", full)
    with pytest.raises(UserError, match=r"has no room for 0\.0 GB of scores \(No space left"):
        score(store=tmp_path / "s")
    assert scored == []
    assert not (tmp_path / "s" / "scores.npy").exists()
