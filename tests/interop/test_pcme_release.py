"""A checkpoint of PCME's release: all of it arrives, with its options, and goes out again."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest
from tiny_run import ROOT
from torch_files import save, tensors

from hmgr_jax import convert
from hmgr_jax.conversion import run_folder
from hmgr_jax.data.generated.worlds import open_worlds
from hmgr_jax.evaluation.trained_run import saved_model
from hmgr_jax.interop import pcme, state_dict
from hmgr_jax.interop.names import covers, from_params, unused
from hmgr_jax.models.pcme import PCME

OPTIONS = {
    "model": {"cnn_type": "resnet18", "embed_dim": 6, "n_samples_inference": 3},
    "criterion": {"num_samples": 5, "vib_beta": 0.25, "init_shift": 4},
    "train": {"use_fp16": True},
}


@pytest.fixture
def made(tmp_path):
    """Weights as the release would have saved them, and what is in them in our form."""
    vocabulary = open_worlds(train=4, dev=4, test=4).vocabulary
    words = tmp_path / "words.json"
    vocabulary.save(words)
    sizes = {"dim": 6, "word_dim": 4, "vocabulary_size": len(vocabulary), "picture_size": 224}
    model = PCME(**sizes, cnn="resnet18", cnn_width=2)
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    rng = np.random.default_rng(0)
    ours = jax.tree.map(
        lambda x: np.asarray(rng.uniform(0.5, 1.5, x.shape), np.float32),
        {"params": shapes.params, "stats": shapes.stats},
    )
    official = from_params(pcme.names(model.hyperparameters()), ours)
    split = "criterion."
    model_state = {n: x for n, x in official.items() if not n.startswith(split)}
    model_state["img_enc.cnn.bn1.num_batches_tracked"] = np.int64(7)
    learnt = {n.removeprefix(split): x for n, x in official.items() if n.startswith(split)}
    content = {"model": tensors(model_state), "criterion": tensors(learnt), "config": OPTIONS}
    path = save(tmp_path / "model_last.pth", content)
    return SimpleNamespace(path=path, words=words, ours=ours, official=official)


def _import(tmp_path, made, path=None):
    flags = {"weights": path or made.path, "workdir": tmp_path / "run", "vocabulary": made.words}
    flags["config"] = f"{ROOT / 'configs' / 'worlds_images.py'}:pcme"
    return convert.main(["convert", "import", *(f"--{k}={v}" for k, v in flags.items())])


def test_a_release_arrives_whole(tmp_path, made, capsys):
    assert _import(tmp_path, made) == 0
    assert "model.cnn_width=2" in capsys.readouterr().out
    saved = run_folder.read(tmp_path / "run")
    for part in ("params", "stats"):
        assert jax.tree.structure(saved.state[part]) == jax.tree.structure(made.ours[part])
        jax.tree.map(np.testing.assert_array_equal, saved.state[part], made.ours[part])
    model = saved_model(saved.meta)
    assert (model.cnn, model.dim, model.picture_size) == ("resnet18", 6, 224)
    assert (model.samples_train, model.samples_eval, model.vib_beta) == (5, 3, 0.25)
    assert (model.init_shift, model.cnn_small_stem) == (4.0, False)
    out = tmp_path / "out.safetensors"
    assert convert.main(["convert", "export", f"--workdir={tmp_path / 'run'}", f"--out={out}"]) == 0
    again = state_dict.read(out)
    assert again.keys() == made.official.keys()
    for name, x in made.official.items():
        np.testing.assert_array_equal(again[name], x, err_msg=name)


def test_weights_without_scale_and_shift_are_named(tmp_path, made, capsys):
    state = {n: x for n, x in made.official.items() if not n.startswith("criterion.")}
    path = save(tmp_path / "alone.pth", tensors(state))
    assert _import(tmp_path, made, path) == 2
    assert "missing: criterion.negative_scale, criterion.shift" in capsys.readouterr().err


def test_names_of_a_model_of_regions():
    """Without a CNN no name of one is asked for."""
    model = PCME(dim=6, word_dim=4, vocabulary_size=9, regions=3, region_dim=5)
    state = {"params": jax.eval_shape(model.init, jax.random.key(0)).params}
    names = pcme.names(model.hyperparameters())
    assert covers(names, state)
    assert unused(names, state) == []
