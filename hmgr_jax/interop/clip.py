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
import numpy as np

from hmgr_jax.data.pictures import preprocessing
from hmgr_jax.data.pictures.preprocessing import PROCESSORS, Preprocessing
from hmgr_jax.data.text import tokenizer_file
from hmgr_jax.data.text.tokenizer_file import TokenizerFile
from hmgr_jax.errors import UserError
from hmgr_jax.interop.layouts import linear, linear_without_bias
from hmgr_jax.interop.names import Entry, Names, same, to_params
from hmgr_jax.interop.transformers_folder import (
    CONFIG,
    check_parameters,
    positive,
    read_json,
    read_state,
)
from hmgr_jax.layers.clip_text import TextSizes, TextTower
from hmgr_jax.layers.transformer import Sizes
from hmgr_jax.layers.vit import PictureSizes, ViT
from hmgr_jax.leaves import with_leaf
from hmgr_jax.shapes import Tree

CLIP, SIGLIP = "clip", "siglip"
SUPPORTED = "only folders of CLIP, SigLIP and SigLIP 2 at fixed size (model_type clip or siglip)"
ADVICE = "give a folder of a CLIP or SigLIP as transformers saves it."
PROCESSOR, PROCESSORS_FILE = "preprocessor_config.json", "processor_config.json"
TOKENIZER_CONFIG, MARKS = "tokenizer_config.json", "special_tokens_map.json"
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
        return towers_of(read_json(path, ADVICE))
    except (TypeError, ValueError) as error:
        raise UserError(f"{path} cannot be used ({error}): {SUPPORTED} can be read.") from None


def is_towers(folder: str | Path) -> bool:
    """Whether a folder is, by its ``config.json``, that of a CLIP or SigLIP."""
    path = Path(folder, CONFIG)
    return path.is_file() and read_json(path, ADVICE).get("model_type") in _DEFAULTS


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


# --- weights --------------------------------------------------------------------------------------


def names(towers: Towers) -> Names:
    """Official names of the parameters of `Towers.template`."""
    found: list[Entry] = [_number("logit_scale", "scale", towers.kind)]
    image, text = "vision_model", "text_model"
    tables = f"{image}.embeddings"
    found += [
        _patches(f"{tables}.patch_embedding", "image/embed", towers.image.patch),
        same(f"{tables}.position_embedding.weight", "image/positions"),
        *_norm(f"{image}.post_layernorm", "image/norm"),
        same(f"{text}.embeddings.token_embedding.weight", "text/words"),
        same(f"{text}.embeddings.position_embedding.weight", "text/positions"),
        *_norm(f"{text}.final_layer_norm", "text/norm"),
    ]
    found += _blocks(image, "image", towers.image.encoder.layers)
    found += _blocks(text, "text", towers.text.encoder.layers)
    if towers.kind == CLIP:
        found += [
            same(f"{tables}.class_embedding", "image/class"),
            *_norm(f"{image}.pre_layrnorm", "image/first_norm"),
            linear_without_bias("visual_projection", "image/projection"),
            linear_without_bias("text_projection", "text/projection"),
        ]
        return found
    head, pool = f"{image}.head", "image/pool"
    parts = [f"{pool}/attention/{name}" for name in ("query", "key", "value")]
    probe = Entry(
        (f"{head}.probe",),
        (f"{pool}/probe",),
        lambda x: (x[0, 0],),
        lambda x: (x[None, None],),
    )
    found += [
        _number("logit_bias", "bias", towers.kind),
        same(f"{tables}.patch_embedding.bias", "image/embed/bias"),
        probe,
        Entry(
            (f"{head}.attention.in_proj_weight",),
            tuple(f"{part}/kernel" for part in parts),
            lambda x: tuple(x.T for x in np.split(x, 3)),
            lambda *x: (np.concatenate([kernel.T for kernel in x]),),
        ),
        Entry(
            (f"{head}.attention.in_proj_bias",),
            tuple(f"{part}/bias" for part in parts),
            lambda x: tuple(np.split(x, 3)),
            lambda *x: (np.concatenate(x),),
        ),
        *linear(f"{head}.attention.out_proj", f"{pool}/attention/out"),
        *_norm(f"{head}.layernorm", f"{pool}/norm"),
        *_mlp(f"{head}.mlp", f"{pool}/mlp"),
        *linear(f"{text}.head", "text/projection"),
    ]
    return found


def _blocks(official: str, path: str, layers: int) -> Names:
    found: list[Entry] = []
    projections = {"q_proj": "query", "k_proj": "key", "v_proj": "value", "out_proj": "out"}
    for number in range(layers):
        theirs, ours = f"{official}.encoder.layers.{number}", f"{path}/encoder/layer{number}"
        for name, own in projections.items():
            found += linear(f"{theirs}.self_attn.{name}", f"{ours}/attention/{own}")
        found += _norm(f"{theirs}.layer_norm1", f"{ours}/attention_norm")
        found += _norm(f"{theirs}.layer_norm2", f"{ours}/mlp_norm")
        found += _mlp(f"{theirs}.mlp", f"{ours}/mlp")
    return found


def _mlp(official: str, path: str) -> Names:
    first, second = f"{official}.fc1", f"{official}.fc2"
    return [*linear(first, f"{path}/hidden"), *linear(second, f"{path}/out")]


def _norm(official: str, path: str) -> Names:
    return [same(f"{official}.weight", f"{path}/scale"), same(f"{official}.bias", f"{path}/bias")]


def _number(official: str, path: str, kind: str) -> Entry:
    """A number: [] in CLIP, [1] in SigLIP."""
    if kind == CLIP:
        return same(official, path)
    return Entry((official,), (path,), lambda x: (x.reshape(()),), lambda x: (x.reshape(1),))


def _patches(official: str, path: str, side: int) -> Entry:
    """A convolution of patches [out, 3, h, w] as a map of their pixels [h * w * 3, out]."""
    return Entry(
        (f"{official}.weight",),
        (f"{path}/kernel",),
        lambda x: (x.transpose(2, 3, 1, 0).reshape(-1, len(x)),),
        lambda x: (x.reshape(side, side, 3, -1).transpose(3, 2, 0, 1),),
    )


def params_of(towers: Towers, state: Mapping[str, np.ndarray]) -> Tree:
    """Parameters like `Towers.template` from an official state_dict.

    Raises `UserError` if tensors are missing, extra or misshaped.
    """
    state = {name: x for name, x in state.items() if not name.endswith(".position_ids")}
    return to_params(names(towers), state, towers.template())


def with_towers(params: Tree, folder: str | Path) -> Tree:
    """Parameters of a system with those of a folder's towers at ``image/clip`` and ``text/clip``.

    Temperature and bias are replaced too where the system has both towers. Raises `UserError` for
    a folder that cannot be read, or towers of other sizes.
    """
    towers = read_towers(folder)
    found = read_params(folder, towers)
    both = CLIP in params["text"] and CLIP in params.get("image", {})
    for side in ("image", "text") if both else ("text",):
        own = params[side][CLIP]
        given = {name: found[side][name] for name in own if name in found[side]}
        if jax.tree.map(jnp.shape, given) != jax.tree.map(jnp.shape, own):
            raise UserError(
                f"The {side} tower of {folder} has other sizes than model.clip_* and "
                "model.picture_*: leave them to init.clip."
            )
        params = with_leaf(params, f"{side}/{CLIP}", given)
    if both and "log_temperature" in params.get("loss", {}):
        start = {"log_temperature": -found["scale"]}
        start |= {"bias": found["bias"]} if {"bias"} <= found.keys() & params["loss"].keys() else {}
        params = {**params, "loss": {**params["loss"], **start}}
    return params


def read_params(folder: str | Path, towers: Towers) -> Tree:
    """Parameters (numpy, float32) of the towers, from a folder's weights.

    Raises `UserError` if files or tensors are missing, damaged or misshaped.
    """
    path, state = read_state(folder, ADVICE)
    try:
        return params_of(towers, state)
    except UserError as error:
        raise UserError(f"{path} does not fit the {CONFIG} beside it: {error}") from None


# --- what goes in ---------------------------------------------------------------------------------


def read_tokenizer(folder: str | Path, towers: Towers) -> TokenizerFile:
    """The folder's tokenizer; raises `UserError` if there is none, or one for another network."""
    path = Path(folder, tokenizer_file.FILE)
    if not path.is_file():
        raise UserError(
            f"{path} is missing: only tokenizers in this form are supported, so save the folder "
            "again by a current transformers."
        )
    settings: dict[str, Any] = {}
    for name in (MARKS, TOKENIZER_CONFIG):
        if Path(folder, name).is_file():
            settings |= read_json(Path(folder, name), "get the file again.")
    try:
        content = path.read_text(encoding="utf-8")
        found = tokenizer_file.from_settings(content, settings, towers.text.positions)
        if len(found) > towers.text.vocabulary:
            raise ValueError(
                f"it has ids up to {len(found) - 1} for {towers.text.vocabulary} words"
            )
        end = towers.text.end
        if end is not None and end not in found.encode([]):
            raise ValueError(f"it does not end texts with the id {end}")
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} does not fit this {towers.kind} ({error}): give the tokenizer that was saved "
            f"with the network, with the pad_token in its {TOKENIZER_CONFIG}."
        ) from None
    return found


def read_preprocessing(folder: str | Path, towers: Towers) -> Preprocessing:
    """The folder's preprocessing of pictures.

    Raises `UserError` if there is none, one that is not supported, or one for another network.
    """
    path, both = Path(folder, PROCESSOR), Path(folder, PROCESSORS_FILE)
    known = " and ".join(PROCESSORS)
    advice = f"a folder with the settings of {known} is supported."
    if not path.is_file() and both.is_file():  # current versions save all processors together
        path, settings = both, read_json(both, advice).get("image_processor")
        settings = settings if isinstance(settings, dict) else {}
    else:
        settings = read_json(path, advice)
    try:
        found = preprocessing.from_settings(settings)
        if found.size != towers.image.image:
            raise ValueError(f"it makes {found.size} pixels for a tower of {towers.image.image}")
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path} cannot be used ({error}): only the processors {known} are supported, with "
            f"square pictures of the image_size in {CONFIG}."
        ) from None
    return found
