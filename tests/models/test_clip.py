"""The system clip: transformers' answers from a run without training, fine-tuning, refusals."""

import shutil

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from clip_files import TOWERS, written
from PIL import Image

from hmgr_jax.convert import main as convert
from hmgr_jax.data.pipeline import Batches
from hmgr_jax.distributed.parallel import replicate, shard
from hmgr_jax.errors import UserError
from hmgr_jax.evaluation.retriever import Retriever
from hmgr_jax.interop import clip, clip_inputs, clip_weights
from hmgr_jax.models import get_model
from hmgr_jax.models.text_side import read_tokens
from hmgr_jax.search.command import main as search
from hmgr_jax.training import recipe_file
from hmgr_jax.training.experiment import build

# The tokenizers of the test cut words into letters.
pytestmark = pytest.mark.filterwarnings("ignore:the program cuts:RuntimeWarning")

KINDS = ("clip", "siglip")
SMALL = {
    "data.worlds.train": "8",
    "data.worlds.dev": "4",
    "data.worlds.test": "4",
    "train.steps": "1",
    "train.batch_size": "4",
    "parallel.devices": "1",
}


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


def answered(kind):
    """A folder with the answers of transformers."""
    folder = TOWERS / f"{kind}-tiny"
    if not folder.is_dir():
        pytest.skip(f"no folder {folder} (set HMGR_TEST_GOLDEN to a copy of what lies beside it)")
    return folder


def imported(folder, workdir, *more):
    flags = ["import", "--model", "clip", "--folder", str(folder), "--workdir", str(workdir)]
    return convert(["convert", *flags, *more])


# --- a run without training -----------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:sentence .* has .* words:RuntimeWarning")
def test_an_imported_run_gives_the_answers_of_transformers(kind, tmp_path):
    """Vectors and logits of pictures in files and of sentences; the folder is gone by then."""
    folder = shutil.copytree(answered(kind), tmp_path / "folder")
    assert imported(folder, tmp_path / "run") == 0
    with np.load(folder / "answers.npz") as data:
        answers = {key: data[key] for key in data.files}
    shutil.rmtree(folder)
    retriever = Retriever.load(tmp_path / "run")
    files = [tmp_path / f"{number}.png" for number in range(4)]
    for number, file in enumerate(files):
        Image.fromarray(answers[f"picture{number}"]).save(file)
    said = [number for number, text in enumerate(answers["texts"]) if text.strip()]
    images = retriever.encode("image", files)
    texts = retriever.encode("text", [str(answers["texts"][number]) for number in said])
    np.testing.assert_allclose(images, answers["image_embeds"], rtol=0, atol=1e-4)
    np.testing.assert_allclose(texts, answers["text_embeds"][said], rtol=0, atol=1e-4)
    params = retriever.variables.params
    logits = retriever.score(("image", images), ("text", texts))
    logits = logits * retriever.model.logit_scale(params) + params["loss"].get("bias", 0.0)
    np.testing.assert_allclose(logits, answers["logits_per_image"][:, said], rtol=0, atol=1e-4)


def test_an_imported_run_searches_pictures(kind, tmp_path):
    folder, _ = written(tmp_path / kind, kind)
    run, index = tmp_path / "run", tmp_path / "index"
    assert imported(folder, run, "--config", "worlds_images") == 0
    rng = np.random.default_rng(0)
    (tmp_path / "pictures").mkdir()
    for number in range(3):
        pixels = rng.integers(0, 255, (9, 12, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / "pictures" / f"{number}.png")
    own = ["--workdir", str(run), "--out", str(index), "--images", str(tmp_path / "pictures")]
    assert search(["search", "index", *own]) == 0
    assert search(["search", "query", "--index", str(index), "-k", "2", "a red dog"]) == 0


@pytest.mark.filterwarnings("ignore:the r:UserWarning")
def test_a_recipe_replaces_the_data_but_not_what_the_folder_set(kind, tmp_path):
    folder, _ = written(tmp_path / kind, kind)
    assert imported(folder, tmp_path / "run") == 0
    recipe = recipe_file.load("worlds_images:clip", SMALL)
    data = Retriever.load(tmp_path / "run", recipe).config.data
    assert (data.source, data.worlds.test, recipe.data.max_words) == ("worlds", 4, 94)
    assert (data.pixels.size, data.max_words, tuple(data.buckets)) == (8, 5, (7,))


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--model", "vse"], "--folder holds weights and tokens of --model clip: give that"),
        (["--vocabulary", "x.json"], "leave --weights and --vocabulary out"),
        (["--config", "worlds_images", "--config.model.clip_layers=1"], "has other sizes than"),
    ],
)
def test_rejects_an_import_that_does_not_fit(tmp_path, capsys, flags, sentence):
    folder, _ = written(tmp_path / "clip", "clip")
    assert imported(folder, tmp_path / "run", *flags) == 2
    assert sentence in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "run").exists()


# --- from a folder --------------------------------------------------------------------------------


def from_folder(folder, recipe, **more):
    given = SMALL | {"init.clip": str(folder)} | {k.replace("__", "."): v for k, v in more.items()}
    return recipe_file.load(recipe, given)


def test_a_folder_sets_sizes_tokens_pixels_and_the_objective(kind, tmp_path):
    folder, _ = written(tmp_path / kind, kind)
    config = from_folder(folder, "worlds_images:clip", data__pixels__resample="1")
    model, pixels = config.model, config.data.pixels
    assert (model.clip_kind, model.clip_width, model.picture_patch) == (kind, 8, 4)
    assert model.objective == {"clip": "infonce", "siglip": "sigmoid"}[kind]
    assert (pixels.size, pixels.resize) == (8, 8 if kind == "clip" else 0)
    assert pixels.resample == 1  # the command line counts before the folder
    assert (config.data.max_words, config.data.buckets) == (5, (7,))


@pytest.mark.parametrize("frozen", [(), ("clip",)])
def test_training_moves_all_or_the_projections_alone(kind, tmp_path, frozen):
    """Both start from the folder; rates by part are those of the optimiser."""
    folder, given = written(tmp_path / kind, kind)
    config = from_folder(folder, "worlds_images:clip", train__frozen=str(frozen))
    with config.unlocked():
        config.train.lr_factors.projections = 1.0
    start, after = stepped(build(config))
    last = "projection" if kind == "clip" else "pool"
    embed = start["image"]["clip"]["embed"]["kernel"]
    np.testing.assert_array_equal(embed, given["image"]["embed"]["kernel"])
    np.testing.assert_array_equal(start["loss"]["log_temperature"], -given["scale"])
    moved = jax.tree.map(lambda a, b: bool(np.any(a != b)), start, after)
    for side, name in (("image", last), ("text", "projection")):
        assert any(jax.tree.leaves(moved[side]["clip"][name]))
        others = {k: v for k, v in moved[side]["clip"].items() if k != name}
        assert any(jax.tree.leaves(others)) != bool(frozen)


def stepped(experiment):
    """Parameters on the host before and after the first step."""
    data, mesh = experiment.config.data, experiment.mesh
    train = experiment.data.splits["train"]
    batch = Batches(train, batch_size=4, seed=0, pad_to=1, buckets=data.buckets)[0]
    state = experiment.first_state()
    start = jax.device_get(state.params)
    step = experiment.step_function(experiment.stages()[0])
    state, report = step(
        replicate(mesh, jax.device_get(state)), None, shard(mesh, experiment.for_model(batch))
    )
    assert report["bad_total"] == 0
    return start, jax.device_get(state.params)


# --- as the text tower of other systems -----------------------------------------------------------


class Reader(nn.Module):
    """The states and the mask of a system's text tower."""

    model: object

    @nn.compact
    def __call__(self, items):
        return read_tokens(self.model, items)[:2]


SYSTEMS = [("clip", "vse"), ("clip", "imram"), ("clip", "dxr"), ("siglip", "vse")]


@pytest.mark.parametrize(("kind", "name"), SYSTEMS, ids="-".join)
def test_states_are_those_of_the_folders_text_tower(kind, name):
    """Of every word, also in a bucket that is shorter than SigLIP's texts."""
    folder = answered(kind)
    experiment = build(from_folder(folder, f"worlds:{name}", model__dim="8"))
    towers = clip.read_towers(folder)
    words, texts = clip_inputs.read_tokenizer(folder, towers), ["a photo of two dogs", "a man"]
    ids = jnp.asarray(words.padded(texts))
    lengths = np.array([len(words.encode(words.tokenize(text))) for text in texts])
    weights = jax.tree.map(jnp.asarray, clip_weights.read_params(folder, towers)["text"])
    expected, _ = jax.jit(towers.modules()[1].apply)({"params": weights}, ids)
    items = {"tokens": ids[:, : lengths.max()], "lengths": jnp.asarray(lengths)}
    own = {"clip": jax.tree.map(jnp.asarray, experiment.first_state().params["text"]["clip"])}
    found, mask = jax.jit(Reader(experiment.model).apply)({"params": own}, items)
    np.testing.assert_array_equal(mask.sum(axis=1), lengths)
    for row, length in enumerate(lengths):
        np.testing.assert_allclose(found[row, :length], expected[row, :length], rtol=0, atol=1e-5)


@pytest.mark.parametrize("frozen", [(), ("clip",)])
def test_a_frozen_text_tower_does_not_move(kind, tmp_path, frozen):
    folder, given = written(tmp_path / kind, kind)
    config = from_folder(folder, "worlds:vse", model__dim="8", train__frozen=str(frozen))
    assert config.model.text == "clip"
    start, after = stepped(build(config))
    np.testing.assert_array_equal(start["text"]["clip"]["words"], given["text"]["words"])
    moved = jax.tree.map(lambda a, b: bool(np.any(a != b)), start["text"], after["text"])
    assert any(jax.tree.leaves(moved["clip"])) != bool(frozen)
    assert all(jax.tree.leaves(moved["project"]))


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"clip_heads": 3}, "model.clip_heads must divide model.clip_width, 512, got 3"),
        ({"picture_heads": 5}, "model.picture_heads must divide model.picture_width, 768, got 5"),
        ({"clip_kind": "siglip"}, "model.dim must be model.picture_width, 768"),
        ({"picture_size": 16}, "model.picture_patch is 32 for pictures of 16 pixels"),
        ({"objective": "hinge"}, "model.objective must be one of triplet, infonce, sigmoid"),
    ],
)
def test_invalid_options_raise(options, sentence):
    with pytest.raises(UserError, match=sentence):
        get_model("clip", **options)


def test_rejects_data_without_pictures_and_folders_that_are_none(tmp_path):
    config = recipe_file.load("worlds_images:clip", SMALL | {"data.worlds.pictures": "false"})
    with pytest.raises(UserError, match="clip needs pixels of its items"):
        build(config)
    config = from_folder(tmp_path / "none", "worlds_images:clip")
    with pytest.raises(UserError, match=r"init\.clip names .*none, which holds neither"):
        build(config).first_state()
