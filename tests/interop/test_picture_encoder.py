"""Encoders of pictures: the maps of networks on a grid, their descriptions, and what is refused."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from clip_files import drawn, edited, written
from PIL import Image

from hmgr_jax.data.pictures.pca import Pca
from hmgr_jax.errors import UserError
from hmgr_jax.files.manifest import ENCODER, ENCODER_PCA
from hmgr_jax.interop import clip, clip_weights, efficientnet
from hmgr_jax.interop.names import from_params
from hmgr_jax.interop.picture_encoder import (
    DESCRIBED,
    EncodedPictures,
    Encoder,
    read_description,
    read_pca,
    write_description,
)


def random_picture(width, height, seed=0):
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return written(tmp_path_factory.mktemp("towers") / "clip", "clip")[0]


@pytest.fixture
def lite2():
    try:
        efficientnet.installed("efficientnet_lite2")
    except UserError as error:
        pytest.skip(str(error))


def adaptive_means(maps, grid):
    """PyTorch's AdaptiveAvgPool2d of [B, n, n, D], written out."""
    n = maps.shape[1]
    edges = [(i * n // grid, -(-(i + 1) * n // grid)) for i in range(grid)]
    cells = [maps[:, a:b, c:d].mean(axis=(1, 2)) for a, b in edges for c, d in edges]
    return np.stack(cells, axis=1)


def random_pca(size, kept, seed=0):
    rng = np.random.default_rng(seed)
    arrays = rng.standard_normal(size), rng.standard_normal((size, kept))
    return Pca(*(x.astype(np.float32) for x in arrays))


@pytest.mark.parametrize("kind", ["clip", "siglip"])
@pytest.mark.parametrize("grid", [1, 2, 3])
def test_patch_tokens_of_towers_are_pooled_to_the_grid(tmp_path, kind, grid):
    root, params = written(tmp_path / kind, kind)
    encoder, towers = Encoder.of(f"{kind}={root}", grid), clip.read_towers(root)
    pixels = np.stack([encoder.preprocess(random_picture(20, 12, n)) for n in range(3)])
    image = jax.tree.map(jnp.asarray, params["image"])
    tokens = towers.modules()[0].apply({"params": image}, jnp.asarray(pixels)).patches
    wanted = adaptive_means(np.asarray(tokens).reshape(3, 2, 2, -1), grid)
    np.testing.assert_allclose(encoder.regions(pixels), wanted, rtol=1e-5, atol=1e-5)


def test_boxes_are_those_of_the_part_that_is_not_cropped(folder):
    found = Encoder.of(f"clip={folder}", 2).boxes(40, 20)  # the shorter side 8, of 16 the middle
    np.testing.assert_allclose(found[0], [0.25, 0, 0.5, 0.5])
    np.testing.assert_allclose(found[3], [0.5, 0.5, 0.75, 1])


def test_roots_and_pca_follow_the_map(folder):
    plain, pca = Encoder.of(f"clip={folder}", 2), random_pca(8, 3)
    pixels = plain.preprocess(random_picture(9, 9))[None]
    x = plain.regions(pixels)
    wanted = (np.sign(x) * np.sqrt(np.abs(x)) - pca.mean) @ pca.components
    found = plain.with_pca(pca, sqrt=True).regions(pixels)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


def test_batches_run_across_groups_in_order(folder):
    encoder = Encoder.of(f"clip={folder}", 2)
    groups = [
        np.stack([encoder.preprocess(random_picture(8, 8, 10 * n + k)) for k in range(count)])
        for n, count in enumerate((1, 9, 2, 20))
    ]
    found = list(encoder.stream(groups))
    assert [len(x) for x in found] == [1, 9, 2, 20]
    np.testing.assert_allclose(
        np.concatenate(found), encoder.regions(np.concatenate(groups)), rtol=1e-6, atol=1e-6
    )


def test_a_saved_encoder_gives_the_same_features(folder, tmp_path):
    random_picture(30, 20).save(tmp_path / "a.png")
    encoder = Encoder.of(f"clip={folder}", 2, random_pca(8, 3))
    encoder.save(tmp_path)
    items = [
        EncodedPictures([tmp_path / "a.png"], one).gather(np.array([0, 0]))
        for one in (encoder, Encoder.load(tmp_path))
    ]
    jax.tree.map(np.testing.assert_array_equal, *items)
    assert items[0]["regions"].shape == (2, 4, 3)
    assert items[0]["n_regions"].tolist() == [4, 4]


@pytest.fixture
def described(tmp_path):
    """A folder with the description of an encoder."""
    found = {"place": "/old", **dict.fromkeys(DESCRIBED), "encoder": "clip", "grid": 6}
    write_description(tmp_path, found)
    return tmp_path, found


def test_the_place_of_weights_may_be_corrected(described):
    folder, found = described
    path = folder / ENCODER
    path.write_text(path.read_text().replace("/old", "/new"))
    assert read_description(folder) == found | {"place": "/new"}


@pytest.mark.parametrize(
    ("old", "new"), [('"grid": 6', '"grid": 7'), ('"grid"', '"grie"'), ('"sha256"', '"sha257"')]
)
def test_a_changed_description_is_refused(described, old, new):
    path = described[0] / ENCODER
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(UserError, match=r"encoder\.json was changed in more than its place"):
        read_description(described[0])


def test_another_pca_than_described_is_refused(tmp_path):
    random_pca(4, 2).write(tmp_path / ENCODER_PCA)
    described = {"pca": {"components": 2, "sha256": random_pca(4, 2).sha256()}}
    assert read_pca(tmp_path, described).size == 2
    random_pca(4, 2, seed=1).write(tmp_path / ENCODER_PCA)
    with pytest.raises(UserError, match=r"encoder_pca\.npz is not the PCA that encoder\.json"):
        read_pca(tmp_path, described)


@pytest.mark.parametrize("text", ["[]", "{}", "{", '{"place": null}'])
def test_another_file_in_place_of_a_description_is_refused(described, text):
    (described[0] / ENCODER).write_text(text)
    with pytest.raises(UserError, match=r"encoder\.json"):
        read_description(described[0])


def test_a_description_of_an_older_version_has_no_seal(described):
    folder, found = described
    (folder / ENCODER).write_text(json.dumps(found))
    assert read_description(folder) == found


def test_changed_files_are_refused(folder, tmp_path):
    root, _ = written(tmp_path / "clip", "clip")
    Encoder.of(f"clip={root}", 2).save(tmp_path)
    towers = clip.read_towers(root)
    state = from_params(clip_weights.names(towers), drawn(towers, seed=1))
    safetensors.numpy.save_file(state, root / "model.safetensors")
    with pytest.raises(UserError, match=r"clip=.* has other weights now than when .*safetensors"):
        Encoder.load(tmp_path)
    Encoder.of(f"clip={root}", 2).save(tmp_path)
    edited(root / "preprocessor_config.json", image_mean=[0.1, 0.2, 0.3])
    with pytest.raises(UserError, match="has other preprocessing now"):
        Encoder.load(tmp_path)
    root.rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=r"encoder\.json names an encoder .*config\.json cannot be"):
        Encoder.load(tmp_path)


@pytest.mark.parametrize(
    ("specification", "part"),
    [
        ("efficientnet", "There is no encoder 'efficientnet': choose from patches, effic"),
        ("patches=a.pth", "There is no encoder 'patches=a.pth'"),
        ("resnet50", "The encoder resnet50 names no weights: give resnet50=FILE"),
        ("resnet50=none.pth", "There is no file of weights none.pth"),
        ("clip=none", "none/config.json cannot be read"),
        ("siglip={}", "holds a clip, not a siglip: give clip=DIR"),
        ("efficientnet_lite2={}/model.safetensors", "does not fit efficientnet_lite2"),
        ("resnet50={}/model.safetensors", "does not fit resnet50"),
    ],
)
def test_rejects_specifications(folder, specification, part):
    with pytest.raises(UserError) as error:
        Encoder.of(specification.format(folder), 6)
    assert part in str(error.value)


def test_rejects_a_pca_of_another_network(folder):
    with pytest.raises(UserError, match="The PCA takes 5 features, but clip gives 8"):
        Encoder.of(f"clip={folder}", 2, random_pca(5, 2))


def test_a_pca_is_that_of_the_covariance(tmp_path):
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((500, 6)) * np.arange(1, 7) + 3).astype(np.float32)
    pca = Pca.fit(np.split(x, 5), 2)
    _, _, right = np.linalg.svd(x - x.mean(axis=0), full_matrices=False)
    np.testing.assert_allclose(np.abs(pca.components.T), np.abs(right[:2]), atol=1e-4)
    pca.write(tmp_path / "pca.npz")
    assert Pca.read(tmp_path / "pca.npz").sha256() == pca.sha256()
    with pytest.raises(UserError, match="3 rows of 6 features have at most 2 components"):
        Pca.fit([x[:3]], 3)
    (tmp_path / "pca.npz").write_bytes(b"no zip")
    with pytest.raises(UserError, match="cannot be read as"):
        Pca.read(tmp_path / "pca.npz")


@pytest.mark.slow
def test_flickr8k_features_come_out_again(real_data, lite2):
    """Boxes exactly; features as near as pictures of 128 pixels allow.

    The stored features were made from pictures of 224 pixels, of which these are reduced copies.
    """
    root = real_data / "flickr8k"
    if not root.is_dir():
        pytest.skip(f"no {root}")
    encoder = Encoder.of("efficientnet_lite2", 6, Pca.read(root / "pca.npz"))
    assert json.loads(json.dumps(encoder.describe()))["sqrt"] is True
    ids = (root / "test_ids.txt").read_text().split()[:24]
    regions, boxes = zip(
        *encoder.encode_files(root / "images" / f"{i}.jpg" for i in ids), strict=True
    )
    np.testing.assert_allclose(boxes, np.load(root / "test_boxes.npy")[:24], atol=1e-7)
    stored = np.load(root / "test_ims.npy", mmap_mode="r")[:24].astype(np.float32)
    assert np.corrcoef(np.stack(regions).reshape(-1), stored.reshape(-1))[0, 1] > 0.7
    mirrored = stored.reshape(24, 6, 6, -1)[:, :, ::-1].reshape(-1)
    assert np.corrcoef(np.stack(regions).reshape(-1), mirrored)[0, 1] < 0.5
