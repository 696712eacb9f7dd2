"""ResNets from files of torchvision and timm: every name has its place, nothing else passes."""

import jax
import numpy as np
import pytest
import safetensors.numpy
from torch_files import save, save_legacy, tensors

from hmgr_jax.errors import UserError
from hmgr_jax.interop import resnet
from hmgr_jax.interop.names import from_params
from hmgr_jax.layers.resnet import KINDS, ResNet
from hmgr_jax.models.pcme import PCME
from hmgr_jax.training.pretrained import pretrained, runs_and_files, untrained

TRUNKS = {  # parameters of torchvision's networks without their classifier
    "resnet18": 11_176_512,
    "resnet34": 21_284_672,
    "resnet50": 23_508_032,
    "resnet101": 42_500_160,
    "resnet152": 58_143_808,
}


def variables(kind, width=64):
    """Shapes alone."""
    picture = jax.ShapeDtypeStruct((1, 64, 64, 3), np.float32)
    net = ResNet(kind, width)
    return jax.eval_shape(lambda x: net.init(jax.random.key(0), x, None), picture)


def drawn(kind, width, seed=0):
    rng = np.random.default_rng(seed)
    found = jax.tree.map(
        lambda s: rng.standard_normal(s.shape).astype(np.float32), variables(kind, width)
    )
    return {"params": found["params"], "stats": found["stats"]}


@pytest.mark.parametrize("kind", TRUNKS)
def test_parameters_and_names(kind):
    tree = variables(kind)
    assert sum(int(np.prod(x.shape)) for x in jax.tree.leaves(tree["params"])) == TRUNKS[kind]
    bottleneck, blocks = KINDS[kind]
    names = {n for entry in resnet.names(kind) for n in entry.official}
    convolutions = 1 + sum(blocks) * (3 if bottleneck else 2) + 4  # as many norms
    leaves = jax.tree.leaves(tree)
    assert len(leaves) == 5 * (convolutions - (0 if bottleneck else 1))
    assert {"conv1.weight", "layer4.1.bn2.running_var", "layer2.0.downsample.0.weight"} <= names


@pytest.fixture(scope="module")
def official():
    """(our variables, the same as an official state_dict with a classifier) of a small network."""
    ours = drawn("resnet10", 4)
    state = from_params(resnet.names("resnet10"), ours)
    state["fc.weight"], state["fc.bias"] = np.ones((3, 32), np.float32), np.ones(3, np.float32)
    return ours, state


def assert_equal(a, b):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(x, y)


WRITERS = {"pth": save, "stream.pth": save_legacy}


@pytest.mark.parametrize("kind", [*WRITERS, "safetensors"])
def test_files(official, tmp_path, kind):
    """Of torchvision, new and old, which count batches, and of timm; all with a classifier."""
    ours, state = official
    assert state["layer2.0.conv1.weight"].shape == (8, 4, 3, 3)
    np.testing.assert_array_equal(
        state["conv1.weight"][1, 2], ours["params"]["conv1"]["kernel"][:, :, 2, 1]
    )
    path = tmp_path / f"weights.{kind}"
    if kind in WRITERS:
        counted = {**state, "bn1.num_batches_tracked": np.array(7, np.int64)}
        WRITERS[kind](path, tensors(counted, parameter="0.3" if kind == "stream.pth" else False))
    else:
        safetensors.numpy.save_file({n: np.ascontiguousarray(x) for n, x in state.items()}, path)
    found = resnet.read_backbone(path, "resnet10", ours["params"], ours["stats"])
    assert_equal(found, ours)


def test_weights_of_another_network(official, tmp_path):
    _, state = official
    path = save(tmp_path / "a.pth", tensors(state))
    other = drawn("resnet18", 4)
    sentence = r"/a\.pth does not fit resnet18: .*missing: layer1\.1\.conv1"
    with pytest.raises(UserError, match=sentence):
        resnet.read_backbone(path, "resnet18", other["params"], other["stats"])


def test_a_model_starts_from_a_file(official, tmp_path):
    ours, state = official
    path = str(save(tmp_path / "a.pth", tensors(state)))
    model = PCME(dim=4, word_dim=4, vocabulary_size=5, cnn="resnet10", cnn_width=4, picture_size=32)
    assert "resnet10 starts from random weights" in untrained(model, {})
    assert untrained(model, {"cnn": path}) == ""
    made = jax.eval_shape(model.init, jax.random.key(0))
    params, stats = pretrained(model, made.params, made.stats, {"cnn": path})
    assert_equal({"params": params["image"]["cnn"], "stats": stats["image"]["cnn"]}, ours)
    assert params["text"] == made.params["text"]
    with pytest.raises(UserError, match=r"init\.text names .*only cnn, bert, clip start from"):
        pretrained(model, params, stats, {"text": path})
    features = PCME(dim=4, word_dim=4, vocabulary_size=5, regions=2, region_dim=3)
    assert untrained(features, {}) == ""


def test_what_a_part_starts_from(tmp_path):
    file, run = tmp_path / "a", tmp_path / "run.pt"
    file.touch()
    run.mkdir()
    init = {"cnn": str(file), "image": str(run), "text": "/none", "words": ""}
    assert runs_and_files(init) == (
        {"image": str(run), "text": "/none", "words": ""},
        {"cnn": str(file)},
    )
    assert runs_and_files({"cnn": str(run)}) == ({"cnn": str(run)}, {})
    for part, place in [("cnn", "none"), *(("image", f"none.{e}") for e in ENDINGS)]:
        with pytest.raises(
            UserError, match=rf"^init\.{part} names {place}, but there is no such weight"
        ):
            runs_and_files({part: place})


ENDINGS = ("pth", "pth.tar", "pt", "safetensors")
