"""Configurations: recipes fill them in, the command line overrides values, runs save them.

A recipe is a file ``configs/NAME.py`` with ``get_config(model="hmgr")``. It starts from ``recipe``
and sets what its data and model need; ``--config.train.lr=1e-3`` overrides a value. Keys and types
are checked, so a misspelt key is an error and not a silent default.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

from ml_collections import ConfigDict

from hmgr_jax.data.pictures.pixels import MEAN, STD
from hmgr_jax.errors import UserError
from hmgr_jax.models import defaults, properties, unknown_name

OPEN_GROUPS: Mapping[str, Any] = {
    "train.lr_factors": 1.0,
    "init": "",
    "needs": "",
    "data.vqa.banks": "",
}
"""Groups whose keys are parts of the model (or names of runs), with a value of their type."""
SCORING = (
    "model.score_step",
    "model.visual_read",
    "model.text_read",
    "model.read_top",
    "model.read_temperature",
    "model.hops",
    "model.rewrite_bank",
    "model.test_distance",
    "model.views_test",
    "model.samples_eval",
    "model.k_test",
    "model.index_test",
)
"""Hyper-parameters that shape no parameter and only say how pairs are scored: they may differ
between training and a later evaluation, where a system has them."""
# Keys that no result depends on: places of the data (its fingerprint counts), logging, reading.
_NOT_HASHED = (
    "data.root",
    "data.tfds_dir",
    "data.solids.folder",
    "data.threads",
    "data.workers",
    "train.log_steps",
    "train.save_steps",
    "train.hang_seconds",
    "eval.tile",
)
# Files that a result does depend on count by their last name, wherever they lie.
_BY_NAME = (
    "data.captions_from",
    "data.triples",
    "data.vectors",
    "data.word_graph",
    "data.vocabulary",
    "data.pieces",
    "data.object_names",
    "data.attribute_names",
    "eval.judgments",
    "init.",
    "needs.",
)


def recipe(name: str, model: str, **model_fields: Any) -> ConfigDict:
    """The configuration that recipes start from: every key there is, with its default.

    Args:
        name: the data set's name, for run folders and results.
        model: a registered system; its hyper-parameters become ``config.model.*``.
        **model_fields: hyper-parameters that differ from the system's defaults.

    Raises:
        UserError: unknown system or hyper-parameter.
    """
    known = defaults(model)
    known.pop("dtype")  # config.dtype
    for field in model_fields:
        if field not in known:
            why = unknown_name(f"hyper-parameter of {model}", field, list(known))
            raise UserError(f"The recipe {name} sets model.{field}. {why}")
    config = ConfigDict(
        {
            "name": name,
            "seed": 0,
            "dtype": "float32",
            "deterministic": False,
            "model": {"name": model, **known, **model_fields},
            "data": {
                # scan: a SCAN folder; array_record, tfds: records; pictures: files with captions;
                # cub: CUB-200; features: one vector an image and a text; modelnet: 3D objects;
                # worlds, clips, solids, questions: generated; vqa: VQA v2
                "source": "scan",
                "root": "",
                "tfds_dir": "",  # where TFDS keeps its data, if data.root is a name
                "splits": {"train": "train", "dev": "dev", "test": "test"},
                "visual": "image",  # rows of a SCAN folder are images (regions) or video (frames)
                "captions_per_image": 0,  # 0: from the files
                # a file, or one a split ({split}); "": {split}_caps.txt, or pictures as prepared
                "captions": "",
                "pictures": "",  # folder of the pictures, from data.root on
                "instances": "",  # of pictures: COCO's instances_X.json, for pmrp
                "numbered": "",  # of Karpathy's pictures: COCO's captions_X.json, for eccv and cxc
                "restval": True,  # train on Karpathy's restval too
                "corrupt": "refuse",  # refuse or skip pictures that are missing or damaged
                "pixels": {  # data/pictures/pixels.py
                    "size": 224,
                    "resize": 256,  # 0: both sides are scaled to size
                    "resample": 2,  # number of Pillow's filter: 2 bilinear, 3 bicubic
                    "train": "crop",  # crop (random, resized) or centre
                    "flip": 0.5,
                    "erase": 0.2,
                    "mean": MEAN,
                    "std": STD,
                },
                "max_words": 94,
                "buckets": (16, 24, 32, 48, 96),  # padded caption lengths
                "vocabulary": "",  # a SCAN vocabulary; empty: built from train and dev
                "pieces": "",  # folder of BERT or CLIP, whose tokenizer cuts captions into pieces
                "vectors": "none",  # none, captions (learnt), or a GloVe/word2vec text file
                "triples": "",  # gin, sckr: head, relation, tail a line; K of model.word_relations
                "word_graph": "",  # gin, sckr: neighbours of every word, instead of relations
                "captions_from": "",  # folder in Flickr8k's text layout: more training captions
                "object_names": "",  # names of detected classes, a line each: their first vectors
                "attribute_names": "",  # the same for attributes
                "batching": "rows",  # rows; groups: whole families in a batch; classes: balanced
                "threads": 2,
                "workers": 0,  # processes that read and decode instead of threads
                "features": {  # data/features/sets.py
                    "image": "",  # name of the array, with {} for the split's; "": the usual ones
                    "text": "",
                    "labels": "",
                    "valid": 0,  # number of first test pairs used as dev if there is no dev
                    "test": "rest",  # all: test keeps them
                },
                "worlds": {
                    "seed": 0,
                    "train": 2000,
                    "dev": 200,
                    "test": 400,
                    "pictures": False,
                    "features": False,  # a vector an image and a bag of words a caption as well
                    "told": "",  # a bank: its captions in place of those of relations
                },
                "clips": {"seed": 0, "train": 2000, "dev": 200, "test": 400},
                "questions": {  # about generated worlds; data/generated/worlds/questions.py
                    "seed": 0,
                    "train": 2000,
                    "dev": 200,
                    "test": 400,
                    "facts": "main",  # the bank of captions whose facts are right
                },
                "vqa": {  # data/vqa/open.py: names from data.root on; {split} is the split's own
                    "questions": "v2_OpenEnded_mscoco_{split}_questions.json",
                    "annotations": "v2_mscoco_{split}_annotations.json",
                    "features": "features/{pictures}/COCO_{pictures}_{image:012d}.jpg.npz",
                    "regions": 100,  # read of a picture, or cells of its grid
                    "answers": 3129,  # to choose from, the commonest in training
                    "answer_file": "",  # a list of them instead
                    "banks": {},  # {name: captions of COCO, or a text of one a line}
                },
                # Of 3D objects (modelnet, solids): data/shapes3d/augment.py, data/modelnet/
                "image_size": 112,  # pixels a side of a view as the model sees it
                "points": 1024,
                "faces": 1024,
                "objects": {
                    "views": 4,  # of an object at evaluation; in training two that are drawn
                    "crop": 224,  # pixels of a view that are scaled to image_size
                    "flip": 0.5,
                    "augment": True,  # random rotation and jitter in training, random crops
                    "dev": 0.05,  # of modelnet: share of train held out
                    "clouds": "",  # of modelnet: folders from data.root on; "": the usual names
                    "pictures": "",
                    "meshes": "",
                },
                "solids": {  # generated; data/generated/solids/open.py
                    "seed": 0,
                    "train": 1200,
                    "dev": 240,
                    "test": 480,
                    "views": 12,
                    "folder": "",  # where they are kept for other runs; "": in memory
                },
            },
            "train": {
                "steps": 1000,
                "batch_size": 128,
                "lr": 2e-4,
                "warmup_steps": 0,
                # step: a tenth after decay_at of the steps; steps: after that many, again and again
                "decay": "step",  # step, steps, cosine, none
                "decay_at": 0.5,
                "optimizer": "adam",
                "weight_decay": 0.0,
                "clip": 2.0,
                "unclipped": (),  # parts that clipping leaves as they are
                "plain": (),  # parts trained by plain gradient steps, without momentum or decay
                "lr_factors": {},  # {part: factor}, for instance {"words": 0.1}
                "frozen": (),  # parts that are not trained
                "stages": (),  # stretches of training, see training/optimizer.py
                "log_steps": 10,
                "eval_steps": 0,  # 0: once an epoch
                "save_steps": 0,  # steps between saves, besides every evaluation
                "max_bad_steps": 10,
                "hang_seconds": 1800,  # seconds without progress that end the process; 0: never
            },
            "eval": {
                "protocols": ("plain",),
                "dev_protocols": ("plain",),
                "select": "rsum",
                "batch_size": 256,
                "tile": 4096,
                "train_gallery": False,  # test items also search the training items, by labels
                # bank: scores of an item that is near to all training items are lowered
                "calibration": "none",
                "judgments": "",  # folder of Flickr8k's expert and crowd judgments
            },
            "needs": {},  # {name: recipe of a run that must come first, or the folder of one}
            "init": {},  # {part: workdir of a run whose best step this part starts from}
            "parallel": {"mapper": "shard_map", "devices": 0},  # 0 devices: all
        },
        convert_dict=True,
    ).lock()  # a misspelt key in a recipe is an error too
    for group in (config.train.lr_factors, config.init, config.needs, config.data.vqa.banks):
        group.unlock()
    return config


def data_name(config: ConfigDict) -> str:
    """The folder of the data, or the name of the recipe of generated data."""
    root = str(config.data.root)
    return (Path(root).resolve().name if root else "") or str(config.name)


def known_fields(model: str, **fields: Any) -> dict[str, Any]:
    """Those of the fields that are hyper-parameters of the system ``model``."""
    known = properties(model).fields
    return {name: value for name, value in fields.items() if name in known}


BY_LABEL: Mapping[str, Mapping[str, Any]] = {
    "gin": {"match": "label"},
    # Bags have no order for an LSTM, and their entries have no known meaning.
    "sckr": {"match": "label", "node_feature": "tf", "word_relations": "SC"},
}
"""Hyper-parameters of systems that match by labels, on a feature set."""


def labelled_features(name: str, model: str, **model_fields: Any) -> ConfigDict:
    """The configuration that recipes of feature sets with classes start from.

    The step is selected by mAP@50, as CDPAE, DGCPN and MRL have it. Arguments and errors are those
    of `recipe`.
    """
    config = recipe(name, model, **{**BY_LABEL.get(model, {}), **model_fields})
    config.data.source = "features"
    config.train.batch_size = 64
    config.train.lr = 1e-4
    config.train.decay = "none"
    config.eval.protocols = ("map", "plain")
    config.eval.dev_protocols = ("map",)
    config.eval.select = "mAP@50"
    return config


def plain(config: Any) -> Any:
    """The configuration as JSON-able dicts and lists."""
    if isinstance(config, ConfigDict | Mapping):
        return {str(k): plain(v) for k, v in config.items()}
    if isinstance(config, list | tuple):
        return [plain(v) for v in config]
    return config


def config_hash(config: ConfigDict | Mapping[str, Any]) -> str:
    """16 hex digits of everything a result depends on: not of places or logging."""
    kept = _hashed(plain(config))
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:16]


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """{key: (old, new)} of two plain configurations, without what is not hashed."""
    a, b = _hashed(old), _hashed(new)
    return {key: (a.get(key), b.get(key)) for key in sorted({*a, *b}) if a.get(key) != b.get(key)}


def moved(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """{key: (old, new)} of the files that two plain configurations name, where they differ."""
    a, b = flatten(old), flatten(new)
    named = [k for k in sorted({*a, *b}) if k == "data.root" or k.startswith(_BY_NAME)]
    return {k: (a.get(k), b.get(k)) for k in named if a.get(k) != b.get(k)}


def format_differences(changed: Mapping[str, tuple[Any, Any]]) -> str:
    """Differences as text: ``train.lr: 0.001 -> 0.0005; ...``."""
    return "; ".join(f"{key}: {old!r} -> {new!r}" for key, (old, new) in changed.items())


def _hashed(config: Mapping[str, Any]) -> dict[str, Any]:
    """The flat values that a result depends on."""
    values = {k: v for k, v in flatten(config).items() if k not in _NOT_HASHED}
    return {
        k: PurePath(v).name if k.startswith(_BY_NAME) and v and isinstance(v, str) else v
        for k, v in values.items()
    }


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dicts as one dict with dotted keys."""
    out: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            out |= flatten(value, f"{prefix}{key}.")
        else:
            out[f"{prefix}{key}"] = value
    return out
