"""What a record of a TFDS dataset holds: an image or video, what is known of it, its captions.

| feature | TFDS type | |
|---|---|---|
| `id` | `Text`, or an integer `Scalar` | unique in its split |
| `features` | `Tensor([R, D], float16 or float32)` | regions of an image or frames of a video |
| `captions` | `Sequence({"text": Text, ...})`, `Sequence(Text)` or `Text` | at least one |
| `count` (optional) | integer `Scalar` | the first so many of R are true, the others zero |
| `boxes` (optional) | `Tensor([R, 4])` | xyxy in 0..1 |
| `labels`, `attributes` (optional) | integer `Tensor([R])` | -1 where there is none |
| `scores`, `attribute_scores` (optional) | `Tensor([R])` | |
| `wh` (optional) | integer `Tensor([2])` | width and height in pixels |

Further features are left alone. `encoding="bytes"` is the one that is read fast.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.proto import tf_example_pb2

from hmgr_jax.errors import UserError

ID, FEATURES, CAPTIONS, TEXT = "id", "features", "captions", "text"
RECORD_NAMES = {"ims": FEATURES, "counts": "count"}
"""{ending of a ``.npy`` file: name in a record} where the two differ."""
BESIDE = ("counts", "boxes", "labels", "scores", "attributes", "attribute_scores", "wh")
"""Endings of the small arrays that may stand beside the features."""
DESCRIPTIONS = ("dataset_info.json", "features.json")
_RAW = "bytes"


def name_in_record(ending: str) -> str:
    """What ``{split}_{ending}.npy`` is called in a record."""
    return RECORD_NAMES.get(ending, ending)


def describe(arrays: Mapping[str, tuple[tuple[int, ...], np.dtype]]) -> tfds.features.FeaturesDict:
    """The features of a record with ``arrays``: {ending: (shape of a row, type)}."""
    fields = {
        name_in_record(ending): tfds.features.Tensor(shape=shape, dtype=dtype, encoding=_RAW)
        if shape
        else tfds.features.Scalar(dtype)
        for ending, (shape, dtype) in arrays.items()
    }
    text = tfds.features.Text()
    captions = tfds.features.Sequence({ID: text, TEXT: text})
    return tfds.features.FeaturesDict({ID: text, **fields, CAPTIONS: captions})


def stored_raw(feature: Any) -> bool:
    """Whether values lie in a record as they lie in memory."""
    return feature.to_json()["content"]["encoding"] == _RAW


def stored(record: bytes, name: str) -> list[Any]:
    """The values of one feature of a record as stored: bytes, or whole numbers; perhaps none."""
    feature = tf_example_pb2.Example.FromString(record).features.feature[name]
    return list(feature.bytes_list.value or feature.int64_list.value)


def demand_features(features: Any, where: str) -> None:
    """Refuse a dataset whose records are not as this module describes.

    Raises:
        UserError: what was expected and what was found.
    """
    found = dict(features) if isinstance(features, tfds.features.FeaturesDict) else {}
    problem = _problem(found)
    if problem:
        described = ", ".join(f"{name}: {_spell(feature)}" for name, feature in found.items())
        raise UserError(
            f"{where} {problem}; expected were id (Text or whole number), features (Tensor "
            "[R, D] of float16 or float32) and captions (Sequence of Text or of {'text': Text}), "
            f"perhaps count, {', '.join(BESIDE[1:])}, found {described or 'nothing'}: write the "
            "dataset with these names."
        )


def _problem(found: Mapping[str, Any]) -> str:
    """What is wrong with the features of a dataset; empty where nothing is."""
    missing = [name for name in (ID, FEATURES, CAPTIONS) if name not in found]
    if missing:
        return f"has no feature {', '.join(missing)}"
    values = found[FEATURES]
    shape, dtype = getattr(values, "shape", None), getattr(values, "np_dtype", None)
    if not isinstance(values, tfds.features.Tensor) or shape is None or len(shape) != 2:
        return "has other features than [R, D]"
    if None in shape or 0 in shape or dtype not in (np.float16, np.float32):
        return "has features of unknown size or type"
    captions = found[CAPTIONS]
    if isinstance(captions, tfds.features.Sequence):
        captions = captions.feature
    if isinstance(captions, tfds.features.FeaturesDict):
        captions = dict(captions).get(TEXT)
    return "" if isinstance(captions, tfds.features.Text) else "has captions without text"


def _spell(feature: Any) -> str:
    return " ".join(repr(feature).split())
