"""The registry of systems, which imports each model by name."""

from __future__ import annotations

import dataclasses
import difflib
import importlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from hmgr_jax.errors import UserError
from hmgr_jax.models.base import Model

_CGAM = {"recon_source": "all", "recon_logit": "dot", "sharpness": 1.0, "mask_same_image": False}
_SCKR = {
    "word_relations": "SCK",
    "node_feature": "bilstm50",
    "image_hidden": (),
    "pair_dropout": 0.4,
    "l2": 0.0,
}
# name -> (module, class, option values of this system)
_REGISTRY: dict[str, tuple[str, str, Mapping[str, Any]]] = {
    "hmgr": ("hmgr", "HMGR", {}),
    "vse": ("hmgr", "HMGR", {"visual_graph": False, "text_graph": False, "memory": "none"}),
    "imram": ("imram", "IMRAM", {}),
    "scan": ("imram", "IMRAM", {"variant": "text", "steps": 1}),
    "racg": ("racg", "RACG", {}),
    "racg_strict": ("racg", "RACG", _CGAM),
    "resg": ("resg", "ReSG", {}),
    "pcme": ("pcme", "PCME", {}),
    "gpldan": ("gpldan", "GPLDAN", {}),
    "gin": ("gin", "GIN", {}),
    "sckr": ("gin", "GIN", _SCKR),
    "center3d": ("center3d", "Center3D", {}),
    "dxr": ("dxr", "DXR", {}),
    "clip": ("clip", "CLIP", {}),
    "xtra": ("xtra", "XTRA", {}),
}


# Options that older runs saved and the code no longer has: {class: {option: the value it has now}}.
_REMOVED: dict[str, dict[str, Any]] = {
    "HMGR": {"text_window": 0, "frame_window": 0, "affinity": "softmax"},
    "RACG": {
        "semantic_embed": True,
        "residual_gain": 0.0,
        "intra_blocks": True,
        "head_hidden": 32,
        "sim_head": "mlp",
    },
    "ReSG": {
        "region_embedding": "linear",
        "region_hidden": 0,
        "semantic_embed": True,
        "relation_edges": True,
        "text_window": 3,
        "residual_gain": 0.0,
        "region_order": "file",
        "pool_dropout": 0.4,
        "slope": 0.1,
        "center_margin": 0.2,
        "center_variant": "triplet",
        "center_stop_gradient": False,
    },
    "PCME": {"loss_norm": "sum"},
    "GPLDAN": {"standardise": "image", "mask_image": 0.5, "mask_text": 0.7, "self_margin": 0.5},
    "GIN": {"dense_share": 0.005, "bag_norm": "l2", "bow_hidden": 0, "cnn_filters": 100},
    "Center3D": {"center_rate": 0.5, "center_grad_rescale": True},
    "XTRA": {"region_scale": "none"},
}
# Options that had no effect on the runs that can still be read: of an earlier memory on those
# without one, and of the graph on those of vse. {class or system: options}
_WRITES = ("write_rate", "write_rule", "write_address", "address_gain")
_UNUSED: dict[str, tuple[str, ...]] = {
    "HMGR": (*_WRITES, "key_dim", "memory_groups", "rebuild_memory"),
    "vse": ("affinity",),
}
# Values that older runs saved: {class: {option: {value: its new name, None if it is gone}}}.
_EARLIER_MEMORIES = ("joint", "separate", "visual_only_write", "text_only_write", "learned")
_OLD_VALUES: dict[str, dict[str, dict[str, str | None]]] = {
    "HMGR": {"memory": dict.fromkeys((*_EARLIER_MEMORIES, "episodic"))},
    "DXR": {"objective": {"triplet_hard": "triplet"}},
}


def list_models() -> tuple[str, ...]:
    """Names of the registered systems."""
    return tuple(_REGISTRY)


def defaults(name: str) -> dict[str, Any]:
    """Hyper-parameters of a registered system, with its preset applied.

    Raises:
        UserError: no such system.
    """
    model_class, preset = _look_up(name)
    fields = {f.name: f.default for f in dataclasses.fields(model_class)}
    return {**fields, **preset}


def get_model(name: str, **hyperparameters: Any) -> Model:
    """The system ``name`` with its defaults replaced by ``hyperparameters``.

    Raises:
        UserError: no such system, or no such hyper-parameter.
    """
    model_class, preset = _look_up(name)
    known = [f.name for f in dataclasses.fields(model_class)]
    for key in hyperparameters:
        if key not in known:
            raise UserError(unknown_name(f"hyper-parameter of {name}", key, known))
    return model_class(**{**preset, **hyperparameters})


def without_removed(name: str, saved: Mapping[str, Any]) -> dict[str, Any]:
    """Saved options of a system without those that the code no longer has, in today's names.

    Raises:
        UserError: a removed option has another value than the one the code works with now.
    """
    kind = _look_up(name)[0].__name__
    unused = (*_UNUSED.get(kind, ()), *_UNUSED.get(name, ()))
    removed, found = _REMOVED.get(kind, {}), {k: v for k, v in saved.items() if k not in unused}
    for key, value in removed.items():
        if found.pop(key, value) != value:
            raise UserError(
                f"The run was trained with model.{key}={saved[key]!r}, an option that was removed "
                f"({value!r} is the only value now): use the version of hmgr_jax that trained it."
            )
    for key, values in _OLD_VALUES.get(kind, {}).items():
        if found.get(key) in values:
            found[key] = values[found[key]]
            if found[key] is None:
                raise UserError(
                    f"The run was trained with model.{key}={saved[key]!r}, a value that was "
                    "removed: use the version of hmgr_jax that trained it."
                )
    return found


class Properties(NamedTuple):
    """Properties of a system that recipes use."""

    score: str
    """``pairs``: each pair is scored separately; ``vectors``: by one vector per item."""
    reads: str
    """``words`` in order, ``bags`` of words, or ``features`` (one vector per text)."""
    fields: frozenset[str]
    """Names of the hyper-parameters."""


def properties(name: str) -> Properties:
    """Properties of a registered system.

    Raises:
        UserError: no such system.
    """
    model_class, _ = _look_up(name)
    fields = frozenset(f.name for f in dataclasses.fields(model_class))
    in_pairs = hasattr(model_class, "score_block") or model_class.explainable()
    words = "words" if "vocabulary_size" in fields else "features"
    reads = "bags" if "word_relations" in fields else words
    return Properties("pairs" if in_pairs else "vectors", reads, fields)


def _look_up(name: str) -> tuple[type[Model], Mapping[str, Any]]:
    if name not in _REGISTRY:
        raise UserError(unknown_name("model", name, list(_REGISTRY)))
    module, class_name, preset = _REGISTRY[name]
    return getattr(importlib.import_module(f"hmgr_jax.models.{module}"), class_name), preset


def unknown_name(what: str, name: str, known: list[str]) -> str:
    """Error message for an unknown name, with the closest known one."""
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}."
    return f"There is no {what} {name!r}; {hint}"
