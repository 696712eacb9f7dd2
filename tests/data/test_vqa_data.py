"""VQA v2 from small generated files: what is read, and what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest

from hmgr_jax.data.vqa.open import Layout, open_bank, open_vqa
from hmgr_jax.errors import FoundNonFinite, UserError
from hmgr_jax.main import main

SPLITS = {"train": "train2014", "dev": "val2014", "test": "test-dev2015"}
COUNTS = {"train": 6, "dev": 4, "test": 2}
FIRST = {"train": 100, "dev": 200, "test": 300}
SAID = ("Red", "two", "the dog")


def questions(role):
    """Two a picture, as the file has them."""
    return [
        {"question_id": 10 * FIRST[role] + n, "image_id": FIRST[role] + n // 2, "question": text}
        for n in range(COUNTS[role])
        for text in [f"What is on the left of picture {n % 2}?"]
    ]


def annotations(role):
    """Nine annotators of one mind, one of another."""
    found = []
    for n, asked in enumerate(questions(role)):
        said, other = SAID[n % 3], SAID[(n + 1) % 3]
        answers = [{"answer": said}] * 9 + [{"answer": other}]
        kind = ("other", "number", "yes/no")[n % 3]
        one = {"multiple_choice_answer": said, "answers": answers, "answer_type": kind}
        found.append({**one, "question_id": asked["question_id"], "image_id": asked["image_id"]})
    return found[::-1]  # in any order


@pytest.fixture
def root(tmp_path):
    rng = np.random.default_rng(0)
    for role, split in SPLITS.items():
        write(tmp_path / f"q_{split}.json", {"questions": questions(role)})
        if role != "test":
            write(tmp_path / f"a_{split}.json", {"annotations": annotations(role)})
        folder = tmp_path / split.replace("-dev", "")
        folder.mkdir()
        for image in {question["image_id"] for question in questions(role)}:
            regions = 2 + image % 4
            np.savez(folder / f"{image:012d}.npz", x=rng.random((5, regions), np.float32))
    images = [{"id": i, "file_name": f"{i}.jpg"} for i in (100, 101, 102, 900)]
    captions = [
        {"id": i, "image_id": i, "caption": f"a dog on picture {i}"} for i in (900, 100, 101)
    ]
    captions.append({"id": 1, "image_id": 102, "caption": "two dogs"})
    write(tmp_path / "captions.json", {"images": images, "annotations": captions})
    (tmp_path / "web.txt").write_text("a red dog\n\nthe left picture\n")
    return tmp_path


def write(path, found):
    path.write_text(json.dumps(found))


def layout(root, **changed):
    given = {
        "splits": SPLITS,
        "questions": "q_{split}.json",
        "annotations": "a_{split}.json",
        "features": "{pictures}/{image:012d}.npz",
        "regions": 4,
        "answers": 3,
        "answer_file": "",
        "banks": {"coco": "captions.json", "web": "web.txt"},
        "max_words": 10,
    }
    return Layout(root=root, **{**given, **changed})


def test_questions_pictures_and_answers(root):
    data = open_vqa(layout(root))
    assert {role: len(split) for role, split in data.splits.items()} == COUNTS
    split = data.splits["dev"]
    answers, items = split.ids["answer"], np.array([3, 0])
    assert answers == ("2", "dog", "red")  # of as many the first by alphabet
    found = split.sources["question"].gather(items)
    assert found["picture"].tolist() == [4, 3]
    assert found["question"].tolist() == [9, 6]
    assert found["n_regions"].tolist() == [3, 2]
    kept = np.load(root / "val2014" / "000000000201.npz")["x"]
    np.testing.assert_array_equal(found["regions"][0, :3], kept.T.astype(np.float16))
    assert not found["regions"][0, 3:].any()
    assert [data.vocabulary.words[k] for k in found["tokens"][0][:3]] == ["<start>", "what", "is"]
    counts = split.labels["question"][:]
    np.testing.assert_array_equal(counts[0], [1, 0, 9])
    np.testing.assert_array_equal(counts[1], [9, 1, 0])
    assert split.kinds["question"].tolist() == ["other", "number", "yes_no", "other"]
    assert split.ids["question"][0] == "2000"
    assert split.rows["answer"].tolist() == [2, 0, 1, 2]


def test_a_split_without_annotations_is_asked_all_the_same(root):
    split = open_vqa(layout(root), ("test",)).splits["test"]
    assert not split.labels
    assert not split.kinds
    assert split.sources["question"].gather(np.array([1]))["picture"].tolist() == [5]


def test_more_regions_than_are_read_are_left_out(root):
    found = open_vqa(layout(root, regions=2)).splits["train"].sources["question"].gather([0, 4])
    assert found["regions"].shape == (2, 2, 5)
    assert found["n_regions"].tolist() == [2, 2]


def test_grids_are_read_cell_by_cell(root):
    grid = np.arange(24, dtype=np.float32).reshape(1, 2, 3, 4)
    for role, split in SPLITS.items():
        for question in questions(role):
            np.save(root / split.replace("-dev", "") / f"{question['image_id']}.npy", grid)
    changed = layout(root, features="{pictures}/{image}.npy", regions=20)
    found = open_vqa(changed).splits["train"].sources["question"].gather([0])
    assert found["n_regions"].tolist() == [12]
    np.testing.assert_array_equal(found["regions"][0, 5], grid[0, :, 1, 1])


def test_answers_may_be_given(root):
    write(root / "list.json", {"dog": 0, "red": 1})
    data = open_vqa(layout(root, answer_file="list.json"))
    assert data.splits["dev"].ids["answer"] == ("dog", "red")
    np.testing.assert_array_equal(data.splits["dev"].labels["question"][:][1], [1, 0])
    assert data.splits["dev"].groups["question"].tolist() == [1, 0, 0, 1]
    for wrong in ({"dog": "one", "red": 1}, {"dog": None, "red": 1}, {"dog": 0, "red": 0}):
        write(root / "list.json", wrong)
        with pytest.raises(UserError, match="does not number answers from 0 on, each once"):
            open_vqa(layout(root, answer_file="list.json"))
    (root / "list.txt").write_text("red\n2\n")
    data = open_vqa(layout(root, answer_file="list.txt"), ("test",))
    assert data.splits["test"].ids["answer"] == ("red", "2")


def test_banks_know_whose_their_captions_are(root):
    bank = open_bank(layout(root), "coco")
    assert bank.owners.tolist() == [100, 101, 102, 900]
    assert bank.captions[3] == "a dog on picture 900"
    web = open_bank(layout(root), "web")
    assert (list(web.captions), web.owners.tolist()) == (
        ["a red dog", "the left picture"],
        [-1, -1],
    )
    with pytest.raises(UserError, match="no bank 'cc': choose from coco, web, random"):
        open_bank(layout(root), "cc")


@pytest.mark.slow
def test_a_run_from_files_answers_a_split_that_nobody_has_annotated(root):
    values = {
        "data.root": root,
        "data.vqa.questions": "q_{split}.json",
        "data.vqa.annotations": "a_{split}.json",
        "data.vqa.features": "{pictures}/{image:012d}.npz",
        "data.vqa.regions": 4,
        "data.vqa.answers": 3,
        "data.vqa.banks.coco": "captions.json",
        "model.width": 8,
        "model.layers": 1,
        "model.heads": 2,
        "model.intermediate": 8,
        "model.word_dim": 4,
        "model.index_train": "random",
        "model.k_train": 2,
        "model.k_test": 2,
        "train.steps": 2,
        "train.batch_size": 3,
    }
    flags = [f"--config.{key}={value}" for key, value in values.items()]
    recipe = Path(__file__).parents[2] / "configs" / "vqa.py"
    assert main(["main", f"--config={recipe}:mcan", f"--workdir={root / 'run'}", *flags]) == 0
    found = json.loads((root / "run" / "results.json").read_text())
    assert (found["metrics"], found["protocol"]) == ({}, "vqa")
    answers = json.loads((root / "run" / "answers.json").read_text())
    assert [one["question_id"] for one in answers] == [3000, 3001]
    assert {one["answer"] for one in answers} <= {"2", "dog", "red"}
    assert main(["main", "--mode=evaluate", "--split=dev", f"--workdir={root / 'run'}"]) == 0
    found = json.loads((root / "run" / "evaluation-dev.json").read_text())["metrics"]
    assert set(found) == {f"vqa/{kind}" for kind in ("accuracy", "other", "number", "yes_no")}


def cut(path):
    path.write_bytes(path.read_bytes()[:-20])


def without_last(path, key):
    found = json.loads(path.read_text())
    write(path, {key: found[key][:-1]})


def changed(path, key, **values):
    found = json.loads(path.read_text())
    found[key][1] |= values
    write(path, found)


BROKEN = [
    (lambda r: (r / "q_val2014.json").unlink(), "q_val2014.json cannot be read"),
    (lambda r: cut(r / "q_train2014.json"), "is not JSON .* download it again"),
    (lambda r: cut(r / "a_train2014.json"), "is not JSON .* download it again"),
    (lambda r: write(r / "q_train2014.json", {}), "holds no list 'questions'"),
    (lambda r: changed(r / "q_val2014.json", "questions", question=" "), "question 1 .* is empty"),
    (lambda r: changed(r / "q_val2014.json", "questions", question_id=2000), "repeats the id 2000"),
    (
        lambda r: changed(r / "q_val2014.json", "questions", image_id="x"),
        "image_id 'x': write a whole number",
    ),
    (
        lambda r: without_last(r / "a_val2014.json", "annotations"),
        "annotates 3 of 4 questions, not",
    ),
    (lambda r: without_last(r / "q_val2014.json", "questions"), "which the questions do not have"),
    (lambda r: changed(r / "a_val2014.json", "annotations", image_id=7), "which the questions do"),
    (lambda r: changed(r / "a_val2014.json", "annotations", answers=[]), "has 0 answers where 10"),
    (lambda r: (r / "val2014" / "000000000201.npz").unlink(), "There is no .*201.npz"),
]


@pytest.mark.parametrize(("break_it", "sentence"), BROKEN)
def test_files_that_do_not_fit_are_refused(root, break_it, sentence):
    break_it(root)
    with pytest.raises(UserError, match=sentence):
        open_vqa(layout(root))


def test_fewer_answers_than_asked_for_are_refused(root):
    with pytest.raises(UserError, match="answers is 9, but the annotations have 3 different"):
        open_vqa(layout(root, answers=9))
    write(root / "list.json", ["red", "Red."])
    with pytest.raises(UserError, match="holds an answer twice"):
        open_vqa(layout(root, answer_file="list.json"))


@pytest.mark.parametrize(
    ("array", "error", "sentence"),
    [
        (None, UserError, "cannot be read .* cut short or damaged"),
        (np.ones((6, 3), np.float32), UserError, "has 6 features per region, but .* has 5"),
        (np.ones(5, np.float32), UserError, "where floats of .features, regions. were"),
        (np.ones((5, 3), np.int64), UserError, "holds int64"),
        (np.full((5, 3), np.nan, np.float32), FoundNonFinite, "holds NaN, infinity"),
        (np.full((5, 3), 1e5, np.float32), FoundNonFinite, "more than float16 can"),
    ],
)
def test_features_that_cannot_be_used_are_refused(root, array, error, sentence):
    source = open_vqa(layout(root)).splits["train"].sources["question"]
    path = root / "train2014" / "000000000101.npz"
    if array is None:
        cut(path)
    else:
        np.savez(path, x=array)
    with pytest.raises(error, match=sentence):
        source.gather(np.array([2]))
    np.savez(path, y=1)
    with pytest.raises(UserError, match="holds no array x"):
        source.gather(np.array([2]))
