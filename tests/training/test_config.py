"""What a configuration's hash and differences see, and how values are put in."""

import json
import shutil

import pytest
from contract_cases import CAPTIONED
from ml_collections import ConfigDict
from tiny_run import ROOT, WORLDS, config

from hmgr_jax.errors import UserError
from hmgr_jax.models import list_models, properties
from hmgr_jax.training import config as configs
from hmgr_jax.training import recipe_file
from hmgr_jax.training.check import check


@pytest.mark.parametrize(
    "options",
    [
        {"data__root": "/elsewhere"},
        {"data__threads": 4},
        {"train__log_steps": 7},
        {"train__save_steps": 7},
        {"train__hang_seconds": 7},
        {"eval__tile": 7},
    ],
)
def test_the_hash_leaves_out_places_and_logging(options):
    assert configs.config_hash(config(**options)) == configs.config_hash(config())


@pytest.mark.parametrize(
    "options",
    [
        {"seed": 1},
        {"model__margin": 0.3},
        {"model": "hmgr"},
        {"data__worlds__seed": 1},
        {"data__vectors": "captions"},
        {"train__lr": 0.1},
        {"train__lr_factors__words": 0.1},
        {"init__image": "runs/a"},
        {"eval__protocols": "plain"},
        {"dtype": "bfloat16"},
    ],
)
def test_the_hash_sees_what_results_depend_on(options):
    assert configs.config_hash(config(**options)) != configs.config_hash(config())


def test_files_count_by_their_name():
    def hash_of(**options):
        return configs.config_hash(config(**options))

    assert hash_of(data__vectors="/a/glove.txt") == hash_of(data__vectors="/b/glove.txt")
    assert hash_of(data__vectors="/a/glove.txt") != hash_of(data__vectors="/a/w2v.txt")
    assert hash_of(init__image="/a/one") == hash_of(init__image="/b/one")


def test_the_hash_survives_json():
    """A checkpoint holds lists where the recipe had tuples."""
    saved = json.loads(json.dumps(configs.plain(config())))
    assert configs.config_hash(saved) == configs.config_hash(config())
    assert configs.differences(saved, configs.plain(config())) == {}


def test_differences():
    old, new = (configs.plain(config(**o)) for o in ({}, {"train__lr": 0.5, "data__root": "x"}))
    assert configs.differences(old, new) == {"train.lr": (0.001, 0.5)}
    assert configs.format_differences({"train.lr": (0.001, 0.5), "a": (1, None)}) == (
        "train.lr: 0.001 -> 0.5; a: 1 -> None"
    )


def test_values_keep_their_types():
    found = recipe_file.load(
        f"{WORLDS}:hmgr",
        {
            "train.lr": "1",
            "train.steps": "1_000",
            "deterministic": None,
            "model.visual_graph": "False",
            "data.buckets": "(16, 40)",
            "eval.protocols": "plain, family",
            "train.frozen": "words",
            "train.lr_factors.words": "0.5",
            "init.text": "runs/a:b",
            "data.root": "",
            "model.memory_warmup_steps": "-1",
            "name": "my=worlds",
        },
    )
    assert (found.train.lr, type(found.train.lr)) == (1.0, float)
    assert (found.train.steps, found.deterministic, found.model.visual_graph) == (1000, True, False)
    assert (found.data.buckets, found.eval.protocols) == ((16, 40), ("plain", "family"))
    assert (found.train.frozen, dict(found.train.lr_factors)) == (("words",), {"words": 0.5})
    assert (dict(found.init), found.name) == ({"text": "runs/a:b"}, "my=worlds")
    assert found.model.memory_warmup_steps == -1
    empty = recipe_file.load(f"{ROOT}/configs/features.py:sckr", {"model.image_hidden": "8,4"})
    assert empty.model.image_hidden == (8, 4)  # none in the preset


def test_a_recipe_is_found_by_its_name_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = ROOT / "configs" / "worlds.py"
    assert recipe_file.load("worlds:imram", {}) == recipe_file.load(f"{file}:imram", {})
    with pytest.raises(UserError, match=r"no recipe 'wolrds': .* or one of clips, coco, "):
        recipe_file.load("wolrds", {})


def test_the_hash_does_not_depend_on_where_a_recipe_lies(tmp_path):
    moved = shutil.copy(ROOT / "configs" / "worlds.py", tmp_path / "worlds.py")
    found, packaged = recipe_file.load(f"{moved}:xtra", {}), recipe_file.load("worlds:xtra", {})
    assert found.needs.dxr == f"{moved}:dxr-told"
    assert configs.config_hash(found) == configs.config_hash(packaged)
    assert recipe_file.load(found.needs.dxr, {}).model.name == "dxr"


@pytest.mark.parametrize(
    ("recipe", "name", "model"),
    [
        ("features", "features", "gpldan"),
        ("features:pascal", "pascal", "gpldan"),
        ("features:gin-nuswide", "nuswide", "gin"),
        ("features:sckr-xmedia", "xmedia", "sckr"),
        ("modelnet", "modelnet40", "center3d"),
        ("modelnet:center3d-10", "modelnet10", "center3d"),
    ],
)
def test_a_recipe_with_a_choice_has_the_name_of_the_set(recipe, name, model):
    found = recipe_file.load(recipe, {})
    assert (found.name, found.model.name) == (name, model)


@pytest.mark.parametrize("recipe", ["features:gin-paskal", "modelnet:center3d-20"])
def test_a_choice_that_a_recipe_lacks_raises(recipe):
    with pytest.raises(UserError, match=r"no feature set 'paskal'|40 or 10 classes, not 20"):
        recipe_file.load(recipe, {})


def test_a_field_that_a_system_lacks_names_the_recipe():
    with pytest.raises(UserError, match=r"The recipe clips sets model.visual. There is no hyper-p"):
        recipe_file.load("clips:imram", {})


def test_overrides_are_separated_from_flags():
    overrides, others = recipe_file.split_overrides(
        [
            "--config.a.b",
            "1",
            "--config",
            "c.py",
            "--config.d",
            "--mode=show",
            "--config.a.b=-2",
            "--config.e",
            "-3",
        ]
    )
    assert overrides == {"a.b": "-2", "d": None, "e": "-3"}
    assert others == ["--config", "c.py", "--mode=show"]


def test_the_name_of_the_model_picks_its_preset():
    by_name = recipe_file.load(WORLDS, {"model.name": "vse"})
    assert by_name == recipe_file.load(f"{WORLDS}:vse", {})
    assert by_name.model.memory == "none"


REGIONS = tuple(name for name in CAPTIONED if name != "clip")
CAPTIONS = tuple(name for name in REGIONS if name != "gpldan")
OF_RECIPES = {
    ("worlds",): (*REGIONS, "xtra"),
    ("coco", "f30k", "f8k", "kwai_ad"): CAPTIONS,
    ("clips",): ("hmgr", "vse"),
    ("msrvtt",): ("hmgr", "vse", "hmgr-1ka"),
    ("coco_images", "cub"): ("pcme", "dxr"),
    ("f8k_images", "worlds_images"): ("pcme", "dxr", "clip"),
    ("features", "wikipedia"): ("gpldan", "gin", "sckr"),
    ("modelnet", "shapes3d"): ("center3d",),
    ("vqa",): ("xtra", "mcan"),
}
"""{recipes: the systems that read their data}."""


def test_every_recipe_has_a_system():
    assert sorted(name for names in OF_RECIPES for name in names) == sorted(
        path.stem for path in (ROOT / "configs").glob("*.py")
    )


@pytest.mark.parametrize(
    ("path", "model"),
    [(name, model) for names, models in OF_RECIPES.items() for name in names for model in models],
)
def test_recipes_load_for_the_systems_that_read_their_data(path, model):
    found = recipe_file.load(f"{ROOT}/configs/{path}.py:{model}", {})
    assert found.model.name == {"mcan": "xtra"}.get(model, model.removesuffix("-1ka"))
    assert found.is_locked
    check(found)
    with pytest.raises(AttributeError):
        found.train.stpes = 3


def test_recipes_of_clips_refuse_a_system_of_images():
    for recipe in ("clips", "msrvtt"):
        with pytest.raises(UserError, match="no hyper-parameter of imram 'visual'"):
            recipe_file.load(f"{ROOT}/configs/{recipe}.py:imram", {})


def test_rejects_a_recipe_without_protocols():
    empty = config()
    empty.eval.protocols = ()
    with pytest.raises(UserError, match="must name a protocol each"):
        check(empty)


def test_recipes_see_what_systems_score_and_read():
    found = {name: properties(name)[:2] for name in list_models()}
    bags = {"gin", "sckr"}
    pairs = {"imram", "scan", "racg", "racg_strict", "resg"}
    assert {name for name, (_, reads) in found.items() if reads == "bags"} == bags
    assert {name for name, (score, _) in found.items() if score == "pairs"} == pairs
    bag_of_words = recipe_file.load("worlds:gin", {})
    assert (bag_of_words.data.vectors, bag_of_words.train.lr) == ("captions", 2e-3)


def test_paths_of_recipes_may_begin_with_the_home_of_the_user(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/me")
    (tmp_path / "own.py").write_text(
        "from hmgr_jax.training.config import recipe\n"
        "def get_config(model='vse'):\n"
        "    config = recipe('own', model)\n"
        "    config.data.root = '~/data'\n"
        "    config.init.cnn = '~/w.npz'\n"
        "    return config\n"
    )
    config = recipe_file.load(str(tmp_path / "own.py"), {"data.vocabulary": "~/v.json"})
    assert config.data.root == "/me/data"
    assert config.data.vocabulary == "/me/v.json"
    assert config.init.cnn == "/me/w.npz"


@pytest.mark.parametrize(
    ("root", "name"), [("", "tiny"), ("/data/f30k/", "f30k"), (".", "here"), ("../here", "here")]
)
def test_titles_name_the_folder_of_the_data(root, name, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert configs.data_name(ConfigDict({"name": "tiny", "data": {"root": root}})) == name
