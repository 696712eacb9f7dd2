"""MSR-VTT: the official split, 1k-A, HGR's files; features of frames, HDF5, clips."""

import json
from fractions import Fraction

import numpy as np
import pytest
from msrvtt_files import (
    FEATURES,
    MOST,
    captions_of,
    challenge,
    frames_of,
    jsfusion,
    kept,
    npy_folder,
    write_clip,
)
from PIL import Image
from preparing import prepare

from hmgr_jax.data.pictures.patches import SIZE, describe_patches, preprocessing_of
from hmgr_jax.data.regions.scan import open_scan
from hmgr_jax.data.text.captioned import Captioned, file_names
from hmgr_jax.data.text.vocabulary import MARKS, Vocabulary
from hmgr_jax.preparation.frames import choose_frames, displayed, read_frames
from hmgr_jax.preparation.msrvtt_captions import split_1ka

OFFICIAL = {"train": [0, 1, 2, 3], "dev": [4], "test": [5, 6]}


def opened(out, split):
    vocabulary = Vocabulary((*MARKS, "a"))
    found = open_scan(out, splits={split: split}, vocabulary=vocabulary, visual="video")
    return found.splits[split]


def check(out, split, numbers, captions=None):
    found = opened(out, split)
    assert list(found.ids["video"]) == [f"video{n}" for n in numbers]
    items = found.sources["video"].gather(np.arange(len(numbers)))
    assert items["frames"].dtype == np.float16
    assert items["frames"].shape[1:] == (MOST, FEATURES)
    for n, frames, count in zip(numbers, items["frames"], items["n_frames"], strict=True):
        assert count == len(kept(n))
        np.testing.assert_array_equal(frames[:count], kept(n))
        assert not frames[count:].any()
    texts = [[] for _ in numbers]
    for video, caption in zip(found.groups["text"], found.sources["text"].captions, strict=True):
        texts[video].append(caption)
    assert texts == (captions or [captions_of(n) for n in numbers])


@pytest.fixture
def features(tmp_path):
    return npy_folder(tmp_path / "f")


def _command(features, out, *captions):
    source = ("--features", features) if features else ()
    return ("msrvtt", *captions, *source, "--frames", str(MOST), "--out", out)


def test_the_split_of_the_file(tmp_path, features, capsys):
    out = tmp_path / "out"
    assert (
        prepare(*_command(features, out, "--json", challenge(tmp_path / "videodatainfo.json"))) == 0
    )
    said = capsys.readouterr().out
    assert f"{out} holds videos: 4 of train (7 captions), 1 of dev (2 captions), 2 of test" in said
    assert f"--config msrvtt --config.data.root={out}" in said
    for split, numbers in OFFICIAL.items():
        check(out, split, numbers)
    found = json.loads((out / "manifest.json").read_text())["splits"]["train"]
    assert found["regions_per_image"] == [1, MOST]
    assert prepare("--verify", out) == 0


def test_the_two_files_of_the_challenge(tmp_path, features):
    both = [challenge(tmp_path / "train_val_videodatainfo.json", range(5)),
            challenge(tmp_path / "test_videodatainfo.json", [5, 6])]  # fmt: skip
    assert prepare(*_command(features, tmp_path / "a", "--json", *both)) == 0
    for split, numbers in OFFICIAL.items():
        check(tmp_path / "a", split, numbers)
    more = ("--json", both[0], "--json", both[1])
    assert prepare(*_command(features, tmp_path / "b", *more)) == 0
    same = [(tmp_path / name / "manifest.json").read_bytes() for name in "ab"]
    assert same[0] == same[1]


def test_1ka(tmp_path, features):
    captions = ("--json", challenge(tmp_path / "v.json"), "--csv", jsfusion(tmp_path / "t.csv"))
    for name, dev, count in (("a", "2", 2), ("b", "0.2", 1)):
        out = tmp_path / name
        assert prepare(*_command(features, out, *captions, "--dev", dev)) == 0
        check(out, "test", [5, 2], [["the one caption of 5"], ["the one caption of 2"]])
        numbers = {s: [int(i[5:]) for i in opened(out, s).ids["video"]] for s in ("train", "dev")}
        assert len(numbers["dev"]) == count
        assert sorted(numbers["train"] + numbers["dev"]) == [0, 1, 3, 4, 6]
        for split, found in numbers.items():
            check(out, split, found)


def test_1ka_with_other_spellings_leaks_nothing():
    """Test clips are kept out of train by their names without endings (.mp4 is one)."""

    def clip(name, split):
        return Captioned(file_names(name), split, ["a film"], name)

    videos = [clip(f"video{n}", "train") for n in range(6)]
    splits = split_1ka(videos, [clip("video3.mp4", "test"), clip("video0.avi", "test")], 1)
    assert {video.id for name in ("train", "dev") for video in splits[name]} == {
        "video1", "video2", "video4", "video5"
    }  # fmt: skip


def test_1ka_alone_is_a_test_split(tmp_path, features, capsys):
    out = tmp_path / "out"
    assert prepare(*_command(features, out, "--csv", jsfusion(tmp_path / "t.csv"))) == 0
    assert "holds videos: 2 of test (2 captions)." in capsys.readouterr().out
    assert sorted(path.name for path in out.iterdir()) == [
        "manifest.json", "prepared.json", "test_caps.txt", "test_ids.txt", "test_ims.npy",
    ]  # fmt: skip


def test_the_real_1ka(real_data, tmp_path):
    table = real_data / "msrvtt_1ka" / "MSRVTT_JSFUSION_test.csv"
    if not table.is_file():
        pytest.skip(f"no {table}")
    root = tmp_path / "f"
    root.mkdir()
    for number in range(7010, 10000):
        np.save(root / f"video{number}.npy", np.full((3, 2), number % 1000, np.float16))
    assert prepare(*_command(root, tmp_path / "out", "--csv", table)) == 0
    found = opened(tmp_path / "out", "test")
    assert len(found.sources["video"]) == len(found.sources["text"]) == 1000
    frames = found.sources["video"].gather(np.arange(1000))["frames"]
    assert [int(name[5:]) % 1000 for name in found.ids["video"]] == frames[:, 0, 0].tolist()
    assert found.sources["text"].captions[0] == "a person is connecting something to system"


def test_the_files_of_hgr(tmp_path, features):
    captions = {f"video{n}": captions_of(n) for n in range(7)}
    (tmp_path / "ref_captions.json").write_text(json.dumps(captions))
    names = tmp_path / "public_split"
    names.mkdir()
    for file, numbers in zip(("trn", "val", "tst"), OFFICIAL.values(), strict=True):
        np.save(names / f"{file}_names.npy", [f"video{n}" for n in numbers])
    given = ("--json", tmp_path / "ref_captions.json", "--names", names)
    assert prepare(*_command(features, tmp_path / "out", *given)) == 0
    for split, numbers in OFFICIAL.items():
        check(tmp_path / "out", split, numbers)


def test_hdf5_with_a_dataset_a_video(tmp_path):
    h5py = pytest.importorskip("h5py", reason="h5py, the extra h5, is not installed")
    with h5py.File(tmp_path / "f.h5", "w") as file:
        for n in range(7):
            file[f"video{n}"] = frames_of(n)
    given = ("--json", challenge(tmp_path / "v.json"))
    assert prepare(*_command(tmp_path / "f.h5", tmp_path / "out", *given)) == 0
    for split, numbers in OFFICIAL.items():
        check(tmp_path / "out", split, numbers)


@pytest.mark.parametrize(
    ("count", "most"), [(1, 20), (20, 20), (21, 20), (22, 20), (900, 20), (9, 1)]
)
def test_chosen_frames_are_different_and_have_both_ends(count, most):
    found = choose_frames(range(count), most)
    assert len(set(found.tolist())) == len(found) == min(count, most)
    assert found[0] == 0
    assert found[-1] == (count - 1 if most > 1 else 0)


# --- clips ---------------------------------------------------------------------------------------


@pytest.fixture
def clips(tmp_path):
    pytest.importorskip("av", reason="PyAV, the extra video, is not installed")
    root = tmp_path / "clips"
    root.mkdir()
    for n, count in enumerate((12, 3, 4, 25)):
        write_clip(root / f"video{n}.{('mp4', 'avi')[n % 2]}", count)
    return root


def _of_clips(clips, out, table, *more):
    return ("msrvtt", "--csv", table, "--videos", clips, "--frames", "4", "--out", out, *more)


def test_clips_are_decoded_and_their_frames_described(tmp_path, clips):
    out, table = tmp_path / "out", jsfusion(tmp_path / "t.csv", range(4))
    assert prepare(*_of_clips(clips, out, table)) == 0
    items = opened(out, "test").sources["video"].gather(np.arange(4))
    assert items["n_frames"].tolist() == [4, 3, 4, 4]
    assert items["frames"].shape == (4, 4, 4 * SIZE)
    first = read_frames(clips / "video0.mp4", 4, lambda frame: frame.copy())
    assert first[0].shape == (24, 32, 3)
    last = preprocessing_of(2)(Image.fromarray(first[3]))
    wanted = describe_patches(last, 2).reshape(-1).astype(np.float16)
    np.testing.assert_array_equal(items["frames"][0, 3], wanted)
    # Frames 0, 8, 16 and 24 of 25, of a grey of 8 f on the left: the first mean of the first patch.
    grey = items["frames"][3, :, 192].astype(float) * 255
    np.testing.assert_allclose(grey, [0, 64, 128, 192], atol=8)
    assert not items["frames"][1, 3].any()


def test_a_clip_is_turned_as_its_camera_says(tmp_path, clips):
    path = clips / "video0.mp4"
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 44  # the matrix of a track header of version 0
    quarter = [0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30]
    data[at : at + 36] = b"".join(x.to_bytes(4, "big", signed=True) for x in quarter)
    path.write_bytes(data)
    turned = read_frames(path, 1, lambda frame: frame.copy())[0]
    assert turned.shape == (32, 24, 3)
    assert turned[-4:, :, 0].mean() > 200  # red was on the right, and is below after a turn right
    assert turned[:4].max() < 60


@pytest.mark.parametrize(
    ("linear", "turned"),
    [
        ((1, 0, 0, 1), lambda x: x),
        ((-1, 0, 0, 1), lambda x: x[:, ::-1]),  # mirrored, which is no half turn
        ((1, 0, 0, -1), lambda x: x[::-1]),
        ((-1, 0, 0, -1), lambda x: x[::-1, ::-1]),
        ((0, 1, -1, 0), lambda x: np.rot90(x, -1)),
        ((0, -1, 1, 0), np.rot90),
        ((0, 1, 1, 0), lambda x: x.swapaxes(0, 1)),
        ((0, -1, -1, 0), lambda x: x[::-1, ::-1].swapaxes(0, 1)),
    ],
)
def test_frames_are_turned_and_mirrored_as_the_matrix_says(linear, turned):
    picture = np.arange(18).reshape(2, 3, 3)
    a, b, c, d = (x << 16 for x in linear)
    matrix = np.array([a, b, 0, c, d, 0, 0, 0, 1 << 30], np.int32).tobytes()
    np.testing.assert_array_equal(displayed(picture, matrix), turned(picture))


def test_a_mirrored_clip_is_not_upside_down(clips):
    path = clips / "video0.mp4"
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 44
    data[at : at + 4] = (-(1 << 16)).to_bytes(4, "big", signed=True)
    path.write_bytes(data)
    shown = read_frames(path, 1, lambda frame: frame.copy())[0]
    assert shown.shape == (24, 32, 3)
    assert shown[:, :8, 0].mean() > 200  # red was on the right
    assert shown[:, -8:].max() < 60


def test_frames_are_spread_over_the_time_of_a_clip():
    """Nine frames in the first second, then one each ten seconds."""
    stamps = [*range(0, 900, 100), 10_000, 20_000, 30_000]
    assert choose_frames(stamps, 4).tolist() == [0, 9, 10, 11]
    assert choose_frames([None, *stamps[1:]], 4).tolist() == [0, 4, 7, 11]
    still = [*range(100), 100_000]
    assert choose_frames(still, 5).tolist() == [0, 99, 100]


def test_frames_of_a_variable_rate_are_chosen_by_time(tmp_path):
    av = pytest.importorskip("av")
    times = [*range(0, 90, 10), 1000, 2000, 3000]
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=100)
        stream.width, stream.height, stream.pix_fmt = 32, 24, "yuv420p"
        stream.options = {"qscale": "1"}
        for number, time in enumerate(times):
            grey = np.full((24, 32, 3), 20 * number, np.uint8)
            frame = av.VideoFrame.from_ndarray(grey, format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 100)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    found = read_frames(tmp_path / "a.mp4", 4, lambda frame: frame.mean() / 20)
    np.testing.assert_allclose(found, [0, 9, 10, 11], atol=0.3)


def test_rejects_unreadable_clips(tmp_path, clips, refused):
    command = _of_clips(clips, tmp_path / "out", jsfusion(tmp_path / "t.csv", range(4)))
    whole = (clips / "video2.mp4").read_bytes()
    for data in (b"no clip", whole[:300], b""):
        (clips / "video2.mp4").write_bytes(data)
        refused("video2.mp4 holds no clip that can be decoded", *command)
    (clips / "video2.mp4").write_bytes(whole)
    assert prepare(*command) == 0  # goes on
    lacking = _of_clips(clips, tmp_path / "o", jsfusion(tmp_path / "l.csv", [0, 9]))
    refused(("has no features of 'video9'", "l.csv:3"), *lacking)
    (tmp_path / "empty").mkdir()
    table = tmp_path / "t.csv"
    refused("holds no .mp4", *_of_clips(tmp_path / "empty", tmp_path / "o", table))
    refused("is no folder", *_of_clips(tmp_path / "none", tmp_path / "o", table))


def test_sound_alone_is_no_clip(tmp_path, clips, refused):
    import av

    with av.open(str(clips / "video0.mp4"), "w", format="wav") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(
            np.zeros((1, 800), np.int16), format="s16", layout="mono"
        )
        frame.sample_rate = 8000
        for packet in stream.encode(frame):
            container.mux(packet)
    table = jsfusion(tmp_path / "t.csv", [0])
    refused("video0.mp4 holds no clip that can be decoded (it has no pictures)",
            *_of_clips(clips, tmp_path / "out", table))  # fmt: skip


def test_without_pyav_the_extra_is_named(tmp_path, refused, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips/video0.mp4").write_bytes(b"")
    table = jsfusion(tmp_path / "t.csv", [0])
    refused("pip install 'hmgr-jax[video]'", *_of_clips(tmp_path / "clips", tmp_path / "o", table))


# --- what is refused -----------------------------------------------------------------------------


def _unknown(found):
    found["sentences"][2]["video_id"] = "video77"


def _empty(found):
    found["sentences"][3]["caption"] = ""


def _twice(found):
    found["videos"].append(found["videos"][0])


def _silent(found):
    found["sentences"] = [s for s in found["sentences"] if s["video_id"] != "video3"]


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (_unknown, ("v.json, sentence 2 is of video77, which is none of the 7 videos",)),
        (_empty, ("v.json, sentence 3 has '' for a caption",)),
        (_silent, ("v.json, video 3 (video3) has no sentence",)),
        (_twice, ("v.json, video 7 lists video0 again",)),
        (lambda found: found["videos"][1].update(split="all"), ("video 1 has the split 'all'",)),
        (lambda found: found["videos"][1].pop("video_id"), ("video 1 (counted", "'video_id'")),
        (lambda found: found.pop("sentences"), ("v.json holds no list 'sentences'",)),
        (lambda found: found["videos"].clear(), ("v.json holds no list 'videos'",)),
    ],
)  # fmt: skip
def test_rejects_malformed_json(tmp_path, features, refused, change, parts):
    path = challenge(tmp_path / "v.json", change=change)
    refused(parts, *_command(features, tmp_path / "out", "--json", path))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("rows", "parts"),
    [
        (["ret0,msr5,video5,a", "ret1,msr5,video5,b"], ("t.csv:3 lists video5 again", "t.csv:2")),
        (["ret0,msr5,video5,"], ("t.csv:2 lacks 'sentence'",)),
        (["ret0,msr5,video5,a, b"], ("t.csv:2 has more cells than the 4 columns",)),
        (["ret0,msr5,video55,a"], ("no features of 'video55'", "t.csv:2")),
    ],
)
def test_rejects_bad_rows_of_1ka(tmp_path, features, refused, rows, parts):
    table = jsfusion(tmp_path / "t.csv", rows=rows)
    refused(parts, *_command(features, tmp_path / "out", "--csv", table))


def test_rejects_bad_tables_of_1ka(tmp_path, features, refused):
    table = tmp_path / "t.csv"
    command = _command(features, tmp_path / "out", "--csv", table)
    refused("t.csv cannot be read", *command)
    table.write_text("key,vid_key,caption\n")
    refused(("t.csv:1 has the columns key, vid_key, caption where 'video_id'",), *command)
    table.write_text("key,vid_key,video_id,sentence\n")
    refused("t.csv holds no rows", *command)
    jsfusion(table, range(7))
    both = ("--json", challenge(tmp_path / "v.json"))
    refused("none is left to train on", *command, *both)
    jsfusion(table, range(3))
    for dev in ("0", "4", "1.5", "-1", "nan", "inf"):
        refused(f"--dev is {dev}", *command, *both, "--dev", dev)


def test_rejects_bad_files_of_hgr(tmp_path, features, refused):
    names, path = tmp_path / "names", tmp_path / "ref_captions.json"
    names.mkdir()
    path.write_text(json.dumps({"video0": ["a"], "video1": ["b"]}))
    command = _command(features, tmp_path / "out", "--json", path, "--names", names)
    refused("trn_names.npy cannot be read as .npy", *command)
    np.save(names / "trn_names.npy", np.array(["video0"], object), allow_pickle=True)
    refused("trn_names.npy cannot be read as .npy", *command)
    np.save(names / "trn_names.npy", np.arange(3))
    refused("trn_names.npy has shape (3,) and type int64", *command)
    np.save(names / "trn_names.npy", ["video0", "video4"])
    refused(("trn_names.npy, row 1 is video4", "has no captions"), *command)
    refused("--names goes with one --json", *command, "--csv", jsfusion(tmp_path / "t.csv"))


def test_rejects_bad_features(tmp_path, features, refused):
    command = _command(features, tmp_path / "out", "--json", challenge(tmp_path / "v.json"))
    (features / "video2.npy").write_bytes(b"\x93NUMPY\x01\x00")
    refused("video2.npy cannot be read as .npy or .npz", *command)
    np.save(features / "video2.npy", np.zeros((1, 1, 6)))
    refused("video2.npy holds features of shape (1, 1, 6) where [regions, features]", *command)
    np.save(features / "video2.npy", np.zeros((2, 5)))
    refused("video2.npy holds features of 5 numbers where the first has 6", *command)
    np.save(features / "video2.npy", np.full((2, 6), np.nan))
    refused("video2.npy holds NaN or infinity", *command)
    (features / "video2.npy").unlink()
    refused("has no features of 'video2'", *command)


def test_rejects_bad_flags(tmp_path, features, refused):
    path = challenge(tmp_path / "v.json")
    refused("takes either --features or --videos", *_command(None, tmp_path / "o", "--json", path))
    both = _command(features, tmp_path / "o", "--json", path, "--videos", features)
    refused("takes either --features or --videos", *both)
    refused("from --json, --csv or both", *_command(features, tmp_path / "o"))
    refused(
        "have 1 videos for dev", *_command(features, tmp_path / "o", "--json", path, "--dev", "1")
    )
    refused("--frames is 0", "msrvtt", "--frames", "0")
