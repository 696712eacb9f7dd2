"""The command that compares with known answers: what passes, what is off, what it does not know."""

import importlib.util
import json
import shutil

import numpy as np
import plain_official
import pytest
from imram_cases import GOLDEN

from hmgr_jax import parity
from hmgr_jax.interop import known_answers

IMRAM = (
    *(f"imram_{variant}_k{steps}" for variant in ("full", "image", "text") for steps in (1, 2, 3)),
    *("imram_full_k3_memnorm", "imram_text_k3_softmax", "imram_text_k2_l2norm_wide"),
    *("imram_image_k2_nonorm", "imram_full_k2_clipped"),
)
QUICK = ("imram_text_k1", "imram_image_k2_nonorm")
"""Compiled in a few seconds."""
OUTPUTS = (
    *("image_emb", "caption_emb", "caption_vec", "scores"),
    *("loss_hard", "loss_sum", "gradnorm_hard", "gradnorm_sum"),
)
RECALL = ("sims", "i2t", "t2i")
SLOW = pytest.mark.slow


@pytest.fixture
def golden():
    """The folder of the released code's answers."""
    if not GOLDEN.is_dir():
        pytest.skip(f"known answers not found at {GOLDEN} (set HMGR_TEST_GOLDEN to a copy)")
    return GOLDEN


@pytest.fixture(scope="session")
def plain(tmp_path_factory):
    """A folder of cases that need no known answers from elsewhere."""
    folder = tmp_path_factory.mktemp("plain")
    plain_official.write(folder / "basic.npz")
    plain_official.write(folder / "weight_norm.npz", weight_norm=True)
    # By hand: of two images with two captions each, the second finds its caption at rank 1.
    sims = np.array([[0.9, 0.1, 0.2, 0.3], [0.8, 0.1, 0.7, 0.6]])
    i2t, t2i = [50.0, 100, 100, 1, 1.5], [75.0, 100, 100, 1, 1.25]
    np.savez(folder / "recall.npz", sims=sims, i2t=np.array(i2t), t2i=np.array(t2i))
    return folder


@pytest.fixture
def parity_of(capsys):
    """Run the command: (exit code, {(case, quantity): its tolerance and verdict}, errors)."""

    def run(*arguments):
        code = parity.main(["parity", *map(str, arguments)])
        out, err = capsys.readouterr()
        lines = [line.split(maxsplit=3) for line in out.splitlines()[2:]]
        return code, {(case, quantity): rest for case, quantity, _, rest in lines}, err

    return run


def _changed(path, folder, *, meta=None, **changes):
    """``folder`` with a copy of a case in it, arrays replaced by functions of them."""
    with np.load(path) as data:
        arrays = {name: data[name] for name in data.files}
    about = json.loads(str(arrays.pop("meta", "{}"))) | (meta or {})
    arrays |= {name: change(arrays.get(name)) for name, change in changes.items()}
    np.savez(folder / path.name, **({"meta": json.dumps(about)} if about else {}), **arrays)
    return folder


def _off(x):
    """With the largest number changed by one percent."""
    x = np.array(x)
    x.flat[np.argmax(np.abs(x))] *= 1.01
    return x


def _one_more(x):
    x = np.array(x)
    x.flat[0] += 1
    return x


def _verdicts(rows):
    return {quantity: rest.rpartition("|x|")[2].strip() for (_, quantity), rest in rows.items()}


# --- the released code's answers ----------------------------------------------------------------


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, marks=() if case in QUICK else SLOW) for case in IMRAM],
)
def test_imram_is_the_released_codes(golden, parity_of, case):
    code, rows, err = parity_of(golden, case)
    assert (code, err) == (0, "")
    assert rows.keys() == {(case, quantity) for quantity in OUTPUTS}


def test_recall_is_the_released_codes(golden, parity_of):
    code, rows, err = parity_of(golden, "recall_200")
    assert (code, err) == (0, "")
    assert rows.keys() == {("recall_200", quantity) for quantity in RECALL}


@pytest.mark.slow
@pytest.mark.parametrize("quantity", OUTPUTS)
def test_a_changed_answer_of_the_released_code_is_off(golden, parity_of, tmp_path, quantity):
    folder = _changed(golden / "imram_text_k1.npz", tmp_path, **{quantity: _off})
    code, rows, _ = parity_of(folder)
    assert code == 1
    assert [name for name, verdict in _verdicts(rows).items() if verdict != "yes"] == [quantity]


@pytest.mark.parametrize("quantity", RECALL)
def test_a_changed_recall_of_the_released_code_is_off(golden, parity_of, tmp_path, quantity):
    code, rows, _ = parity_of(_changed(golden / "recall_200.npz", tmp_path, **{quantity: _off}))
    assert code == 1
    assert _verdicts(rows)[quantity].startswith("NO")


def test_unknown_cases_are_named_and_the_others_checked(golden, parity_of, tmp_path):
    for name in ("imram_text_k1", "recall_200"):
        shutil.copy(golden / f"{name}.npz", tmp_path)
    _changed(golden / "dgcnn.npz", tmp_path, meta={"model": "edgeconv"})
    with np.load(golden / "modelnet10_map.npz") as data:
        np.savez(tmp_path / "modelnet10_map.npz", **{n: data[n] for n in ("image", "mesh")})
    code, rows, err = parity_of(tmp_path)
    assert code == 2
    assert {case for case, _ in rows} == {"imram_text_k1", "recall_200"}
    assert set(_verdicts(rows).values()) == {"yes"}
    first, second = err.splitlines()
    assert "dgcnn is not understood: its model is 'edgeconv'" in first
    assert "modelnet10_map is not understood: it names no model" in second


@pytest.mark.parametrize("case", ["dgcnn", "meshnet", "pcme_coco", "imram_text_k1", "recall_200"])
def test_cases_are_read_as_the_folders_own_reader_does(golden, case):
    """Weights byte by byte, whatever kinds of layers they are of."""
    spec = importlib.util.spec_from_file_location("golden", golden / "golden.py")
    theirs = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(theirs)
    meta, state, arrays = theirs.load(case, golden)
    ours = known_answers.load(golden / f"{case}.npz")
    assert ours.meta == meta
    assert [*ours.state] == [*state]
    assert all(
        ours.state[n].dtype == x.dtype and ours.state[n].tobytes() == x.tobytes()
        for n, x in state.items()
    )
    assert all(np.array_equal(ours.arrays[n], x) for n, x in arrays.items())


# --- cases of our own -----------------------------------------------------------------------------


def test_ours_are_the_plain_forms(plain, parity_of):
    """All cases of the folder; by official names and layouts, with both biases of the GRU."""
    code, rows, err = parity_of(plain)
    assert (code, err) == (0, "")
    found = {c: {q for case, q in rows if case == c} for c in ("basic", "weight_norm", "recall")}
    assert found == {"basic": {*OUTPUTS}, "weight_norm": {*OUTPUTS}, "recall": {"i2t", "t2i"}}


@pytest.mark.slow
@pytest.mark.parametrize("quantity", OUTPUTS)
@pytest.mark.parametrize("change", [_off, lambda x: x * np.nan, lambda x: x[None]])
def test_a_changed_answer_is_off(plain, parity_of, tmp_path, quantity, change):
    code, rows, _ = parity_of(_changed(plain / "basic.npz", tmp_path, **{quantity: change}))
    assert code == 1
    assert [name for name, verdict in _verdicts(rows).items() if verdict != "yes"] == [quantity]


def test_every_gradient_counts(plain, parity_of, tmp_path):
    """The one that is off is named."""
    names = known_answers.load(plain / "basic.npz").meta["grad_names"]
    for i, name in enumerate(names):

        def change(x, i=i):
            return x + (0.001 + 0.01 * x) * (np.arange(len(x)) == i)

        code, rows, _ = parity_of(_changed(plain / "basic.npz", tmp_path, gradnorm_sum=change))
        assert code == 1
        assert _verdicts(rows)["gradnorm_sum"].startswith(f"NO, {name}: ")


def test_a_wrong_number_is_reported_with_its_place(plain, parity_of, tmp_path):
    def change(x):
        return x + np.float32(0.5) * (np.arange(9).reshape(3, 3) == 5)

    _, rows, _ = parity_of(_changed(plain / "basic.npz", tmp_path, scores=change))
    found = _verdicts(rows)["scores"]
    assert found.startswith("NO, [1, 2]: ")
    ours, theirs = (float(x) for x in found.removeprefix("NO, [1, 2]: ").split(" instead of "))
    assert theirs - ours == pytest.approx(0.5, abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "still"),
    [
        ({"images": _one_more}, {"caption_emb", "caption_vec"}),
        ({"captions": lambda x: x[:, ::-1]}, {"image_emb"}),
        ({"lengths": lambda x: np.minimum(x, 3)}, {"image_emb"}),
        ({"meta": {"seed": 7}}, set()),
        ({"meta": {"steps": 1}}, {"image_emb", "caption_emb", "caption_vec"}),
        ({"meta": {"lambda_softmax": 4}}, {"image_emb", "caption_emb", "caption_vec"}),
        ({"meta": {"mode": "image_IMRAM"}}, {"image_emb", "caption_emb", "caption_vec"}),
    ],
)
def test_all_is_computed_from_the_inputs(plain, parity_of, tmp_path, changes, still):
    code, rows, _ = parity_of(_changed(plain / "basic.npz", tmp_path, **changes))
    assert code == 1
    assert {name for name, verdict in _verdicts(rows).items() if verdict == "yes"} == still


def test_padding_does_not_matter(plain, parity_of, tmp_path):
    def change(x):
        return np.where(x == 0, 7, x)

    assert parity_of(_changed(plain / "basic.npz", tmp_path, captions=change))[0] == 0


@pytest.mark.parametrize("quantity", ["i2t", "t2i"])
def test_a_changed_recall_is_off(plain, parity_of, tmp_path, quantity):
    code, rows, _ = parity_of(_changed(plain / "recall.npz", tmp_path, **{quantity: _off}))
    assert code == 1
    assert _verdicts(rows)[quantity] == f"NO, R@5: 100 instead of {101}"


def test_recall_of_other_similarities_is_off(plain, parity_of, tmp_path):
    code, _, _ = parity_of(_changed(plain / "recall.npz", tmp_path, sims=lambda x: x[:, ::-1]))
    assert code == 1
    code, rows, _ = parity_of(_changed(plain / "recall.npz", tmp_path, sims=lambda x: x * np.nan))
    assert code == 1
    assert all("every score must be finite" in verdict for verdict in _verdicts(rows).values())


def test_a_failed_case_decides_the_exit_code_over_an_unknown_one(plain, parity_of, tmp_path):
    _changed(plain / "recall.npz", tmp_path, i2t=_off)
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04")
    code, rows, err = parity_of(tmp_path)
    assert code == 1
    assert len(rows) == 2
    assert "Case broken is not understood" in err


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"meta": {"model": "resnet"}}, "its model is 'resnet', and only these can be checked"),
        ({"meta": {"model": None}}, "names no model and its arrays (images, captions, "),
        ({"meta": {"mode": "vse"}}, "model.variant must be one of full, text, image, got 'vse'"),
        ({"meta": {"steps": "two"}}, "steps = 'two', no int"),
        ({"meta": {"embed_dim": 6}}, "The weights are not those of this model"),
        ({"meta": {"params": [3]}}, "cannot be read as a whole case"),
        ({"meta": {"grad_names": ["fc.weight"]}}, "grad_names have fc.weight"),
        ({"attention": lambda _: np.ones(1)}, "it holds unknown outputs attention"),
        ({"lengths": lambda x: x[:2]}, "are no pairs"),
    ],
)
def test_a_case_that_is_not_understood(plain, parity_of, tmp_path, changes, said):
    code, rows, err = parity_of(_changed(plain / "basic.npz", tmp_path, **changes))
    assert (code, rows) == (2, {})
    assert err.startswith("error: Case basic is not understood: ")
    assert said in err
    assert err.count("\n") == 1


def test_a_case_without_inputs_or_outputs(plain, parity_of, tmp_path):
    with np.load(plain / "basic.npz") as data:
        arrays = {name: data[name] for name in data.files}
    inputs = {name: arrays[name] for name in ("images", "captions", "lengths", "meta")}
    np.savez(tmp_path / "mute.npz", **inputs)
    np.savez(tmp_path / "blind.npz", **{n: x for n, x in arrays.items() if n != "images"})
    code, _, err = parity_of(tmp_path)
    assert code == 2
    assert "blind is not understood: it lacks the input images" in err
    assert "mute is not understood: it holds no output" in err


def test_folders_and_cases_that_do_not_exist(plain, parity_of, tmp_path):
    def sentence(*arguments):
        code, rows, err = parity_of(*arguments)
        assert (code, rows) == (2, {})
        assert err.startswith("error: ")
        assert err.count("\n") == 1
        return err

    assert "folder of known answers is missing" in sentence()
    assert "There is no folder" in sentence(tmp_path / "nowhere")
    assert "There is no .npz file" in sentence(tmp_path)
    assert "There is no case lost, other_* in" in sentence(plain, "lost", "recall", "other_*")
    assert "There is no flag" in sentence(plain, "--case=basic")


def test_cases_are_named_by_patterns_too(plain, parity_of):
    code, rows, _ = parity_of(plain, "re*", "recall.npz")
    assert code == 0
    assert [*rows] == [("recall", "i2t"), ("recall", "t2i")]


def test_help_shows_what_is_compared(capsys):
    assert parity.main(["parity", "--help"]) == 0
    assert "case | quantity | largest error" in capsys.readouterr().out
