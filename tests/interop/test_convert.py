"""The command: official weights to a run folder that evaluates, a run to safetensors and back."""

import argparse
import json
import shutil

import imram_cases
import jax
import numpy as np
import pytest
import safetensors
from tiny_run import ROOT, WORLDS, config, files, finished, results, run, scan_folder
from torch_files import save, tensors

from hmgr_jax import convert
from hmgr_jax.conversion import run_folder
from hmgr_jax.conversion import weights as conversion
from hmgr_jax.conversion.weights import RELEASES, Release
from hmgr_jax.data.pictures.pca import Pca
from hmgr_jax.data.text.vocabulary import Vocabulary
from hmgr_jax.evaluation.retriever import Retriever
from hmgr_jax.files.manifest import ENCODER, ENCODER_PCA
from hmgr_jax.interop import state_dict
from hmgr_jax.interop.layouts import bidirectional_gru, linear
from hmgr_jax.interop.names import our_own, same
from hmgr_jax.interop.picture_encoder import DESCRIBED
from hmgr_jax.leaves import by_name
from hmgr_jax.main import main
from hmgr_jax.training.checkpoint import Checkpoints
from hmgr_jax.training.experiment import build

POOL = "image/pool"


def _convert(verb, **flags):
    given = [f"--{k.replace('__', '.')}={v}" for k, v in flags.items()]
    return convert.main(["convert", verb, *given])


def _state(workdir):
    return run_folder.read(workdir).state


def _equal(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype
        assert x.tobytes() == y.tobytes()


def _evaluation(workdir, *more):
    assert main(["main", "--mode=evaluate", f"--workdir={workdir}", *more]) == 0
    return json.loads((workdir / "evaluation-test.json").read_text())


def _official_vse(_):
    """As if ``vse`` had a PyTorch release; its pools keep our names."""
    params = _state(finished())["params"]
    pools = {m: {"pool": params[m]["pool"]} for m in ("image", "text") if "pool" in params[m]}
    return (
        *linear("img_enc.fc", "image/regions/linear"),
        same("txt_enc.embed.weight", "text/words/vectors", words=True),
        *bidirectional_gru("txt_enc.rnn", "text/words/gru"),
        *our_own(pools),
        same("logit_scale", "no/place/for/it"),
    )


@pytest.fixture
def release(monkeypatch):
    """An official release of ``vse``."""

    def features(state):
        return {
            "image": {"regions": (6, state["img_enc.fc.weight"].shape[1]), "n_regions": ()},
            "text": {"tokens": (1,), "lengths": ()},
        }

    def options(given, state):
        return {"dim": given["embed_size"]} if "embed_size" in given else {}

    monkeypatch.setitem(RELEASES, "vse", Release(_official_vse, features, options))


@pytest.fixture
def vocabulary(tmp_path):
    path = tmp_path / "vocab.json"
    run_folder.read(finished()).vocabulary.save(path)
    return path


@pytest.fixture
def official(tmp_path, release):
    """The finished run's weights as the release would have them, in PyTorch's format."""
    out = tmp_path / "official.safetensors"
    assert _convert("export", workdir=finished(), out=out) == 0
    state = {f"module.{n}": x for n, x in state_dict.read(out).items()}
    state["module.logit_scale"] = np.ones((), np.float32)
    out.unlink()
    return save(tmp_path / "best.pth.tar", {"epoch": 3, "model": tensors(state)})


@pytest.fixture
def exported(tmp_path):
    """The finished run, exported."""
    out = tmp_path / "run.safetensors"
    assert _convert("export", workdir=finished(), out=out) == 0
    return out


def test_released_weights_evaluate_with_one_command(tmp_path, official, vocabulary, capsys):
    new = tmp_path / "runs" / "new"
    given = {"weights": official, "vocabulary": vocabulary, "workdir": new}
    assert _convert("import", **given, config=f"{WORLDS}:vse", model="vse") == 0
    said = capsys.readouterr().out
    assert f"imported:  {len(state_dict.read(official))} tensors of {official} as vse" in said
    assert "unused:    logit_scale (" in said
    assert f"evaluate:  python -m hmgr_jax.main --workdir {new} --mode=evaluate" in said
    _equal(_state(new)["params"], _state(finished())["params"])
    assert json.loads((new / "config.json").read_text())["model"]["name"] == "vse"
    found = _evaluation(new)
    assert found["metrics"] == results(finished())["metrics"]
    assert found["step"] == 0
    # It lies complete under its own name, with digests, and nothing else is left beside it.
    assert sorted(p.name for p in new.iterdir()) == [
        "checkpoints",
        "config.json",
        "digests",
        "evaluation-test.json",
    ]
    assert [p.name for p in new.parent.iterdir()] == ["new"]


def test_a_released_imram_evaluates(tmp_path, capsys):
    """From PyTorch's file, its vocabulary and a SCAN folder to recalls.

    The variant and the number of steps are those of the script, whatever the recipe says.
    """
    state = {f"module.{n}": x for n, x in imram_cases.official().items()}
    options = argparse.Namespace(model_mode="text_IMRAM", iteration_step=2, no_IMRAM_norm=True)
    weights = save(tmp_path / "best.pth.tar", {"model": tensors(state), "opt": options})
    words = Vocabulary(("<pad>", "<start>", "<end>", "<unk>", "picture", "of", "words", "0", "1"))
    words.save(tmp_path / "vocab.json")
    sizes = {"dim": imram_cases.D, "word_dim": imram_cases.WORD}
    new = tmp_path / "new"
    flags = {
        "weights": weights,
        "vocabulary": tmp_path / "vocab.json",
        "config": f"{ROOT / 'configs' / 'f30k.py'}:imram",
        **{f"config__model__{k}": v for k, v in sizes.items()},
        "config__eval__protocols": "plain",
        "config__parallel__devices": 1,
        "workdir": new,
    }
    assert _convert("import", **flags) == 0
    said = capsys.readouterr()
    assert (
        "unused:    linear_i2t.weight, linear_i2t.bias, gate_i2t.weight, gate_i2t.bias" in said.out
    )
    assert (
        f"options:   model.variant=text model.steps=2 as in {weights}, not the recipe's "
        "model.variant=full model.steps=3\n"
    ) in said.out
    assert said.err == ""
    model = run_folder.read(new).meta["config"]["model"]
    assert (model["variant"], model["steps"], model["memory_norm"]) == ("text", 2, False)
    root = scan_folder(tmp_path / "data", features=imram_cases.IN)
    found = _evaluation(new, f"--config.data.root={root}")
    assert (found["model"], found["split"]) == ("imram", "test")
    assert 0 < found["metrics"]["rsum"] < 600
    out, again = tmp_path / "a.safetensors", tmp_path / "again"
    assert _convert("export", workdir=new, out=out) == 0
    assert {n for n in state_dict.read(out) if "t2i" in n or "i2t" in n} == {
        f"{layer}_t2i.{kind}" for layer in ("linear", "gate") for kind in ("weight", "bias")
    }
    assert _convert("import", weights=out, workdir=again) == 0
    _equal(_state(again), _state(new))


def test_other_data_can_be_given_when_evaluating(tmp_path, official, vocabulary):
    new = tmp_path / "new"
    given = {"weights": official, "vocabulary": vocabulary, "workdir": new}
    assert _convert("import", **given, config=WORLDS, model="vse") == 0
    override = "--config.data.worlds.test=8"
    assert (
        _evaluation(new, override)["metrics"]
        == _evaluation(finished_copy(tmp_path), override)["metrics"]
    )


def finished_copy(tmp_path):
    return shutil.copytree(finished(), tmp_path / "copy")


@pytest.mark.parametrize("model", ["vse", pytest.param("hmgr", marks=pytest.mark.slow)])
def test_exported_weights_are_imported_exactly(tmp_path, model, capsys):
    """Memory included, without a recipe or a vocabulary."""
    out, new = tmp_path / "a.safetensors", tmp_path / "new"
    assert _convert("export", workdir=finished(model), out=out) == 0
    assert _convert("import", weights=out, workdir=new) == 0
    assert "under our own names" in capsys.readouterr().out
    a, b = run_folder.read(finished(model)), run_folder.read(new)
    _equal(a.state, b.state)
    assert (a.step, a.meta["config"], a.vocabulary) == (b.step, b.meta["config"], b.vocabulary)
    if model == "hmgr":
        assert by_name(b.state)["memory/active"]
        assert _evaluation(new)["metrics"] == results(finished(model))["metrics"]


def test_official_names_come_back_exactly(tmp_path, release, capsys):
    out, new = tmp_path / "a.safetensors", tmp_path / "new"
    assert _convert("export", workdir=finished(), out=out) == 0
    assert "tensors under their official names" in capsys.readouterr().out
    with safetensors.safe_open(out, "np") as file:
        assert {"txt_enc.rnn.bias_hh_l0", "img_enc.fc.weight"} <= set(file.keys())
        config = json.loads(file.metadata()["config"])
        words = Vocabulary.from_scan(json.loads(file.metadata()["vocabulary"]))
    assert config == run_folder.read(finished()).meta["config"]
    assert words == run_folder.read(finished()).vocabulary
    assert _convert("import", weights=out, workdir=new) == 0
    _equal(_state(new), _state(finished()))


def test_a_release_that_does_not_know_all_parameters(tmp_path, release, monkeypatch, capsys):
    known = Release(lambda _: linear("fc", "image/regions/linear"), *[lambda _: {}] * 2)
    monkeypatch.setitem(RELEASES, "vse", known)
    assert _convert("export", workdir=finished(), out=tmp_path / "a.safetensors") == 0
    assert "under our own names" in capsys.readouterr().out


def test_an_export_keeps_the_encoder_of_pictures(tmp_path):
    pca = Pca(np.arange(3, dtype=np.float32), np.eye(3, 2, dtype=np.float32))
    described = {"place": "efficientnet_lite2", **dict.fromkeys(DESCRIBED, 2)}
    described["pca"] = {"components": 2, "sha256": pca.sha256()}
    workdir = tmp_path / "run"
    shutil.copytree(finished(), workdir)
    (workdir / ENCODER).write_text(json.dumps(described))
    pca.write(workdir / ENCODER_PCA)
    assert _convert("export", workdir=workdir, out=tmp_path / "w.safetensors") == 0
    assert _convert("import", weights=tmp_path / "w.safetensors", workdir=tmp_path / "back") == 0
    back = run_folder.read(tmp_path / "back")
    assert back.encoder == described
    assert back.pca.sha256() == pca.sha256()


def test_an_export_in_the_metadata_can_be_changed(tmp_path, exported):
    new = tmp_path / "new"
    assert _convert("import", weights=exported, workdir=new, config__eval__tile=7) == 0
    assert run_folder.read(new).meta["config"]["eval"]["tile"] == 7


def test_an_import_can_be_loaded_and_started_from(tmp_path, exported):
    new = tmp_path / "new"
    assert _convert("import", weights=exported, workdir=new) == 0
    codes = Retriever.load(new).encode("text", ["a red circle"])
    np.testing.assert_array_equal(
        codes, Retriever.load(finished()).encode("text", ["a red circle"])
    )
    with Checkpoints(new / "checkpoints", read_only=True) as checkpoints:
        assert checkpoints.newest() == results(finished())["step"]


@pytest.mark.filterwarnings("always")
def test_options_of_the_script_that_differ(tmp_path, official, vocabulary, capsys):
    """The command line counts more than the script, and the script more than the recipe."""
    state = tensors(state_dict.read(official))

    def imported(name, embed_size, **flags):
        script = argparse.Namespace(embed_size=embed_size)
        path = save(tmp_path / f"{name}.pth", {"model": state, "opt": script})
        given = {"weights": path, "vocabulary": vocabulary, "config": f"{WORLDS}:vse"}
        code = _convert("import", **given, **flags, workdir=tmp_path / name)
        return code, capsys.readouterr()

    code, said = imported("same", 16)
    assert (code, said.err) == (0, "")
    assert "options:" not in said.out
    code, said = imported("file", 16, config__name="x")
    assert (code, said.err) == (0, "")
    code, said = imported("given", 32, config__model__dim=16)
    assert code == 0
    assert said.err.strip() == (
        f"warning: the command line sets model.dim=16, but {tmp_path / 'given.pth'} was trained "
        "with model.dim=32: the command line is used"
    )
    assert "options:" not in said.out
    assert run_folder.read(tmp_path / "given").meta["config"]["model"]["dim"] == 16
    code, said = imported("unfit", 32)
    assert code == 2
    assert "options:   model.dim=32 as " in said.out
    assert "misshaped: img_enc.fc.weight is float32[16, " in said.err
    assert not (tmp_path / "unfit").exists()


def test_options_that_are_not_the_scripts(tmp_path, vocabulary, capsys):
    for name, value in (("iteration_step", "many"), ("iteration_step", float("inf"))):
        state = tensors(imram_cases.official())
        path = tmp_path / "a.pth"
        save(path, {"model": state, "opt": argparse.Namespace(**{name: value})})
        recipe = f"{ROOT / 'configs' / 'f30k.py'}:imram"
        given = {"weights": path, "vocabulary": vocabulary, "config": recipe}
        said = _refused(capsys, "import", **given, workdir=tmp_path / "new")
        assert f"The options in {path} are not those of the training script (" in said


def test_imported_weights_are_started_from_elsewhere(tmp_path, exported, capsys):
    """There is no optimiser state to go on with, so the command says how they can be used."""
    new = tmp_path / "new"
    assert _convert("import", weights=exported, workdir=new) == 0
    before = files(new)
    for more in ({}, {"train__lr": 1, "train__steps": 99}):
        assert run(new, **more) == 2
        said = capsys.readouterr().err
        assert f"{new} holds imported weights without optimiser state" in said
        assert (
            f"give another --workdir and start from these weights with --config.init.PART={new}"
            in said
        )
        assert files(new).items() >= before.items()
    started = build(config(init__image=new, init__text=new)).first_state().params
    _equal(jax.device_get(started), _state(finished())["params"])


# --- refused ----------------------------------------------------------------------------------


def _refused(capsys, verb, **flags):
    assert _convert(verb, **flags) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    return said


def test_nothing_is_overwritten(tmp_path, exported, capsys):
    before = files(tmp_path)
    said = _refused(capsys, "export", workdir=finished(), out=exported)
    assert f"{exported} exists and is not overwritten" in said
    said = _refused(capsys, "import", weights=exported, workdir=tmp_path)
    assert f"{tmp_path} exists and is not overwritten" in said
    said = _refused(capsys, "import", weights=exported, workdir=exported)
    assert f"{exported} exists and is not overwritten" in said
    assert files(tmp_path) == before


def test_an_import_that_dies_leaves_nothing(tmp_path, exported, monkeypatch, capsys):
    def fail(*_):
        raise OSError(28, "No space left on device", "disk")

    monkeypatch.setattr(run_folder, "write_json_atomic", fail)
    before = files(tmp_path)
    said = _refused(capsys, "import", weights=exported, workdir=tmp_path / "new")
    assert "The system refused disk" in said
    assert files(tmp_path) == before
    assert [p.name for p in tmp_path.iterdir()] == [exported.name]


def test_a_vocabulary_of_another_size(tmp_path, official, vocabulary, capsys):
    words = Vocabulary.load(vocabulary).words
    Vocabulary((*words, "newcomer")).save(vocabulary)
    given = {"weights": official, "vocabulary": vocabulary, "workdir": tmp_path / "new"}
    said = _refused(capsys, "import", **given, config=f"{WORLDS}:vse")
    assert f"of {len(words)} words, but the vocabulary has {len(words) + 1}: give the" in said
    assert not (tmp_path / "new").exists()


def test_rejects_missing_arguments(tmp_path, official, vocabulary, exported, capsys):
    new = {"workdir": tmp_path / "new"}
    ours, theirs = new | {"weights": exported}, new | {"weights": official}
    recipe = {"config": f"{WORLDS}:vse"}
    for flags, sentence in [
        (new, "--weights is missing"),
        ({"weights": exported}, "--workdir is missing"),
        (theirs, "does not hold its recipe: give the recipe"),
        (theirs | recipe, "holds no vocabulary: give the JSON file"),
        (ours | {"model": "hmgr"}, "--model is hmgr, but the recipe is for vse"),
        (ours | {"config__model__dmi": 3}, "no configuration key 'model.dmi'"),
        (ours | {"config__model__dim": 24}, "misshaped: img_enc.fc.weight is float32[16, "),
        (ours | {"out": "x"}, "There is no flag '--out'"),
        (ours | {"weights": "/none"}, "There is no file of weights /none"),
    ]:
        assert sentence in _refused(capsys, "import", **flags)
    del RELEASES["vse"]
    said = _refused(capsys, "import", **theirs, **recipe, vocabulary=vocabulary)
    assert "There are no official names for vse, only for imram" in said
    export = {"out": tmp_path / "x.safetensors"}
    said = _refused(capsys, "export", workdir=finished(), out=tmp_path / "none" / "x.safetensors")
    assert f"there is no folder {tmp_path / 'none'}: make it" in said
    for flags, sentence in [
        (export, "--workdir is missing"),
        (export | {"workdir": "/none"}, "/none holds no checkpoints"),
        (export | {"workdir": finished(), "config__seed": 1}, "leave out --config.seed"),
    ]:
        assert sentence in _refused(capsys, "export", **flags)
    assert "choose from import, export" in _refused(capsys, "convert")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("key", ["config", "about", "vocabulary", "names", "encoder"])
def test_metadata_of_others(tmp_path, exported, key, capsys):
    found = state_dict.read_weights(exported)
    texts = ["[1, 2]", "{", "{}", "[" * 100_000 if key == "encoder" else "null"]
    for place, text in enumerate(texts):
        path = tmp_path / f"{place}.safetensors"
        state_dict.write(path, found.state, found.metadata | {key: text})
        said = _refused(capsys, "import", weights=path, workdir=tmp_path / "new")
        assert "is not what export writes" in said or "must be a JSON object" in said


def test_help_shows_the_options_of_a_conversion(capsys):
    assert convert.main(["convert"]) == convert.main(["convert", "import", "--help"]) == 0
    shown = capsys.readouterr().out
    assert "--vocabulary FILE" in shown
    assert conversion.OFFICIAL in shown
