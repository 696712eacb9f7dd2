"""Generated clips as a data set: keys, families, arrays, and how little unordered frames tell."""

import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest

from hmgr_jax.data.generated.worlds.clip import EDGE, GAP, MOVERS, draw_clips
from hmgr_jax.data.generated.worlds.clip_captions import describe_clip
from hmgr_jax.data.generated.worlds.clips import make_clips, open_clips
from hmgr_jax.data.generated.worlds.frames import NODES, UNIT, WIDTH, describe_frames, render_frames
from hmgr_jax.data.generated.worlds.scene import COLOURS, SHAPES
from hmgr_jax.data.text.vocabulary import UNKNOWN, Vocabulary
from hmgr_jax.errors import UserError

KNOWN_CAPTIONS = (
    "the green cross speeds up as it moves up and the purple cross circles "
    "clockwise while the black triangle stands still",
    "as the purple cross circles clockwise, the green cross moves up while "
    "the black triangle stands still",
    "the purple cross circles clockwise and the green cross moves up faster and faster",
    "the purple cross goes around clockwise and the green cross speeds up as it moves up",
    "the green cross moves up while the purple cross circles clockwise",
)
KNOWN_STATE = (0.841948, 0.612859, 0.08037)
DIGEST = """
import hashlib
from hmgr_jax.data.generated.worlds.clip import draw_clips
print(hashlib.sha256(repr(draw_clips(7, "dev", 3)).encode()).hexdigest())
"""


@pytest.fixture(scope="module")
def data():
    return open_clips(seed=1, train=80, dev=20, test=40)


@pytest.fixture(scope="module")
def families():
    return [draw_clips(0, "train", number) for number in range(60)]


@pytest.mark.slow
def test_a_family_is_the_same_in_another_process():
    here = hashlib.sha256(repr(draw_clips(7, "dev", 3)).encode()).hexdigest()
    environment = {**os.environ, "PYTHONHASHSEED": "5"}
    there = subprocess.run(
        [sys.executable, "-c", DIGEST], env=environment, capture_output=True, text=True, check=True
    )
    assert there.stdout.strip() == here


def test_clips_do_not_depend_on_how_many_are_made(data):
    fewer = open_clips(seed=1, train=12, dev=4, test=4)
    for name, split in fewer.splits.items():
        small, large = split.sources, data.splits[name].sources
        items = np.arange(len(small["video"]))
        for key, array in small["video"].gather(items).items():
            np.testing.assert_array_equal(array, large["video"].gather(items)[key], err_msg=key)
        assert large["text"].captions[: 5 * len(items)] == small["text"].captions
    assert fewer.vocabulary == data.vocabulary


def test_the_generator_has_not_changed():
    """Where this fails on purpose, raise VERSION: checkpoints name the data they were made with."""
    clip = draw_clips(0, "train", 0)[0]
    assert describe_clip(clip) == KNOWN_CAPTIONS
    np.testing.assert_allclose(clip.states(clip.times)[0, 0], KNOWN_STATE, atol=1e-6)


def test_siblings_share_all_but_the_order(families):
    """Every object passes through the same states in all four, in one of two orders."""
    for clips in families:
        assert len({clip.frames for clip in clips}) == 1
        assert len({tuple((a.shape, a.colour) for a in clip.actors) for clip in clips}) == 1
        states = np.stack([clip.states(clip.times) for clip in clips])  # [4, N, T, 3]
        orders = set()
        for sibling in states:
            order = []
            for one, first in zip(sibling, states[0], strict=True):
                forth, back = (np.allclose(one, x, atol=1e-9) for x in (first, first[::-1]))
                assert forth or back
                order.append(forth)
            assert all(order[MOVERS:])
            orders.add(tuple(order))
        assert len(orders) == 4


def test_unordered_frames_are_the_same_in_all_siblings(families):
    """Each channel of the features, over the frames; the sum over frames tells nothing at all."""
    for clips in families[:20]:
        found = [describe_frames(clip) for clip in clips]
        for frames in found:
            np.testing.assert_allclose(frames.sum(axis=0), found[0].sum(axis=0), atol=1e-9)
            for colour in {actor.colour for actor in clips[0].actors}:
                mine, first = (_sorted_channel(x, colour) for x in (frames, found[0]))
                np.testing.assert_allclose(mine, first, atol=1e-9)


def _sorted_channel(frames, channel):
    x = frames.reshape(len(frames), -1, NODES**2)[:, channel]
    return x[np.lexsort(x.round(6).T)]


def test_objects_have_room_and_colours_of_their_own(families):
    frames, times = set(), np.linspace(0, 1, 33)
    for clips in families:
        frames.add(clips[0].frames)
        assert len({actor.colour for actor in clips[0].actors}) == len(clips[0].actors) in (3, 4)
        for clip in clips:
            states = clip.states(times)
            place, radius = states[..., :2], states[..., 2]
            assert (np.minimum(place, 1 - place).min(-1) - radius).min() >= EDGE - 0.01
            for a in range(len(states)):
                for b in range(a):
                    gap = np.linalg.norm(place[a] - place[b], axis=-1) - radius[a] - radius[b]
                    assert gap.min() > 0.5 * GAP
    assert frames == {5, 6, 7, 8}


def test_splits_and_seeds_give_other_clips(data):
    shown = {
        name: set(map(bytes, split.sources["video"].arrays["frames"][:, 0]))
        for name, split in data.splits.items()
    }
    assert not shown["train"] & shown["test"]
    assert not shown["train"] & shown["dev"]
    assert draw_clips(0, "train", 0)[0].actors != draw_clips(1, "train", 0)[0].actors


def test_split_layout(data):
    split = data.splits["train"]
    caption = np.arange(400)
    np.testing.assert_array_equal(split.rows["video"], caption // 5)
    np.testing.assert_array_equal(split.rows["text"], caption)
    np.testing.assert_array_equal(split.groups["video"], np.arange(80))
    np.testing.assert_array_equal(split.groups["text"], caption // 5)
    np.testing.assert_array_equal(split.families["video"], np.arange(80) // 4)
    np.testing.assert_array_equal(split.families["text"], caption // 20)
    for arrays in (split.rows, split.groups, split.families):
        assert all(array.dtype == np.int32 for array in arrays.values())
    assert split.ids["video"][3] == "train/000003"
    assert split.ids["text"][17] == "train/000003#2"


def test_words_are_known_and_captions_fit(data):
    assert 80 <= len(data.vocabulary) <= 150
    seen = set()
    for split in data.splits.values():
        text = split.sources["text"]
        tokens = text.gather(np.arange(len(text)))["tokens"]
        assert not (tokens == UNKNOWN).any()
        seen |= set(np.unique(tokens).tolist())
        assert text.lengths.max() - 2 <= 22
        assert text.lengths.min() - 2 >= 7
    assert len(seen) > 0.9 * len(data.vocabulary)


def test_frames_are_padded_with_zeros(data):
    video = data.splits["train"].sources["video"]
    items = video.gather(np.array([5, 5, 2]))
    assert items["frames"].shape == (3, 8, WIDTH)
    assert items["frames"].dtype == np.float16
    assert items["n_frames"].dtype == np.int32
    true = np.arange(8) < video.arrays["n_frames"][:, None]
    assert (np.abs(video.arrays["frames"]).max(axis=-1) > 0).tolist() == true.tolist()
    np.testing.assert_array_equal(items["frames"][0], video.arrays["frames"][5])


def test_a_feature_says_where_colours_and_shapes_are(families):
    """The mean place of the nodes, weighted, is the middle of the object."""
    nodes = np.linspace(0, 1, NODES)
    for clip in families[0] + families[1]:
        found = describe_frames(clip).reshape(clip.frames, -1, NODES, NODES)
        for actor, states in zip(clip.actors, clip.states(clip.times), strict=True):
            for frame, (x, y, radius) in enumerate(states):
                colour = found[frame, actor.colour]
                assert 0.2 * radius**2 < colour.sum() * UNIT < 4 * radius**2
                assert abs((colour.sum(0) @ nodes) / colour.sum() - x) < 0.4 * radius
                assert abs((colour.sum(1) @ nodes) / colour.sum() - y) < 0.4 * radius
                assert (found[frame, len(COLOURS) + actor.shape] >= colour - 1e-9).all()
    assert found.shape[1] == len(COLOURS) + len(SHAPES)


def test_pictures_show_what_moves(families):
    clip = families[0][0]
    pictures = render_frames(clip, 48)
    assert pictures.shape == (clip.frames, 48, 48, 3)
    assert pictures.dtype == np.uint8
    moving = np.abs(np.diff(pictures.astype(int), axis=0)).max(axis=(1, 2, 3))
    assert moving.max() > 50


# --- how much is told without the order --------------------------------------------------------


def _probe(features, clips, families=400):
    """Percent of clips of which a linear probe of one frame tells which way the first mover goes.

    Ridge regression from features of one known frame to left or right (or up or down), with
    objects told apart by colour, fitted on half of the families.
    """
    rows, signs = [], []
    for clip in clips:
        actor = clip.actors[0]
        if actor.movement.motion in ("left", "right"):
            rows.append(features(clip, actor))
            signs.append(1.0 if actor.movement.motion == "right" else -1.0)
    x, y = np.stack(rows), np.array(signs)
    x = np.concatenate([x, np.ones((len(x), 1))], axis=1)
    half = len(x) // 2
    weights = np.linalg.solve(x[:half].T @ x[:half] + np.eye(x.shape[1]), x[:half].T @ y[:half])
    return 100 * np.mean((x[half:] @ weights > 0) == (y[half:] > 0))


@pytest.mark.slow
def test_only_the_order_tells_which_way_things_move():
    clips = make_clips(0, "train", 1600)

    def column(frame):
        def features(clip, actor):
            maps = describe_frames(clip).reshape(clip.frames, -1, NODES, NODES)
            return maps[frame(clip), actor.colour].sum(axis=0)

        return features

    def bag(clip, actor):
        maps = describe_frames(clip).reshape(clip.frames, -1, NODES, NODES)
        return maps[:, actor.colour].sum(axis=(0, 1))

    def ends(clip, actor):
        return column(lambda c: c.frames - 1)(clip, actor) - column(lambda c: 0)(clip, actor)

    def any_frame(clip):
        return int(clip.generator("probe").integers(clip.frames))

    assert abs(_probe(bag, clips) - 50) < 8
    assert abs(_probe(column(any_frame), clips) - 50) < 10
    assert _probe(ends, clips) > 95


# --- invalid arguments --------------------------------------------------------------------------


def test_fingerprint_names_seed_and_sizes(data):
    small = [open_clips(0, 4, 4, 4), open_clips(1, 4, 4, 4), open_clips(0, 8, 4, 4)]
    assert len({clips.fingerprint for clips in small}) == 3
    assert open_clips(0, 4, 4, 4).fingerprint == small[0].fingerprint


def test_bad_sizes_and_foreign_words_are_refused(data):
    for sizes in ({"train": 6}, {"dev": 0}, {"test": -4}):
        with pytest.raises(UserError, match="multiple of 4"):
            open_clips(**sizes)
    with pytest.raises(UserError, match="seed"):
        open_clips(seed=-1)
    alone = open_clips(1, 80, 20, 40, roles=("test",), known=data.vocabulary)
    assert list(alone.splits) == ["test"]
    assert alone.fingerprint == data.fingerprint
    with pytest.raises(UserError, match="other words than these"):
        open_clips(known=Vocabulary(data.vocabulary.words[:-1]))
