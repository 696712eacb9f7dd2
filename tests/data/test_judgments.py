"""Flickr8k's judgments: what is read, and a sentence for everything that is wrong with a file."""

import numpy as np
import pytest
from judgment_files import CAPTIONS, CROWD, EXPERT, write_judgments

from hmgr_jax.data.text.flickr8k import image_name, read_judgments
from hmgr_jax.errors import UserError

TEXTS = {"a.jpg#0": "A dog .", "a.jpg#1": "A wet dog .", "b.jpg#0": "Two men ."}


@pytest.fixture
def folder(tmp_path):
    return write_judgments(tmp_path / "text", ["a.jpg", "b.jpg"], TEXTS)


def test_pairs_ratings_and_captions(folder):
    found = read_judgments(folder)
    assert list(found) == ["expert", "crowd"]
    expert, crowd = found["expert"], found["crowd"]
    assert expert.images == ("a.jpg",) * 3 + ("b.jpg",) * 3 + ("elsewhere.jpg",) * 3
    assert expert.captions == tuple(TEXTS) * 3
    assert expert.texts == tuple(TEXTS.values()) * 3
    np.testing.assert_array_equal(expert.ratings[:2], [[1, 1, 2], [2, 2, 3]])
    np.testing.assert_allclose(crowd.ratings[:3, 0], [0, 2 / 3, 0])
    own = [True, True, False, False, False, True, False, False, False]
    np.testing.assert_array_equal(expert.own, own)
    kept = expert.pick(expert.own)
    assert kept.captions == ("a.jpg#0", "a.jpg#1", "b.jpg#0")
    assert kept.texts[2] == "Two men ."
    np.testing.assert_array_equal(kept.ratings, expert.ratings[expert.own])


def test_one_kind_is_enough(folder):
    (folder / EXPERT).unlink()
    assert list(read_judgments(folder)) == ["crowd"]


def test_names_of_images():
    assert image_name("images/17_a.jpg") == image_name("17_a") == "17_a.jpg"


@pytest.mark.parametrize("missing", [(CAPTIONS,), (EXPERT, CROWD)])
def test_missing_files(folder, missing):
    for name in missing:
        (folder / name).unlink()
    with pytest.raises(UserError, match=r"text should hold Flickr8k\.token\.txt and at least one"):
        read_judgments(folder)


@pytest.mark.parametrize(
    ("file", "line", "sentence"),
    [
        (EXPERT, "a.jpg b.jpg#0 1 2", r"Expert.*:10 should .* three ratings from 1 to 4, it is"),
        (EXPERT, "a.jpg b.jpg#0 1 2 5", r":10 should .* three ratings from 1 to 4, it is"),
        (EXPERT, "a.jpg", ":10 should hold an image, a caption and three ratings"),
        (EXPERT, "c.jpg c.jpg#0 1 1 1", r":10 judges caption c\.jpg#0, which Flickr8k\.token"),
        (EXPERT, "a.jpg b.jpg#0 1 1 1", r":10 judges a\.jpg with b\.jpg#0 again: remove the line"),
        (EXPERT, "", ":10 is empty"),
        (CROWD, "c.jpg a.jpg#0 0.5 2 1", "Crowd.*:10 should .* the share of yes with the numbers"),
        (CROWD, "c.jpg a.jpg#0 0.5 0 0", ":10 should .* the share of yes"),
        (CROWD, "c.jpg a.jpg#0 yes 1 1", ":10 should .* the share of yes"),
        (CROWD, "c.jpg a.jpg#0 nan 1 1", ":10 should .* the share of yes"),
        (CROWD, "c.jpg a.jpg#0 0.5 1", ":10 should .* the share of yes"),
        (CAPTIONS, "no number", r"Flickr8k\.token\.txt:4 is not .name#number, tab, caption"),
        (CAPTIONS, "b.jpg#1", r"token\.txt:4 is not .name#number, tab, caption. but 'b\.jpg#1'"),
    ],
)
def test_a_broken_line_is_named(folder, file, line, sentence):
    path = folder / file
    path.write_text(path.read_text() + line + "\n" + ("x\n" if not line else ""))
    with pytest.raises(UserError, match=sentence) as found:
        read_judgments(folder)
    assert "\n" not in str(found.value)


def test_the_published_files(real_data):
    """5,664 pairs without own captions, as the captioning literature counts Flickr8k-Expert."""
    found = read_judgments(real_data / "f8k_text")
    expert, crowd = found["expert"], found["crowd"]
    assert (len(expert), len(crowd)) == (5822, 47830)
    assert int((~expert.own).sum()) == 5664
    assert int(crowd.own.sum()) == 721
    counts = np.unique(expert.ratings, return_counts=True)
    assert dict(zip(*counts, strict=True)) == {1: 9797, 2: 4997, 3: 1701, 4: 971}
    first = crowd.pick(np.arange(1))
    assert first.captions == ("1056338697_4f7d7ce270.jpg#2",)
    assert first.ratings.tolist() == [[1.0]]  # 3 yes, 0 no


def test_an_empty_file_is_refused(folder):
    (folder / "ExpertAnnotations.txt").write_text("")
    with pytest.raises(UserError, match=r"ExpertAnnotations\.txt is empty"):
        read_judgments(folder)
