"""CUB-200's layout: species as groups, lists of species and of pictures, and what is refused."""

import numpy as np
import pytest
from picture_files import write_picture

from hmgr_jax.data.pictures.cub import open_cub
from hmgr_jax.data.pictures.pixels import Augmentation
from hmgr_jax.data.pictures.sets import Settings
from hmgr_jax.errors import UserError

SPECIES = ["001.Crow", "002.Gull", "003.Wren", "004.Tern", "010.Rail"]
EACH = 3
SPLITS = {"train": "trainvalclasses", "dev": "seen_test_images", "test": "testclasses.txt"}
SETTINGS = Settings(augmentation=Augmentation(size=8, resize=8))


def names(species):
    return [f"{species}/{species[4:].lower()}_{k}.jpg" for k in range(EACH)]


def write_list(root, name, lines):
    (root / "cvpr2016_cub" / f"{name}.txt").write_text("\n".join(lines) + "\n", "utf-8")


@pytest.fixture
def root(tmp_path):
    everything = [name for species in SPECIES for name in names(species)]
    for i, name in enumerate(everything):
        write_picture(tmp_path / "CUB_200_2011" / "images" / name, i)
        text = tmp_path / "cvpr2016_cub" / "text_c10" / f"{name[:-4]}.txt"
        text.parent.mkdir(parents=True, exist_ok=True)
        text.write_text("".join(f"this bird {i} is black {k}\n" for k in range(10)), "utf-8")
        text.with_suffix(".h5").write_bytes(b"to be ignored")
    write_list(tmp_path, "trainvalclasses", SPECIES[:3])
    write_list(tmp_path, "testclasses", SPECIES[3:])
    write_list(tmp_path, "seen_test_images", [names(s)[0] for s in SPECIES[:3]])
    return tmp_path


def _open(root, **options):
    return open_cub(root, **{"splits": SPLITS, "settings": SETTINGS, **options})


def _refused(root, sentence, **options):
    with pytest.raises(UserError, match=sentence) as found:
        _open(root, **options)
    assert "\n" not in str(found.value)


def test_species_are_groups_and_held_out_pictures_leave_train(root):
    splits = _open(root).splits
    assert {role: len(s.sources["image"]) for role, s in splits.items()} == {
        "train": 6,
        "dev": 3,
        "test": 6,
    }
    train, dev, test = splits["train"], splits["dev"], splits["test"]
    assert train.ids["image"] == [name for s in SPECIES[:3] for name in names(s)[1:]]
    assert dev.ids["image"] == [names(s)[0] for s in SPECIES[:3]]
    assert train.groups["image"].tolist() == [0, 0, 1, 1, 2, 2]
    assert test.groups["image"].tolist() == [3, 3, 3, 9, 9, 9]
    np.testing.assert_array_equal(test.groups["text"], np.repeat(test.groups["image"], 10))
    assert train.sources["text"].captions[10].startswith("this bird 2 is")
    assert train.ids["text"][10] == "001.Crow/crow_2.jpg#0"


def test_a_split_alone_is_the_same(root):
    whole = _open(root).splits["train"]
    alone = _open(root, roles=["train"]).splits
    assert list(alone) == ["train"]
    assert alone["train"].ids == whole.ids


def test_lists_of_species_alone(root):
    splits = {"train": "trainvalclasses", "dev": "testclasses"}
    found = _open(root, splits=splits).splits
    assert len(found["train"].sources["image"]) == 9


def test_the_numbering_of_cub_gives_the_order(root):
    everything = [name for species in SPECIES for name in names(species)][::-1]
    lines = [f"{i} {name}" for i, name in enumerate(everything, 1)]
    (root / "CUB_200_2011" / "images.txt").write_text("\n".join(lines), "utf-8")
    assert _open(root).splits["train"].ids["image"][0] == "003.Wren/wren_2.jpg"
    (root / "CUB_200_2011" / "images.txt").write_text("001.Crow/crow_1.jpg", "utf-8")
    _refused(root, r"images\.txt:1 is '001\.Crow/crow_1\.jpg' where a number")


def test_without_captions(root):
    (root / "cvpr2016_cub" / "text_c10").rename(root / "texts")
    _refused(root, "holds no folder text_c10 .* unpack them there, or correct data.root")


def test_captions_of_a_picture_are_missing_or_empty(root):
    path = root / "cvpr2016_cub" / "text_c10" / "002.Gull" / "gull_1.txt"
    path.write_text("\n \n", "utf-8")
    _refused(root, r"gull_1\.txt holds no caption")
    lines = [f"{i} {name}" for i, name in enumerate(n for s in SPECIES for n in names(s))]
    (root / "images.txt").write_text("\n".join(lines), "utf-8")
    path.unlink()
    _refused(root, r"There is no .*gull_1\.txt, the captions of a picture")


def test_captions_in_an_older_encoding_are_read(root):
    path = root / "cvpr2016_cub" / "text_c10" / "002.Gull" / "gull_1.txt"
    path.write_bytes("a bird with an \xe9clat of white\n\n".encode("latin-1"))
    train = _open(root).splits["train"]
    assert "a bird with an \xe9clat of white" in train.sources["text"].captions


def test_no_such_picture(root):
    (root / "CUB_200_2011" / "images" / "001.Crow" / "crow_2.jpg").unlink()
    _refused(root, r"crow_2\.txt names 001\.Crow/crow_2\.jpg, but there is no such picture")


def test_lists_that_overlap(root):
    write_list(root, "testclasses", SPECIES[2:])
    _refused(
        root, r"testclasses\.txt:1 names 003\.Wren, which .*trainvalclasses\.txt lists for train"
    )


def test_lists_of_what_there_is_not(root):
    write_list(root, "testclasses", [SPECIES[3], "199.Dodo"])
    _refused(root, r"testclasses\.txt:2 names '199\.Dodo', which is neither a species")
    _refused(root, r"holds no valclasses\.txt", splits={"train": "valclasses"})


def test_fewer_captions(root):
    assert len(_open(root, captions_per_image=4).splits["train"]) == 24
    _refused(root, "holds 10 captions where .* asks for 11", captions_per_image=11)
