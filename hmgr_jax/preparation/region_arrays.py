"""Regions of one image from named arrays, under the names of common layouts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from hmgr_jax.data.regions.row_arrays import clip_boxes
from hmgr_jax.errors import UserError
from hmgr_jax.preparation.plan import BOXES, FEATURES

FEATURE_NAMES = ("features", "feat", "feats", "x", "arr_0", "att")
BOX_NAMES = ("boxes", "bbox")
WIDTHS, HEIGHTS = ("image_w", "width", "img_w"), ("image_h", "height", "img_h")


def find_features(arrays: Mapping[str, Any], name: str | None, where: str) -> str:
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


def region_shape(arrays: Mapping[str, Any], name: str | None, where: str) -> tuple[int, int]:
    """(R, D) of one image, from the ``shape`` of its features alone.

    Raises:
        UserError: it is no [regions, features] or holds none.
    """
    shape = tuple(arrays[find_features(arrays, name, where)].shape)
    if len(shape) != 2 or 0 in shape:
        raise UserError(
            f"{where} holds features of shape {shape} where [regions, features] was expected (of "
            "a video [frames, features]): extract them again."
        )
    return shape[0], shape[1]


def read_regions(
    arrays: Mapping[str, Any], name: str | None, where: str, *, with_boxes: bool
) -> dict[str, np.ndarray]:
    """``{"ims": [R, D], "boxes": float32 [R, 4] in 0..1 where there are any}`` of one image."""
    region_shape(arrays, name, where)
    values = _numbers(arrays[find_features(arrays, name, where)], where)
    found = {FEATURES: values}
    given = next((key for key in BOX_NAMES if key in arrays), None)
    if with_boxes and given:
        found[BOXES] = _boxes(_numbers(arrays[given], where), arrays, len(values), where)
    return found


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
        size = np.asarray([np.asarray(width).item(), np.asarray(height).item()], np.float64)
        if not (size > 0).all():
            raise UserError(f"{where} holds an image size that is not positive: correct it.")
        given = given / np.tile(size, 2)[None]
    return clip_boxes(given[None], lambda _: f"{where} holds")[0]


def _numbers(array: Any, where: str) -> np.ndarray:
    """Read an array; pickled objects, which could run code, are refused."""
    try:
        values = np.asarray(array)
    except ValueError:
        values = np.empty(0, object)
    if values.dtype.kind not in "fiu":
        raise UserError(
            f"{where} holds {values.dtype} where numbers were expected: save it as a plain array."
        )
    return values
