"""VQA v2: questions about COCO's pictures, answered with captions that a DXR retrieves.

    hmgr-jax train --config vqa --config.data.root=vqa --config.needs.dxr=DXR

The folder holds the questions and annotations as they are given out, features of pictures in a
file each (data.vqa.features; MCAN's .npz, or grids as .npy), and COCO's captions for the bank. DXR
is the folder of a run that was trained on the same features (or a recipe, which is trained first).

Hardware: the sizes are those of VisualBERT (BERT-base) and its schedule, a machine of 8
accelerators; never measured. ``:mcan`` is the other reader.
"""

from ml_collections import ConfigDict

from hmgr_jax.training.config import recipe

MCAN = {"reader": "mcan", "width": 1024, "heads": 8, "layers": 6, "intermediate": 4096}


def get_config(model: str = "xtra") -> ConfigDict:
    """XTRA with one of its two readers."""
    mcan = model == "mcan"
    config = recipe("vqa", "xtra" if mcan else model, **(MCAN if mcan else {}))
    if config.model.name == "xtra":
        config.model.index_train = "coco"
    config.data.source = "vqa"
    config.data.splits = {"train": "train2014", "dev": "val2014", "test": "test-dev2015"}
    config.data.vqa.banks.coco = "captions_train2014.json"
    config.data.max_words = 18  # of a question, 20 with its marks
    config.data.buckets = (20,)
    config.train.optimizer = "adamw"
    config.train.weight_decay = 0.01
    config.train.steps = 236_000 if mcan else 60_000
    config.train.batch_size = 64 if mcan else 480
    config.train.lr = 5e-5
    config.train.warmup_steps = 54_000 if mcan else 6_000
    config.train.decay = "step" if mcan else "none"
    config.train.decay_at = 0.76
    config.train.eval_steps = 5_000
    config.train.clip = 0.0 if mcan else 1.0
    config.eval.protocols = ("vqa",)
    config.eval.dev_protocols = ("vqa",)
    config.eval.select = "vqa/accuracy"
    return config
