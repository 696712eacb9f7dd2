"""Small CLIP and SigLIP folders as transformers saves them, with weights drawn at random."""

import json
import os
from pathlib import Path

import jax
import numpy as np
import safetensors.numpy
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from hmgr_jax.interop import clip, clip_weights
from hmgr_jax.interop.names import from_params

GOLDEN = os.environ.get("HMGR_TEST_GOLDEN", Path(__file__).parents[2] / "shared" / "golden")
TOWERS = Path(GOLDEN).parent / "towers"
"""Known answers and folders of transformers, where they are at hand."""
WORDS = ("<pad>", "<start>", "<end>", "<unk>", "a", "red", "dog", "two", "dogs")
ENCODER = {
    "hidden_size": 8,
    "intermediate_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
CONFIGS = {
    "clip": {
        "model_type": "clip",
        "projection_dim": 6,
        "text_config": ENCODER
        | {"vocab_size": len(WORDS), "max_position_embeddings": 7, "eos_token_id": 2},
        "vision_config": ENCODER | {"image_size": 8, "patch_size": 4},
    },
    "siglip": {
        "model_type": "siglip",
        "text_config": ENCODER | {"vocab_size": len(WORDS), "max_position_embeddings": 7},
        "vision_config": ENCODER | {"image_size": 8, "patch_size": 4},
    },
}
PROCESSORS = {
    "clip": {
        "image_processor_type": "CLIPImageProcessor",
        "size": {"shortest_edge": 8},
        "crop_size": {"height": 8, "width": 8},
    },
    "siglip": {
        "image_processor_type": "SiglipImageProcessor",
        "size": {"height": 8, "width": 8},
    },
}


def tokenizer():
    found = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="<unk>"))
    found.pre_tokenizer = pre_tokenizers.Whitespace()
    found.post_processor = processors.TemplateProcessing(
        single="<start> $A <end>", special_tokens=[("<start>", 1), ("<end>", 2)]
    )
    return found


def drawn(towers, seed=0):
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda s: (0.5 * rng.standard_normal(s.shape)).astype(np.float32), towers.template()
    )


def written(folder: Path, kind: str, **settings):
    """A folder and its parameters; ``settings`` replace those of ``config.json``."""
    folder.mkdir()
    config = CONFIGS[kind] | settings
    write_json(folder / "config.json", config)
    write_json(folder / "preprocessor_config.json", PROCESSORS[kind])
    write_json(folder / "tokenizer_config.json", {"pad_token": "<pad>", "model_max_length": 7})
    (folder / "tokenizer.json").write_text(tokenizer().to_str())
    towers = clip.towers_of(config)
    params = drawn(towers)
    state = from_params(clip_weights.names(towers), params)
    safetensors.numpy.save_file(state, folder / "model.safetensors")
    return folder, params


def write_json(path, content):
    path.write_text(json.dumps(content))


def edited(path, **changes):
    """Replace entries of a JSON file; None removes one."""
    content = json.loads(path.read_text()) | changes
    write_json(path, {key: value for key, value in content.items() if value is not None})
