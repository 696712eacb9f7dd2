"""Captions in JSON, JSONL and CSV as people write them."""

import json

import pytest

from hmgr_jax.data.pictures.coco_extras import read_objects
from hmgr_jax.data.text.captioned import by_split
from hmgr_jax.data.text.captions_files import LARGEST_ID, read_captions
from hmgr_jax.errors import UserError


def _read(path, text, encoding="utf-8"):
    path.write_bytes(text.encode(encoding))
    return read_captions([str(path)])[0]


def _rows(*rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def _karpathy(**image):
    image = {"filename": "a.jpg", "split": "train", "sentences": ["a dog"]} | image
    return json.dumps({"images": [image]})


def _coco(image=7, annotation=1):
    return json.dumps(
        {
            "images": [{"id": image, "file_name": "a.jpg"}],
            "annotations": [{"id": annotation, "image_id": image, "caption": "a dog"}],
        }
    )


def test_a_list_of_captions_in_jsonl_is_as_many_captions(tmp_path):
    rows = [{"image": 7, "caption": ["a  dog", "one dog runs"]}, {"image": 8.0, "caption": "b"}]
    rows += [{"image": 9, "caption": ["两只狗在打闹。", "两只狗"]}]
    found = _read(tmp_path / "c.jsonl", _rows(*rows))
    assert [image.captions for image in found] == [
        ["a dog", "one dog runs"],
        ["b"],
        rows[2]["caption"],
    ]
    assert [image.id for image in found] == ["7", "8", "9"]


@pytest.mark.parametrize(
    ("row", "part"),
    [
        ({"image": "a", "caption": ["a", "red", "ball"]}, "has the single words"),
        ({"image": "a", "caption": ["红色", "的", "狗"]}, "has the single words"),
        ({"image": "a", "caption": {"en": "a dog"}}, "has {'en': 'a dog'} for a caption"),
        ({"image": "a", "caption": ["a dog", 3]}, "has 3 for a caption"),
        ({"image": "a", "caption": []}, "lacks 'caption'"),
        ({"image": {"path": "a"}, "caption": "a dog"}, "has {'path': 'a'} for a name or id"),
        ({"image": 1.5, "caption": "a dog"}, "has 1.5 for a name or id"),
        ({"image": True, "caption": "a dog"}, "has True for a name or id"),
    ],
)
def test_rejects_rows_that_are_not_text(tmp_path, row, part):
    with pytest.raises(UserError) as error:
        _read(tmp_path / "c.jsonl", _rows({"image": "z", "caption": "a cat"}, row))
    assert f"c.jsonl:2 {part}" in str(error.value)


def test_a_string_of_sentences_is_one_caption_and_a_bom_is_skipped(tmp_path):
    found = _read(tmp_path / "k.json", _karpathy(sentences="a red ball"), "utf-8-sig")
    assert found[0].captions == ["a red ball"]


@pytest.mark.parametrize(
    ("cocoid", "names"),
    [
        (None, {}),
        ("", {}),
        ("img_0", {"cocoid": "img_0"}),
        (7.0, {"cocoid": "7", "padded": "000000000007"}),
        (10**20, {"cocoid": str(10**20), "padded": str(10**20)}),
    ],
)
def test_coco_ids_of_any_kind(tmp_path, cocoid, names):
    found = _read(tmp_path / "k.json", _karpathy(cocoid=cocoid))[0].names
    assert found == {"filename": "a.jpg", "stem": "a"} | names


def test_ids_that_do_not_fit_are_names_only(tmp_path):
    found = _read(tmp_path / "c.json", _coco(LARGEST_ID, LARGEST_ID))[0]
    assert found.names["cocoid"] == str(LARGEST_ID)
    assert list(found.caption_ids) == []
    assert list(_read(tmp_path / "d.json", _coco())[0].caption_ids) == [1]


@pytest.mark.parametrize(
    ("text", "part"),
    [
        (_coco(annotation=[3]), "annotation 0 has [3] for a name or id"),
        (_coco(image={"$oid": 1}), "image 0 has {'$oid': 1} for a name or id"),
        (_karpathy(cocoid=[1]), "image 0 has [1] for a name or id"),
        (_karpathy(filename=["a.jpg"]), "image 0 has ['a.jpg'] for a name or id"),
        (_karpathy(sentences=5), "sentence 0 has 5 for a caption"),
        (_karpathy(sentences=["a \ud83d"]), "sentence 0 has 'a \\ud83d' for a caption"),
        (_karpathy(sentences=["\ufeff"]), "sentence 0 has '\\ufeff' for a caption"),
        (_karpathy(filename="a\nb.jpg"), "image 0 has 'a\\nb.jpg' for a name or id"),
        (_karpathy(filename="\ufeffa.jpg"), "image 0 has '\\ufeffa.jpg' for a name or id"),
        (_karpathy(filename="\ud83d.jpg"), "image 0 has '\\ud83d.jpg' for a name or id"),
        ("[" * 100_000, "is not JSON"),
    ],
)
def test_rejects_ids_and_json_of_other_kinds(tmp_path, text, part):
    with pytest.raises(UserError) as error:
        _read(tmp_path / "c.json", text)
    assert part in str(error.value)


def test_rejects_object_annotations_of_an_image_without_a_number(tmp_path):
    path = tmp_path / "instances.json"
    path.write_text(json.dumps({"annotations": [{"image_id": [3], "category_id": 1}]}))
    with pytest.raises(UserError, match="category_id 1 of image"):
        read_objects(path)


def test_names_of_columns_and_splits_are_read_without_regard_to_case(tmp_path):
    found = _read(tmp_path / "c.csv", "Image,CAPTION, Split ,\na,one dog,VAL,\nb,a cat,Train,\n")
    assert [(image.id, image.split) for image in found] == [("a", "dev"), ("b", "train")]
    found = _read(tmp_path / "c.jsonl", _rows({"Image": "a", "Caption": "b", "Split": "Test"}))
    assert found[0].split == "test"


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ('image,caption\na,b\nc,"look\nd,e\nf,he says so"\n', "c.csv:3 is not CSV"),
        ('image,caption\na,b\nc,"a red\nball"\n', "line breaks are read from .jsonl"),
        ("image,caption,Caption\na,b,c\n", "c.csv:2 has two columns of the same name"),
        ("image,caption,set\na,b,train\nc,d,val\n", "names splits in the column 'set'"),
    ],
)
def test_rejects_tables_that_would_be_read_otherwise(tmp_path, text, part):
    with pytest.raises(UserError) as error:
        _read(tmp_path / "c.csv", text)
    assert part in str(error.value)


def test_a_column_of_other_values_and_captions_that_name_splits_are_kept(tmp_path):
    found = _read(tmp_path / "c.csv", "image,caption,set\na,train,train\nb,train,first\n")
    assert [(image.captions, image.split) for image in found] == [(["train"], None)] * 2
    assert list(by_split(found, dev=0, test=0.5)) == ["train", "test"]


def test_rejects_shares_where_the_file_names_the_splits(tmp_path):
    found = _read(tmp_path / "c.csv", "image,caption,split\na,one dog,val\nb,a cat,train\n")
    assert {name: len(images) for name, images in by_split(found).items()} == {"train": 1, "dev": 1}
    with pytest.raises(UserError, match=r"c.csv:2 and .* name the split .* --test 0.2 has"):
        by_split(found, test=0.2)
