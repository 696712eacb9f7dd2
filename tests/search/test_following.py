"""An index that follows its folders: what is added, encoded again, dropped, refused and kept."""

import os
import shutil

import clip_files
import numpy as np
import pytest
from PIL import Image

import hmgr_jax
from hmgr_jax.errors import UserError
from hmgr_jax.files.workdir import lock
from hmgr_jax.search import encoded_blocks, following, versions
from hmgr_jax.search.command import main
from hmgr_jax.search.index import Index
from hmgr_jax.search.retrieved import load_run
from hmgr_jax.search.searcher import model_key

pytestmark = pytest.mark.filterwarnings("always:.*cannot be read and are left out")


def _draw(file, seed):
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (12, 9, 3), np.uint8)
    Image.fromarray(pixels).save(file)


@pytest.fixture(scope="module")
def retriever(tmp_path_factory):
    """A tiny CLIP, which reads pictures."""
    folder = tmp_path_factory.mktemp("model") / "clip"
    clip_files.written(folder, "clip")
    return hmgr_jax.load(folder)


@pytest.fixture(scope="module")
def first(retriever, tmp_path_factory):
    """A folder of pictures, one of them broken, and its index, to be copied."""
    root = tmp_path_factory.mktemp("first")
    for number, name in enumerate(("a.png", "b.PNG", "sub/c.png")):
        _draw(root / "pictures" / name, number)
    (root / "pictures" / "broken.jpg").write_bytes(b"no picture")
    with pytest.warns(RuntimeWarning, match=r"1 of 4 pictures of .* left out: broken\.jpg"):
        made = following.build(retriever, [root / "pictures"], root / "blocks")
    made.save(root / "index")
    return root


@pytest.fixture
def place(first, tmp_path, retriever):
    """A copy of both, whose index follows the copied folder; the blocks of no other command."""
    shutil.copytree(first, tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / "blocks")
    shutil.rmtree(tmp_path / "index")
    with pytest.warns(RuntimeWarning, match="1 of 4 pictures"):
        made = following.build(retriever, [tmp_path / "pictures"], tmp_path / "blocks")
    made.save(tmp_path / "index", "the command")
    return tmp_path


def _ids(folder, **options):
    index = Index.load(folder, **options)
    return sorted(item.id for item in index.items(index.numbers()))


def _vector(folder, id):
    index = Index.load(folder)
    (number,) = [n for n in index.numbers() if index.items([n])[0].id == id]
    return index.engine.vectors(np.array([number]))[0]


def test_an_update_adds_encodes_again_and_drops(place, retriever, monkeypatch):
    index, pictures = place / "index", place / "pictures"
    before = _vector(index, "a.png")
    _draw(pictures / "new.png", 5)
    _draw(pictures / "a.png", 6)
    os.utime(pictures / "a.png", ns=(1, 1))
    (pictures / "b.PNG").unlink()
    encoded = []
    encode = retriever.encode
    monkeypatch.setattr(
        retriever,
        "encode",
        lambda m, files: encoded.extend(f.name for f in files) or encode(m, files),
    )
    done = following.update(index, retriever=retriever)
    assert (done.added, done.changed, done.gone) == (["new.png"], ["a.png"], ["b.PNG"])
    assert (done.broken, done.items) == ([], 3)
    assert sorted(encoded) == ["a.png", "new.png"]
    assert _ids(index) == ["a.png", "new.png", "sub/c.png"]
    assert not np.allclose(_vector(index, "a.png"), before, atol=1e-4)
    assert not (index / following.BLOCKS).exists()


def test_without_a_change_no_version_is_written(place, retriever):
    done = following.update(place / "index", retriever=retriever)
    assert [len(part) for part in done[:4]] == [0, 0, 0, 0]
    assert versions.current(place / "index") == place / "index"


@pytest.mark.slow
def test_an_index_in_milvus_is_updated_too(place, retriever):
    pytest.importorskip("milvus_lite", reason="the extra milvus is not installed")
    pictures, index = place / "pictures", place / "in_milvus"
    with pytest.warns(RuntimeWarning, match="1 of 4 pictures"):
        made = following.build(retriever, [pictures], place / "blocks", engine="milvus")
    made.save(index)
    made.index.close()
    kept = _vector(index, "sub/c.png")
    _draw(pictures / "new.png", 5)
    (pictures / "b.PNG").unlink()
    done = following.update(index, retriever=retriever)
    assert (done.added, done.changed, done.gone) == (["new.png"], [], ["b.PNG"])
    assert _ids(index) == ["a.png", "new.png", "sub/c.png"]
    np.testing.assert_array_equal(_vector(index, "sub/c.png"), kept)
    assert following.remove(index, ["a.png"], retriever=retriever).items == 2
    assert Index.load(index).about["engine"] == "milvus"


def test_a_picture_that_breaks_is_dropped_and_named_and_one_that_is_mended_comes_back(
    place, retriever
):
    broken = place / "pictures" / "sub" / "c.png"
    broken.write_bytes(b"?")
    done = following.update(place / "index", retriever=retriever)
    assert (done.broken, done.gone, done.items) == (["sub/c.png"], [], 2)
    assert following.update(place / "index", retriever=retriever).broken == []
    _draw(broken, 1)
    assert following.update(place / "index", retriever=retriever).added == ["sub/c.png"]


def test_a_picture_added_again_replaces_its_item(place, retriever, tmp_path):
    index, other = place / "index", tmp_path / "elsewhere" / "x.png"
    _draw(other, 8)
    assert following.add(index, [other], retriever=retriever).added == [str(other)]
    _draw(other, 9)
    done = following.add(index, [other], retriever=retriever)
    assert (done.changed, done.items) == ([str(other)], 4)
    other.unlink()
    assert following.update(index, retriever=retriever).gone == [str(other)]


def test_what_was_removed_does_not_come_back_until_it_is_added(place, retriever):
    index = place / "index"
    assert following.remove(index, ["a.png"], retriever=retriever).gone == ["a.png"]
    assert following.update(index, retriever=retriever).items == 2
    done = following.add(index, [place / "pictures" / "a.png"], retriever=retriever)
    assert done.added == ["a.png"]
    assert following.update(index, retriever=retriever).items == 3


def test_a_reader_keeps_the_version_that_it_opened(place, retriever):
    index = place / "index"
    for number in range(3):
        opened, had = versions.current(index), _ids(index)
        _draw(place / "pictures" / f"new{number}.png", number)
        following.update(index, retriever=retriever)
        assert _ids(opened, pinned=True) == had
        assert len(_ids(index)) == len(had) + 1
    assert sorted(path.name for path in (index / "versions").iterdir()) == ["3", "4"]
    assert sorted(p.name for p in index.iterdir()) == [".lock", "current", "versions"]
    assert versions.command_of(versions.current(index)) == "the command"


def test_a_kill_before_the_link_changes_nothing(place, retriever, monkeypatch):
    index, had = place / "index", _ids(place / "index")
    _draw(place / "pictures" / "new.png", 5)

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(versions.os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            following.update(index, retriever=retriever)
    assert _ids(index) == had
    assert following.update(index, retriever=retriever).added == ["new.png"]
    assert len(_ids(index)) == len(had) + 1


def test_a_killed_command_goes_on(place, retriever, monkeypatch):
    monkeypatch.setattr(encoded_blocks, "AT_ONCE", 1)
    encode, seen = retriever.encode, []

    def killed(modality, files):
        if len(seen) == 2:
            raise KeyboardInterrupt
        seen.append(files[0].name)
        return encode(modality, files)

    folder, blocks = [place / "pictures"], place / "again"
    with monkeypatch.context() as patch:
        patch.setattr(retriever, "encode", killed)
        with pytest.raises(KeyboardInterrupt):
            following.build(retriever, folder, blocks)
    later = []
    monkeypatch.setattr(
        retriever, "encode", lambda m, files: later.append(files[0].name) or encode(m, files)
    )
    made = following.build(retriever, folder, blocks)
    assert len(made.index) == 3
    assert seen == ["a.png", "b.PNG"]
    assert set(later) == {"broken.jpg", "c.png"}


def test_a_broken_link_is_named_and_left_out(place, retriever):
    (place / "pictures" / "link.png").symlink_to(place / "nowhere.png")
    done = following.update(place / "index", retriever=retriever)
    assert (done.broken, done.items) == (["link.png"], 3)
    _draw(place / "nowhere.png", 3)
    assert following.update(place / "index", retriever=retriever).added == ["link.png"]


def test_a_name_that_is_not_utf8_is_named_and_left_out(place, retriever):
    odd = os.fsdecode(bytes(place / "pictures") + b"/caf\xe9.png")
    shutil.copy(place / "pictures" / "a.png", odd)
    done = following.update(place / "index", retriever=retriever)
    assert (done.broken, done.items) == ([r"caf\xe9.png"], 3)


def test_several_folders_have_ids_below_their_parent(place, retriever):
    _draw(place / "more" / "a.png", 7)
    folders = [place / "pictures", place / "more"]
    made = following.build(retriever, folders, place / "again")
    ids = {item.id for item in made.index.items(made.index.numbers())}
    assert ids == {"more/a.png", "pictures/a.png", "pictures/b.PNG", "pictures/sub/c.png"}


def test_two_updates_at_a_time_are_refused(place, retriever):
    with lock(place / "index"), pytest.raises(UserError, match="is in use by process"):
        following.update(place / "index", retriever=retriever)


@pytest.mark.parametrize(
    ("spoil", "act", "sentence"),
    [
        (lambda p: shutil.rmtree(p / "pictures"), "update", "There is no folder .*pictures: cor"),
        (
            lambda p: [f.unlink() for f in (p / "pictures").rglob("*.*")],
            "update",
            "holds no picture any more, but the index has 3 of it: mount",
        ),
        (lambda p: None, "remove none", r"holds no 'none' \(1 of 1 ids are unknown\)"),
        (lambda p: None, "remove a.png b.PNG sub/c.png", "an index cannot be empty"),
        (lambda p: None, "add none.png", "There is no picture none.png"),
        (lambda p: None, "add broken", "is not a readable picture, and nothing was added"),
    ],
)
def test_mistakes_change_nothing(place, retriever, spoil, act, sentence):
    had = _ids(place / "index")
    spoil(place)
    name, *given = act.split()
    if name == "add":
        files = [place / "pictures" / "broken.jpg" if f == "broken" else place / f for f in given]
        with pytest.raises(UserError, match=sentence.replace("picture none", ".*none")):
            following.add(place / "index", files, retriever=retriever)
    else:
        with pytest.raises(UserError, match=sentence):
            getattr(following, name)(
                place / "index", *([given] if given else []), retriever=retriever
            )
    assert _ids(place / "index") == had
    assert not (place / "index" / "versions").exists()


def test_folders_that_contain_one_another_are_refused(place, retriever):
    folders = [place / "pictures", place / "pictures" / "sub"]
    with pytest.raises(UserError, match=r"sub lies in .*pictures: give one of them"):
        following.build(retriever, folders, place / "again")


def test_the_commands(place, capsys):
    index = str(place / "index")
    _draw(place / "pictures" / "new.png", 5)
    (place / "pictures" / "bad\x1b[2J.png").write_bytes(b"?")
    assert main(["search", "update", "--index", index]) == 0
    told = capsys.readouterr()
    assert told.out == "1 added, 0 changed, 0 dropped; the index has 4 items\n"
    assert "warning: 1 of 5 pictures of" in told.err
    assert r"are left out: bad\x1b[2J.png" in told.err
    assert main(["search", "info", "--index", index]) == 0
    told = capsys.readouterr().out
    assert "4 image" in told
    assert f"follows:    {place / 'pictures'}" in told
    assert "unreadable: 2" in told
    assert main(["search", "query", "--index", index, "two dogs", "-k", "99", "--json", "-"]) == 0
    assert '"count": 4' in capsys.readouterr().out
    assert main(["search", "update", "--index", str(place / "none")]) == 2
    assert "There is no index" in capsys.readouterr().err


def test_a_program_indexes_a_folder(place, retriever, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(place / "cache"))
    library = retriever.index(place / "pictures")
    assert len(library) == 3
    assert [hit.item.id for hit in library.search(place / "pictures" / "a.png", k=1)] == ["a.png"]
    assert len(library.search("two dogs", k=50)) == 3
    _draw(place / "pictures" / "new.png", 5)
    assert len(retriever.index(place / "pictures")) == 4
    library.update()
    assert library.remove(["new.png"]).items == 3
    with pytest.raises(UserError, match=r"follows .*pictures, not .*sub: give another out"):
        retriever.index(place / "pictures" / "sub", out=library.folder)


def test_the_key_is_of_weights_and_scoring_not_of_training(retriever):
    folder, before = retriever.workdir, model_key(retriever)

    def changed(**values):
        def change(config):
            config.update_from_flattened_dict(values)
            return config

        return model_key(load_run(folder, change=change))

    assert changed(**{"train.lr": 0.5, "seed": 7, "data.pixels.flip": 0.25}) == before
    assert changed(**{"data.pixels.resample": 0}) != before


def test_pixels_of_an_older_reader_are_encoded_again(place, retriever, monkeypatch):
    monkeypatch.setattr(following, "READER", following.READER + 1)
    done = following.update(place / "index", retriever=retriever)
    assert (done.changed, done.items) == (["a.png", "b.PNG", "sub/c.png"], 3)
    assert following.update(place / "index", retriever=retriever).changed == []


def test_a_damaged_version_is_refused_with_the_command_of_the_whole_index(place, retriever):
    index = place / "index"
    _draw(place / "pictures" / "new.png", 5)
    following.update(index, retriever=retriever)
    for name in ("vectors.npy", "followed.json", "items.jsonl"):
        path = versions.current(index) / name
        whole = path.read_bytes()
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        with pytest.raises(
            UserError, match=rf"{name} does not match .* Remove {index} and .*: the"
        ):
            Index.load(index)
        with pytest.raises(UserError, match="does not match its sha256"):
            following.update(index, retriever=retriever)
        path.write_bytes(whole)
    assert len(Index.load(index, verify=True)) == 4
