"""Generated worlds: scenes of coloured shapes with captions, made on the spot, no files needed.

    hmgr-jax train --config worlds          or worlds:SYSTEM

Systems: hmgr, vse, imram, scan, racg, racg_strict, resg, pcme, dxr, gin, sckr, gpldan, xtra. A run
takes minutes of a laptop.

``:gin`` and ``:sckr`` read captions as bags of words. ``:gpldan`` reads the worlds as a feature set
(``data.worlds.features``): one vector per image, the bag of words of a caption; a scene of the same
kind is relevant, one of eight by its most frequent shape.

``:xtra`` answers questions about the scenes, with captions of sibling scenes that a retriever
finds. The retriever is trained first, in WORKDIR/needs, on such captions (``:dxr-told``,
``:vse-told``).
"""

from ml_collections import ConfigDict

from hmgr_jax.models import properties
from hmgr_jax.training.config import known_fields, recipe
from hmgr_jax.training.recipe_parts import (
    RESG,
    SMALL_BERT,
    SMALL_GIN,
    SMALL_PCME,
    use_adamp,
    use_adamw,
)

STEPS = 800
TOLD = "-told"
CLASSES = 64  # 8 shapes in 8 colours
HMGR = {
    "region_embedding": "mlp",
    "region_hidden": 256,
    "graph_layers": 1,
    "graph_gate": True,
    "boxes": True,
}
OF_MODEL = {
    "hmgr": HMGR,
    "vse": HMGR,
    "dxr": {**SMALL_BERT, "region_embedding": "mlp", "region_hidden": 256},
    "gin": SMALL_GIN,
    "sckr": SMALL_GIN,
    "racg": {"object_classes": CLASSES, "text_distance": 4},
    "racg_strict": {"object_classes": CLASSES, "text_distance": 4},
    "resg": {"object_classes": CLASSES, **RESG},
    "pcme": SMALL_PCME,
}


def get_config(model: str = "hmgr") -> ConfigDict:
    """The recipe of one system on generated worlds."""
    if model == "xtra":
        return _questions()
    if model.endswith(TOLD):
        return _retriever(model.removesuffix(TOLD))
    system = properties(model)
    if system.reads == "features":
        return _feature_set(model)
    # Hinges on the hardest negative, always a sibling, fall back to their plateau.
    fields = known_fields(model, dim=128, word_dim=64, objective="infonce")
    config = recipe("worlds", model, **{**fields, **OF_MODEL.get(model, {})})
    config.data.source = "worlds"
    config.data.batching = "groups"
    config.data.buckets = (24,)
    config.data.worlds.train = 8000
    config.train.steps = STEPS
    config.train.batch_size = 128
    config.train.lr = 4e-3
    config.train.warmup_steps = 60
    config.train.decay = "cosine"
    config.train.log_steps = 20
    config.train.eval_steps = 200
    config.eval.protocols = ("worlds", "family")
    config.eval.dev_protocols = ("worlds", "family")
    if model == "hmgr":
        config.eval.calibration = "bank"
    if model == "dxr":
        use_adamw(config)
        config.train.lr = 2e-3
    if model == "pcme":
        use_adamp(config)
        config.train.steps = 3 * STEPS  # they are short
    if system.reads == "bags":
        config.data.vectors = "captions"
        config.train.lr = 2e-3
    if system.score == "pairs":  # a step's time grows with the square of the batch
        config.train.batch_size = 64
        config.train.lr = 1e-3
    return config


def _feature_set(model: str) -> ConfigDict:
    """Vectors of scenes and bags of words, selected and evaluated by kinds of scenes."""
    config = recipe("worlds", model, **known_fields(model, dim=256, gate_dim=64))
    config.data.source = "worlds"
    config.data.worlds.features = True
    config.data.buckets = (24,)
    config.train.steps = STEPS
    config.train.batch_size = 64
    config.train.lr = 1e-3
    config.train.decay = "cosine"
    config.train.log_steps = 20
    config.train.eval_steps = 100
    config.eval.protocols = ("map", "worlds")
    config.eval.dev_protocols = ("map",)
    config.eval.select = "mAP"
    return config


def _retriever(model: str) -> ConfigDict:
    """A retriever of captions that name the objects of a scene, and facts about them."""
    config = get_config(model)
    config.data.worlds.told = "main"
    config.data.batching = "rows"  # such captions are true of a scene's siblings too
    config.eval.protocols = ("worlds",)
    config.eval.dev_protocols = ("worlds",)
    return config


def _questions() -> ConfigDict:
    """XTRA on questions about the worlds, with captions that a DXR retrieves."""
    config = recipe(
        "questions",
        "xtra",
        width=64,
        layers=3,
        heads=4,
        intermediate=128,
        positions=24,
        dropout=0.0,
        head_dropout=0.0,
        k_train=4,
        k_test=4,
        caption_words=16,
    )
    config.needs.dxr = f"{__file__}:dxr{TOLD}"
    config.data.source = "questions"
    config.data.buckets = (11,)
    config.train.steps = 2000
    config.train.batch_size = 32
    config.train.lr = 1e-3
    config.train.warmup_steps = 200
    config.train.decay = "cosine"
    config.train.log_steps = 50
    config.train.eval_steps = 500
    config.eval.protocols = ("vqa",)
    config.eval.dev_protocols = ("vqa",)
    config.eval.select = "vqa/accuracy"
    return config
