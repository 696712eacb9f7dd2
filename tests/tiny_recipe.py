"""A recipe on a few generated scenes, for tests: a run of it takes seconds.

5 steps are an epoch (40 scenes by 8), 12 all, evaluated and saved after the steps 4, 8 and 12, so
that edges do not fall together.
"""

from hmgr_jax.training.config import recipe


def get_config(model="hmgr"):
    fields = {"dim": 16, "word_dim": 8, "region_dropout": 0.2, "word_dropout": 0.2}
    bags = {"image_hidden": (16,)}
    # The memory without the graphs: a tenth of the compilation.
    memory = {"slots": 8, "key_dim": 8, "visual_graph": False, "text_graph": False}
    memory["memory_warmup_steps"] = 3
    heads = {"heads": 4}
    if model == "gpldan":
        fields = {"dim": 16, "gate_dim": 8}
    own = {"hmgr": memory, "racg": heads, "racg_strict": heads, "gin": bags, "sckr": bags}.get(
        model, {}
    )
    config = recipe("worlds", model, **fields, **own)
    config.data.source = "worlds"
    config.data.batching = "groups"
    config.data.buckets = (32,)  # one compilation of the step
    config.data.worlds.train, config.data.worlds.dev, config.data.worlds.test = 40, 8, 12
    config.data.worlds.features = model == "gpldan"
    config.train.steps = 12
    config.train.batch_size = 8
    config.train.lr = 1e-3
    config.train.warmup_steps = 2
    config.train.decay = "cosine"
    config.train.log_steps = 1
    config.train.eval_steps = 4
    config.eval.protocols = config.eval.dev_protocols = ("worlds", "family")
    config.eval.batch_size = 16
    config.parallel.devices = 1
    return config
