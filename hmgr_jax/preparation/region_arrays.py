"""The arrays of one image by name: which holds its features, which axis is regions, how many."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from hmgr_jax.data.regions.row_arrays import check_zero_padding, clip_boxes
from hmgr_jax.errors import UserError
from hmgr_jax.files.npy_rows import computed
from hmgr_jax.preparation.plan import BOXES, FEATURES

FEATURE_NAMES = ("features", "feat", "feats", "image_features", "x", "arr_0", "att")
BOX_NAMES = ("boxes", "bbox", "image_bb")
COUNT_NAMES = ("num_boxes", "num_bbox")
WIDTHS, HEIGHTS = ("image_w", "width", "img_w"), ("image_h", "height", "img_h")
TURNED = ".T"
"""Ending of a name given by the user: the array is [features, regions]."""
UNSURE = "x"
"""An array of this name is [regions, features] in some releases and the reverse in MCAN's."""


class Regions(NamedTuple):
    """Where the features of one image are."""

    name: str
    turned: bool
    """The array is [features, regions]."""
    number: int
    """Of regions, without padding."""
    size: int
    """Features of a region."""


def stem(name: str | None) -> str | None:
    """The name of the array that the user means, without `TURNED`."""
    return None if name is None else name.removesuffix(TURNED)


def find_regions(arrays: Mapping[str, Any], name: str | None, where: str) -> Regions:
    """Find the features of one image by ``shape`` and by its number of regions, if that is stored.

    A vector is one region.

    Args:
        arrays: by name; only shapes and the values of `COUNT_NAMES` are read.
        name: the array as the user names it, perhaps with `TURNED`; None for a common name.
        where: the file, for messages.

    Raises:
        UserError: there is no such array, its shape is another, or its axes cannot be told apart.
    """
    key = _find_features(arrays, stem(name), where)
    shape = tuple(arrays[key].shape)
    if len(shape) == 1 and name == stem(name) and shape[0]:
        return Regions(key, False, 1, shape[0])
    if len(shape) != 2 or 0 in shape:
        raise UserError(
            f"{where} holds features of shape {shape} where [regions, features] was expected (of "
            "a video [frames, features]): extract them again."
        )
    boxes = next((len(arrays[b]) for b in BOX_NAMES if b in arrays and arrays[b].shape), None)
    count = _count(arrays, where)
    likely = count if boxes is None and key == UNSURE else boxes
    turned = likely == shape[1] != shape[0] if name is None else name != stem(name)
    if name is None and key == UNSURE and likely not in shape:
        raise UserError(
            f"{where} holds {UNSURE} of shape {shape} and no {' or '.join(COUNT_NAMES)} that is "
            f"one of the two, so regions and features cannot be told apart: give --array "
            f"{UNSURE} for [regions, features], or --array {UNSURE}{TURNED} for the reverse."
        )
    rows, size = shape[::-1] if turned else shape
    if count is not None and not 0 < count <= rows:
        raise UserError(
            f"{where} counts {count} regions of features of shape {shape}: extract them again."
        )
    return Regions(key, turned, rows if count is None else count, size)


def _find_features(arrays: Mapping[str, Any], name: str | None, where: str) -> str:
    """The name of the feature array: the requested one, or a common one."""
    if name is not None and name not in arrays:
        raise UserError(
            f"{where} holds {', '.join(arrays) or 'nothing'} but no {name!r}: correct --array."
        )
    usual = [usual for usual in FEATURE_NAMES if usual in arrays]
    if name or usual:
        return name or usual[0]
    two = [key for key in arrays if len(arrays[key].shape) == 2 and arrays[key].shape[1] != 4]
    if len(two) != 1:
        raise UserError(
            f"{where} holds {', '.join(arrays) or 'nothing'}, of which none is clearly the "
            "features [regions, features]: name it with --array."
        )
    return two[0]


def _count(arrays: Mapping[str, Any], where: str) -> int | None:
    """The stored number of regions; None if there is none."""
    found = next((arrays[name] for name in COUNT_NAMES if name in arrays), None)
    if found is None:
        return None
    values = _numbers(found, where)
    if values.size != 1 or values.dtype.kind not in "iu":
        raise UserError(
            f"{where} holds {values.dtype} of shape {values.shape} where the number of regions was "
            "expected: extract it again."
        )
    return int(values.reshape(()))


def read_regions(
    arrays: Mapping[str, Any], name: str | None, where: str, *, with_boxes: bool
) -> dict[str, np.ndarray]:
    """``{"ims": [R, D], "boxes": float32 [R, 4] in 0..1 where there are any}`` of one image.

    Raises:
        UserError: see `find_regions`; or an array is not of numbers, or has other values than 0
            after its regions.
    """
    regions = find_regions(arrays, name, where)
    values = _numbers(arrays[regions.name], where)
    found = {FEATURES: values.T if regions.turned else np.atleast_2d(values)}
    given = next((key for key in BOX_NAMES if key in arrays), None)
    if with_boxes and given:
        boxes = _numbers(arrays[given], where)
        rows = len(found[FEATURES]) if len(boxes) != regions.number else regions.number
        found[BOXES] = _boxes(boxes, arrays, rows, where)
    counts = np.array([regions.number])
    for array in found.values():
        check_zero_padding(array[None], counts, lambda _: f"{where} holds")
    return {key: array[: regions.number] for key, array in found.items()}


def _boxes(given: np.ndarray, arrays: Mapping[str, Any], count: int, where: str) -> np.ndarray:
    if given.shape != (count, 4):
        raise UserError(
            f"{where} holds boxes of shape {given.shape} where {(count, 4)} was expected, a box a "
            "region: extract them again, or leave them out with --no-boxes."
        )
    width = next((arrays[key] for key in WIDTHS if key in arrays), None)
    height = next((arrays[key] for key in HEIGHTS if key in arrays), None)
    given = given.astype(np.float64)
    if width is not None and height is not None:
        both = [_numbers(side, where).reshape(-1) for side in (width, height)]
        size = np.concatenate(both).astype(np.float64)
        if size.shape != (2,) or not (size > 0).all():
            raise UserError(f"{where} holds an image size that is not positive: correct it.")
        given = given / np.tile(size, 2)[None]
    return clip_boxes(given[None], lambda _: f"{where} holds")[0]


def _numbers(array: Any, where: str) -> np.ndarray:
    """Read an array; pickled objects, which could run code, are refused."""
    values = np.asarray(array)
    if values.dtype.kind not in "fiu":
        raise UserError(
            f"{where} holds {values.dtype} where numbers were expected: save it as a plain array."
        )
    return computed(values)
