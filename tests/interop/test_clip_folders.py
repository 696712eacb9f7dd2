"""CLIP and SigLIP folders: transformers' own answers, forms of files, and what is refused."""

import json
import re

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from clip_files import CONFIGS, PROCESSORS, TOWERS, WORDS, edited, written
from PIL import Image

from hmgr_jax.data.pictures.preprocessing import from_settings
from hmgr_jax.data.text.pieces import vocabulary_from_json
from hmgr_jax.errors import UserError
from hmgr_jax.interop import clip, clip_inputs, clip_weights
from hmgr_jax.layers.masking import l2n
from hmgr_jax.layers.vit import scores

KINDS = ("clip", "siglip")


def assert_equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


# --- transformers' own answers --------------------------------------------------------------------


@pytest.mark.parametrize("name", ["clip-tiny", "siglip-tiny"])
def test_folders_of_transformers_give_its_answers(name):
    """Ids of difficult sentences, pixels of pictures of all shapes, vectors and logits."""
    folder = TOWERS / name
    if not folder.is_dir():
        pytest.skip(f"no folder {folder} (set HMGR_TEST_GOLDEN to a copy of what lies beside it)")
    towers = clip.read_towers(folder)
    params = jax.tree.map(jnp.asarray, clip_weights.read_params(folder, towers))
    process = clip_inputs.read_preprocessing(folder, towers)
    with np.load(folder / "answers.npz") as data:
        answers = {key: data[key] for key in data.files}
    ids = clip_inputs.read_tokenizer(folder, towers).padded(answers["texts"].tolist())
    np.testing.assert_array_equal(ids, answers["input_ids"])

    pixels = np.stack([process(Image.fromarray(answers[f"picture{i}"])) for i in range(4)])
    grey = np.abs(pixels - answers["pixel_values"].transpose(0, 2, 3, 1)) * np.array(process.std)
    assert 255 * grey.max() < 1.0

    image, text = towers.modules()
    seen = jax.jit(image.apply)({"params": params["image"]}, jnp.asarray(pixels))
    _, vectors = jax.jit(text.apply)({"params": params["text"]}, jnp.asarray(ids))
    a, b = l2n(seen.vector), l2n(vectors)
    np.testing.assert_allclose(a, answers["image_embeds"], rtol=0, atol=1e-4)
    np.testing.assert_allclose(b, answers["text_embeds"], rtol=0, atol=1e-4)
    logits = scores(a, b, params["scale"], params.get("bias"))
    np.testing.assert_allclose(logits, answers["logits_per_image"], rtol=1e-4, atol=1e-4)


# --- forms of files -------------------------------------------------------------------------------


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture
def folder(kind, tmp_path):
    return written(tmp_path / kind, kind)[0]


def test_a_folder_in_and_out(kind, tmp_path):
    folder, params = written(tmp_path / kind, kind)
    towers = clip.read_towers(folder)
    found = clip_weights.read_params(folder, towers)
    assert jax.tree.structure(found) == jax.tree.structure(params)
    assert_equal(found, params)


def test_shards_and_half_precision(kind, tmp_path):
    """Old files also store the numbers of places."""
    folder, params = written(tmp_path / kind, kind)
    whole = folder / "model.safetensors"
    state = {
        n: x.astype(ml_dtypes.bfloat16)
        for n, x in sorted(safetensors.numpy.load_file(whole).items())
    }
    state["text_model.embeddings.position_ids"] = np.arange(7)[None]
    places = {name: f"model-{i % 3 + 1:05}-of-00003.safetensors" for i, name in enumerate(state)}
    for file in set(places.values()):
        part = {n: x for n, x in state.items() if places[n] == file}
        safetensors.numpy.save_file(part, folder / file)
    whole.unlink()
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": places}))
    found = clip_weights.read_params(folder, clip.read_towers(folder))
    half = jax.tree.map(lambda x: x.astype(ml_dtypes.bfloat16).astype(np.float32), params)
    assert_equal(found, half)

    (folder / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(
        UserError, match=r"index\.json names 3 shards, of which model-00002.* is miss"
    ):
        clip_weights.read_params(folder, clip.read_towers(folder))


def test_sizes_left_out_are_those_of_transformers():
    base = clip.towers_of({"model_type": "clip"})
    assert (base.image.patch, base.image.encoder.width, base.text.encoder.heads) == (32, 768, 8)
    assert (base.text.end, base.text.vocabulary, base.text.projection) == (49407, 49408, 512)
    two = {"vocab_size": 256_000, "hidden_size": 1152, "projection_size": 1536}
    giant = {"hidden_size": 1536, "num_attention_heads": 16, "hidden_act": "gelu_pytorch_tanh"}
    siglip = clip.towers_of({"model_type": "siglip", "text_config": two, "vision_config": giant})
    assert (siglip.text.positions, siglip.text.projection, siglip.image.patch) == (64, 1536, 16)
    assert siglip.text.encoder.epsilon == 1e-6


@pytest.mark.parametrize(("kind", "count"), [("clip", 151_277_313), ("siglip", 203_155_970)])
def test_parameters_are_those_of_the_released_base_models(kind, count):
    """CLIP's ViT-B/32 and SigLIP's base-patch16-224; every parameter has one official name."""
    towers = clip.towers_of({"model_type": kind})
    leaves = jax.tree.leaves(towers.template())
    assert sum(x.size for x in leaves) == count
    paths = [path for entry in clip_weights.names(towers) for path in entry.paths]
    assert len(paths) == len(set(paths)) == len(leaves)


@pytest.mark.parametrize(("end", "found"), [(2, None), (49407, 49407)])
def test_both_conventions_of_the_end_of_texts(end, found):
    towers = clip.towers_of({"model_type": "clip", "text_config": {"eos_token_id": end}})
    assert towers.text.end is found or towers.text.end == found


def test_first_names_of_the_settings_of_towers():
    """CLIP's first files have another name beside an incomplete one."""
    config = {"text_config": {"hidden_size": 8}, "text_config_dict": {"hidden_size": 640}}
    towers = clip.towers_of({"model_type": "clip", **config})
    assert towers.text.encoder.width == 640


def test_texts_are_cut_and_padded(folder):
    towers = clip.read_towers(folder)
    ids = clip_inputs.read_tokenizer(folder, towers).padded(
        ["two dogs", "a red dog a red dog a", ""]
    )
    theirs = [[1, 7, 8, 2, 0, 0, 0], [1, 4, 5, 6, 4, 5, 2], [1, 2, 0, 0, 0, 0, 0]]
    np.testing.assert_array_equal(ids, theirs)


def test_settings_of_tokenizers(folder):
    """A pad token with flags or in another file, no limit, and SigLIP 2's lower case."""
    towers, path = clip.read_towers(folder), folder / "tokenizer_config.json"
    edited(path, pad_token={"content": "<pad>", "lstrip": False}, model_max_length=10**30)
    assert clip_inputs.read_tokenizer(folder, towers).padded(["A"]).tolist() == [
        [1, 3, 2, 0, 0, 0, 0]
    ]
    edited(path, pad_token=None, model_max_length=5, tokenizer_class="GemmaTokenizerFast")
    (folder / "special_tokens_map.json").write_text('{"pad_token": "<end>"}')
    assert clip_inputs.read_tokenizer(folder, towers).padded(["A"]).tolist() == [[1, 4, 2, 2, 2]]


def test_a_checkpoint_can_hold_the_tokenizer(folder):
    found = clip_inputs.read_tokenizer(folder, clip.read_towers(folder))
    (folder / "tokenizer.json").unlink()
    again = vocabulary_from_json(found.saved())
    assert again.padded(["two dogs"]).tolist() == found.padded(["two dogs"]).tolist()


@pytest.mark.parametrize(
    ("settings", "size", "resize"),
    [
        ({"feature_extractor_type": "CLIPFeatureExtractor", "size": 30, "crop_size": 24}, 24, 30),
        ({"image_processor_type": "CLIPImageProcessorFast"}, 224, 224),
        ({"image_processor_type": "SiglipImageProcessor", "size": 384}, 384, None),
    ],
)
def test_settings_of_processors(settings, size, resize):
    found = from_settings(settings)
    assert (found.size, found.resize) == (size, resize)
    white = found(Image.new("L", (310, 290), 255))
    assert white.shape == (size, size, 3)
    np.testing.assert_allclose(
        white[0, 0] * np.array(found.std) + np.array(found.mean), 1.0, atol=1e-6
    )


def test_scaling_and_normalising_can_be_off():
    own = {"image_processor_type": "SiglipImageProcessor", "size": {"height": 4, "width": 4}}
    picture = Image.new("RGB", (9, 5), (51, 102, 255))
    plain = from_settings(own | {"do_normalize": False})(picture)
    np.testing.assert_allclose(plain[0, 0], [0.2, 0.4, 1.0], rtol=1e-6)
    raw = from_settings(own | {"do_normalize": False, "do_rescale": False})(picture)
    np.testing.assert_allclose(raw[3, 3], [51, 102, 255], rtol=1e-6)


def test_current_versions_save_all_processors_together(folder, kind):
    (folder / "preprocessor_config.json").unlink()
    both = {"image_processor": PROCESSORS[kind], "processor_class": "CLIPProcessor"}
    (folder / "processor_config.json").write_text(json.dumps(both))
    assert clip_inputs.read_preprocessing(folder, clip.read_towers(folder)).size == 8


# --- what is refused ------------------------------------------------------------------------------


def read_all(folder):
    towers = clip.read_towers(folder)
    clip_inputs.read_tokenizer(folder, towers)
    clip_inputs.read_preprocessing(folder, towers)
    clip_weights.read_params(folder, towers)


def sentence(folder):
    """The message of the first part that cannot be read."""
    with pytest.raises(UserError) as caught:
        read_all(folder)
    return str(caught.value)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model_type": "blip"}, "model_type is 'blip'"),
        ({"model_type": "qwen2_5_vl"}, "model_type is 'qwen2_5_vl'"),
        ({"model_type": "siglip2"}, "model_type is 'siglip2'"),
        ({"text_config": {"hidden_act": "relu"}}, "the activation 'relu'"),
        ({"text_config": {"num_attention_heads": 5}}, "5 heads do not divide a width of"),
        ({"text_config": {"vocab_size": "9"}}, "vocab_size is '9', no positive integer"),
        ({"vision_config": {"num_channels": 4}}, "num_channels is 4, not 3"),
        ({"vision_config": {"image_size": 8, "patch_size": 16}}, "a patch of 16 pixels"),
        ({"vision_config": [1]}, "vision_config is a list"),
        ({"vision_config": {"hidden_size": None}}, "hidden_size is None, no positive integer"),
    ],
)
def test_other_networks_are_refused(folder, kind, changes, said):
    for key, change in changes.items():
        old = CONFIGS[kind][key]
        new = old | change if isinstance(change, dict) else change
        edited(folder / "config.json", **{key: new})
    found = sentence(folder)
    assert found.startswith(f"{folder / 'config.json'} cannot be used (")
    assert said in found
    assert "only folders of CLIP, SigLIP and SigLIP 2 at fixed size" in found


def test_siglip_without_a_vector_of_pictures_is_refused(tmp_path):
    folder, _ = written(tmp_path / "siglip", "siglip")
    for part, setting, said in (
        ("vision", {"vision_use_head": False}, "vision_use_head is false"),
        ("text", {"projection_size": 6}, "vectors of texts have 6 numbers and those of pictures 8"),
    ):
        own = CONFIGS["siglip"][f"{part}_config"]
        edited(folder / "config.json", **CONFIGS["siglip"] | {f"{part}_config": own | setting})
        assert said in sentence(folder)


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("config.json", "config.json cannot be read (No such file"),
        ("tokenizer.json", "tokenizer.json is missing: only tokenizers in this form"),
        ("preprocessor_config.json", "preprocessor_config.json cannot be read (No such file"),
        ("model.safetensors", "lacks model.safetensors: give a folder of a CLIP or SigLIP"),
    ],
)
def test_missing_and_broken_files_are_named(folder, file, said):
    path = folder / file
    path.unlink()
    assert said in sentence(folder)
    path.write_bytes(b"\x80nothing")
    found = sentence(folder)
    assert str(path) in found
    assert "\n" not in found


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: s.pop("text_model.final_layer_norm.bias"), "missing: text_model.final_layer_no"),
        (lambda s: s.update(more=np.ones(2, np.float32)), "extra: more"),
        (
            lambda s: s.update({"text_model.final_layer_norm.bias": np.ones(9, np.float32)}),
            "misshaped: text_model.final_layer_norm.bias is float32[9] and should be [8]",
        ),
    ],
)
def test_missing_and_misshaped_tensors_are_named(folder, change, said):
    path = folder / "model.safetensors"
    state = safetensors.numpy.load_file(path)
    change(state)
    safetensors.numpy.save_file(state, path)
    found = sentence(folder)
    assert found.startswith(f"{path} does not fit the config.json beside it: ")
    assert said in found


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"image_processor_type": "BlipImageProcessor"}, "it is of the processor BlipImageProc"),
        ({"image_processor_type": None}, "it is of the processor None"),
        ({"size": {"longest_edge": 8}}, "it has the size {'longest_edge': 8}, neither"),
        ({"size": {"height": 8, "width": 9}}, "neither shortest_edge nor a square"),
        ({"do_resize": False}, "it has no do_resize"),
        ({"do_pad": True}, "it has do_pad"),
        ({"resample": 9}, "resample is 9"),
        ({"image_std": [0.5, 0.5]}, "are not three numbers each"),
        ({"size": {"shortest_edge": 8}, "do_center_crop": False}, "so pictures differ in size"),
        (
            {"size": {"shortest_edge": 6}, "do_center_crop": True, "crop_size": 8},
            "a crop of 8 pixels from a side of 6",
        ),
        (
            {"size": {"shortest_edge": 9}, "do_center_crop": True, "crop_size": 9},
            "it makes 9 pixels for a tower of 8",
        ),
    ],
)
def test_other_processors_are_refused(folder, changes, said):
    edited(folder / "preprocessor_config.json", **changes)
    found = sentence(folder)
    assert found.startswith(f"{folder / 'preprocessor_config.json'} cannot be used (")
    assert said in found
    assert "only the processors CLIPImageProcessor and SiglipImageProcessor" in found


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"pad_token": None}, "its settings name no pad_token"),
        ({"pad_token": "<nothing>"}, "its padding token '<nothing>' is not in the vocabulary"),
    ],
)
def test_tokenizers_without_padding_are_refused(folder, settings, said):
    edited(folder / "tokenizer_config.json", **settings)
    found = sentence(folder)
    assert found.startswith(f"{folder / 'tokenizer.json'} does not fit this ")
    assert said in found


def test_a_tokenizer_of_another_network_is_refused(tmp_path):
    text = CONFIGS["clip"]["text_config"]
    folder, _ = written(tmp_path / "few", "clip", text_config=text | {"vocab_size": 5})
    assert f"it has ids up to {len(WORDS) - 1} for 5 words" in sentence(folder)
    folder, _ = written(tmp_path / "end", "clip", text_config=text | {"eos_token_id": 7})
    assert re.search(r"it does not end texts with the id 7", sentence(folder))
