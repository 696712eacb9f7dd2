"""CLIP, SigLIP and SigLIP 2 at fixed size from local folders as transformers saves them.

A folder holds ``config.json``, ``model.safetensors`` (or shards), ``tokenizer.json``,
``tokenizer_config.json`` and ``preprocessor_config.json``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from hmgr_jax.data.text.tokenizer_file import TokenizerFile
from hmgr_jax.errors import UserError
from hmgr_jax.files.reading import read_object
from hmgr_jax.interop.transformers_folder import CONFIG, check_parameters, positive
from hmgr_jax.layers.clip_text import TextSizes, TextTower
from hmgr_jax.layers.transformer import Sizes
from hmgr_jax.layers.vit import PictureSizes, ViT
from hmgr_jax.shapes import Tree

CLIP, SIGLIP = "clip", "siglip"
SUPPORTED = "only folders of CLIP, SigLIP and SigLIP 2 at fixed size (model_type clip or siglip)"
ADVICE = "give a folder of a CLIP or SigLIP as transformers saves it."
LARGEST_ID = 2
"""As ``eos_token_id`` of CLIP it means that the text's largest id is its end, as in old files."""

# transformers leaves out values that are the defaults of its classes.
_DEFAULTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    CLIP: (
        {
            **{"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12},
            **{"num_attention_heads": 12, "num_channels": 3, "image_size": 224},
            **{"patch_size": 32, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5},
        },
        {
            **{"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 12},
            **{"num_attention_heads": 8, "vocab_size": 49408, "max_position_embeddings": 77},
            **{"hidden_act": "quick_gelu", "layer_norm_eps": 1e-5, "eos_token_id": 49407},
        },
    ),
    SIGLIP: (
        {
            **{"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12},
            **{"num_attention_heads": 12, "num_channels": 3, "image_size": 224},
            **{"patch_size": 16, "hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6},
            "vision_use_head": True,
        },
        {
            **{"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12},
            **{"num_attention_heads": 12, "vocab_size": 32000, "max_position_embeddings": 64},
            **{"hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6},
        },
    ),
}


@dataclass(frozen=True)
class Towers:
    """Which network a folder holds."""

    kind: str
    """`CLIP` or `SIGLIP`."""
    image: PictureSizes
    text: TextSizes

    def modules(
        self, dtype: Any = jnp.float32, *, checkpoint: bool = False
    ) -> tuple[ViT, TextTower]:
        """The picture tower and the text tower; ``checkpoint`` saves memory in training."""
        return ViT(self.image, dtype, checkpoint), TextTower(self.text, dtype, checkpoint)

    def template(self) -> Tree:
        """Shapes of all parameters: ``image``, ``text``, ``scale`` and SigLIP's ``bias``.

        ``scale`` is the logarithm of the logits' factor.
        """
        image, text = self.modules()
        side, one = self.image.image, jax.ShapeDtypeStruct((), jnp.float32)

        def init() -> tuple[Tree, Tree]:
            pixels, ids = jnp.zeros((1, side, side, 3)), jnp.zeros((1, 1), jnp.int32)
            key = jax.random.key(0)
            return image.init(key, pixels)["params"], text.init(key, ids)["params"]

        towers = dict(zip(("image", "text"), jax.eval_shape(init), strict=True))
        return {**towers, "scale": one} | ({} if self.kind == CLIP else {"bias": one})


def read_towers(folder: str | Path) -> Towers:
    """The network that a folder's ``config.json`` describes.

    Raises `UserError` if there is none, or it is of another architecture.
    """
    path = Path(folder, CONFIG)
    try:
        return towers_of(read_object(path, ADVICE))
    except (TypeError, ValueError) as error:
        raise UserError(f"{path} cannot be used ({error}): {SUPPORTED} can be read.") from None


def is_towers(folder: str | Path) -> bool:
    """Whether a folder is, by its ``config.json``, that of a CLIP or SigLIP."""
    path = Path(folder, CONFIG)
    return path.is_file() and read_object(path, ADVICE).get("model_type") in _DEFAULTS


def towers_of(config: Mapping[str, Any]) -> Towers:
    """The network of the content of a ``config.json``.

    Raises ``ValueError`` if it is of another architecture or gives no possible sizes.
    """
    kind = config.get("model_type")
    if kind not in _DEFAULTS:
        raise ValueError(f"model_type is {kind!r}")
    image, text = (
        {**defaults, **_given(config, part)}
        for defaults, part in zip(_DEFAULTS[kind], ("vision", "text"), strict=True)
    )
    if image["num_channels"] != 3:
        raise ValueError(f"num_channels is {image['num_channels']}, not 3")
    if kind == SIGLIP and not image["vision_use_head"]:
        raise ValueError("vision_use_head is false, so that pictures have no vector")
    of_text, of_image = _encoder(text), _encoder(image)
    words, places = positive(text, "vocab_size"), positive(text, "max_position_embeddings")
    side, patch = positive(image, "image_size"), positive(image, "patch_size")
    for tower, count in ((of_text, words), (of_image, side)):
        check_parameters(count, tower.width, tower.layers, tower.intermediate)
    if kind == CLIP:
        shared = positive({"projection_dim": 512, **config}, "projection_dim")
        end = text["eos_token_id"]
        if type(end) is not int:
            raise ValueError(f"eos_token_id is {end!r}")
        marked = None if end == LARGEST_ID else end
        return Towers(
            kind,
            PictureSizes(of_image, side, patch, shared),
            TextSizes(of_text, words, places, shared, causal=True, end=marked),
        )
    shared = positive({"projection_size": of_text.width, **text}, "projection_size")
    if shared != of_image.width:
        raise ValueError(
            f"vectors of texts have {shared} numbers and those of pictures {of_image.width}"
        )
    return Towers(
        kind,
        PictureSizes(of_image, side, patch),
        TextSizes(of_text, words, places, shared, causal=False),
    )


def _given(config: Mapping[str, Any], part: str) -> dict[str, Any]:
    """The settings of a tower; the second name is that of CLIP's first files."""
    found = config.get(f"{part}_config_dict") or config.get(f"{part}_config") or {}
    if not isinstance(found, dict):
        raise ValueError(f"{part}_config is a {type(found).__name__}")
    return found


def _encoder(config: Mapping[str, Any]) -> Sizes:
    return Sizes(
        positive(config, "hidden_size"),
        positive(config, "num_hidden_layers"),
        positive(config, "num_attention_heads"),
        positive(config, "intermediate_size"),
        str(config["hidden_act"]),
        float(config["layer_norm_eps"]),
    )


def text_options(towers: Towers, words: TokenizerFile) -> dict[str, Any]:
    """The sizes of the text tower as hyper-parameters of a system that reads by it."""
    text = towers.text
    own = {
        **dataclasses.asdict(text.encoder),
        "kind": towers.kind,
        "positions": text.positions,
        "pad": words.id(words.pad),
        "end": -1 if text.end is None else text.end,
    }
    return {"vocabulary_size": text.vocabulary, **{f"clip_{k}": v for k, v in own.items()}}


def picture_options(towers: Towers) -> dict[str, Any]:
    """The sizes of the picture tower and the objective as hyper-parameters of the system clip."""
    image = towers.image
    own = {**dataclasses.asdict(image.encoder), "size": image.image, "patch": image.patch}
    return {
        **{f"picture_{k}": v for k, v in own.items()},
        "dim": towers.text.projection,
        "objective": "infonce" if towers.kind == CLIP else "sigmoid",
    }
