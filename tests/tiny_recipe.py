"""A recipe on a few generated scenes, for tests: a run of it takes seconds.

5 steps are an epoch (40 scenes by 8), 12 all, evaluated and saved after the steps 4, 8 and 12, so
that edges do not fall together.
"""

from hmgr_jax.training.config import recipe

SHAPES = {
    "dim": 8,
    "head_dim": 8,
    "cnn": "resnet10",
    "cnn_width": 4,
    "cloud_width": 4,
    "mesh_width": 4,
    "neighbours": 4,
    "views_test": 1,
}

BERT = {"bert_layers": 1, "bert_width": 8, "bert_heads": 2, "bert_intermediate": 8}
BERT |= {"bert_positions": 32}

CLIP = {f"{side}_{name}": 8 for side in ("clip", "picture") for name in ("width", "intermediate")}
CLIP |= {"clip_layers": 1, "clip_heads": 2, "picture_layers": 1, "picture_heads": 2}
CLIP |= {"picture_patch": 8}


def get_config(model="hmgr"):
    if model == "center3d":
        return _schedule(_solids())
    if model == "xtra":
        return _schedule(_questions())
    if model == "vse-told":  # what finds captions for xtra
        config = get_config("vse")
        config.data.worlds.told = "main"
        return config
    fields = {"dim": 16, "word_dim": 8, "region_dropout": 0.2, "word_dropout": 0.2}
    bags = {"image_hidden": (16,)}
    # The memory without the graphs: a tenth of the compilation.
    memory = {"slots": 8, "visual_graph": False, "text_graph": False}
    memory["memory_warmup_steps"] = 3
    heads = {"heads": 4}
    if model == "gpldan":
        fields = {"dim": 16, "gate_dim": 8}
    if model == "dxr":
        fields = {"dim": 16, **BERT}
    if model == "clip":
        fields = {"dim": 16, **CLIP}
    own = {"hmgr": memory, "racg": heads, "racg_strict": heads, "gin": bags, "sckr": bags}.get(
        model, {}
    )
    config = recipe("worlds", model, **fields, **own)
    config.data.source = "worlds"
    config.data.batching = "groups"
    config.data.buckets = (32,)  # one compilation of the step
    config.data.worlds.train, config.data.worlds.dev, config.data.worlds.test = 40, 8, 12
    config.data.worlds.features = model == "gpldan"
    config.data.worlds.pictures = model == "clip"
    config.data.pixels.size = config.data.pixels.resize = 16
    config.eval.protocols = config.eval.dev_protocols = ("worlds", "family")
    return _schedule(config)


def _solids():
    config = recipe("solids", "center3d", **SHAPES)
    config.data.source = "solids"
    config.data.image_size = config.data.objects.crop = 16
    config.data.points = 32
    config.data.faces = 320
    config.data.objects.views = 1
    config.data.solids.train, config.data.solids.dev, config.data.solids.test = 40, 12, 12
    config.data.solids.views = 2
    config.eval.protocols, config.eval.dev_protocols = ("modelnet",), ("map",)
    config.eval.select = "mAP"
    config.train.unclipped = ("centers",)
    return config


def _questions():
    sizes = {"width": 16, "layers": 1, "heads": 2, "intermediate": 16, "positions": 24}
    config = recipe("questions", "xtra", **sizes, k_train=3, k_test=2, caption_words=16)
    config.needs.finder = f"{__file__}:vse-told"
    config.data.source = "questions"
    config.data.buckets = (16,)
    config.data.questions.train, config.data.questions.dev = 40, 8
    config.data.questions.test = 12
    config.eval.protocols = config.eval.dev_protocols = ("vqa",)
    config.eval.select = "vqa/accuracy"
    return config


def _schedule(config):
    config.train.steps = 12
    config.train.batch_size = 8
    config.train.lr = 1e-3
    config.train.warmup_steps = 2
    config.train.decay = "cosine"
    config.train.log_steps = 1
    config.train.eval_steps = 4
    config.eval.batch_size = 16
    config.parallel.devices = 1
    return config
