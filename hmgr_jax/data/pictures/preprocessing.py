"""Pictures as the networks of a transformers folder expect them: resize, crop, normalise.

The settings are those of ``preprocessor_config.json``, of CLIP's and SigLIP's image processors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

FILTERS = frozenset(Image.Resampling)
"""Numbers of Pillow's filters."""
PROCESSORS: dict[str, dict[str, Any]] = {
    "CLIPImageProcessor": {
        "size": {"shortest_edge": 224},
        "do_center_crop": True,
        "crop_size": 224,
        "image_mean": (0.48145466, 0.4578275, 0.40821073),
        "image_std": (0.26862954, 0.26130258, 0.27577711),
    },
    "SiglipImageProcessor": {
        "size": {"height": 224, "width": 224},
        "do_center_crop": False,
        "image_mean": (0.5, 0.5, 0.5),
        "image_std": (0.5, 0.5, 0.5),
    },
}
"""{processor: its defaults}."""
_SAME = {"CLIPFeatureExtractor": "CLIPImageProcessor"}  # the name before 2023
_COMMON = {
    "do_resize": True,
    "resample": 3,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
}
_NOT_DONE = ("do_pad", "do_thumbnail", "do_flip_channel_order", "do_affine_transform")


@dataclass(frozen=True)
class Preprocessing:
    """Conversion of pictures to pixels float32 [size, size, 3].

    Raises ``ValueError`` for values out of range.
    """

    size: int
    """Side of the result in pixels."""
    resize: int | None
    """The shorter side is scaled to it, and the centre of ``size`` cropped; None scales both sides
    to ``size``."""
    resample: int = 3
    """Number of Pillow's filter: 0 nearest, 1 Lanczos, 2 bilinear, 3 bicubic, 4 box, 5 Hamming."""
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)

    def __post_init__(self) -> None:
        if self.size < 1 or (self.resize is not None and self.resize < self.size):
            raise ValueError(f"a crop of {self.size} pixels from a side of {self.resize}")
        if self.resample not in FILTERS:
            raise ValueError(f"resample is {self.resample}, no number from 0 to 5")
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise ValueError(f"mean {self.mean} and std {self.std} are not three numbers each")

    def __call__(self, picture: Image.Image) -> np.ndarray:
        """The normalised pixels of a picture."""
        return normalise_pixels(np.asarray(self.crop(picture)), self.mean, self.std)

    def crop(self, picture: Image.Image) -> Image.Image:
        """The scaled and cropped picture."""
        picture, size = picture.convert("RGB"), self.size
        width, height = self._scaled(*picture.size)
        if picture.size != (width, height):
            picture = picture.resize((width, height), Image.Resampling(self.resample))
        left, top = (width - size) // 2, (height - size) // 2
        return picture.crop((left, top, left + size, top + size))

    def kept(self, width: int, height: int) -> tuple[float, float, float, float]:
        """The part of a picture that is not cropped away: a box, xyxy in 0..1."""
        wide, high = self._scaled(width, height)
        left, top, size = (wide - self.size) // 2, (high - self.size) // 2, self.size
        return left / wide, top / high, (left + size) / wide, (top + size) / high

    def _scaled(self, width: int, height: int) -> tuple[int, int]:
        """Sides before the crop."""
        if self.resize is None:
            return self.size, self.size
        short = min(width, height)
        return int(self.resize * width / short), int(self.resize * height / short)


def normalise_pixels(pixels: np.ndarray, mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    """Normalise uint8 [..., S, S, 3] by mean and deviation (of 0..1), float32."""
    # Whole rows at once: numpy is several times slower over an inner axis of 3.
    width = pixels.shape[-2]
    rows = pixels.reshape(-1, 3 * width).astype(np.float32)
    rows -= np.tile(255 * np.array(mean, np.float32), width)[None]
    rows /= np.tile(255 * np.array(std, np.float32), width)[None]
    return rows.reshape(pixels.shape)


def from_settings(settings: Mapping[str, Any]) -> Preprocessing:
    """The preprocessing of an image processor's settings.

    Raises ``ValueError`` for another processor, or for settings that are not supported.
    """
    own = settings.get("image_processor_type", settings.get("feature_extractor_type"))
    name = str(own).removesuffix("Fast").removesuffix("Pil")
    name = _SAME.get(name, name)
    if name not in PROCESSORS:
        raise ValueError(f"it is of the processor {own}")
    values = {**_COMMON, **PROCESSORS[name], **settings}
    for key in _NOT_DONE:
        if values.get(key):
            raise ValueError(f"it has {key}")
    if not values["do_resize"]:
        raise ValueError("it has no do_resize, so that pictures differ in size")
    resize, size = _sides(values["size"], "shortest_edge" if name[0] == "C" else "height")
    if values["do_center_crop"]:
        _, crop = _sides(values["crop_size"], "height")
        if crop is None or resize is None:
            raise ValueError(f"it crops {values['crop_size']} from {values['size']}")
        size = crop
    elif size is None:
        raise ValueError(
            f"it has the size {values['size']} and no crop, so pictures differ in size"
        )
    # Our mean and deviation are those of values / 255.
    factor = 255 * (values["rescale_factor"] if values["do_rescale"] else 1.0)
    mean, std = values["image_mean"], values["image_std"]
    if not values["do_normalize"]:
        mean, std = (0.0,) * 3, (1.0,) * 3
    return Preprocessing(
        size,
        resize,
        values["resample"],
        tuple(float(x) / factor for x in mean),
        tuple(float(x) / factor for x in std),
    )


def _sides(size: Any, alone: str) -> tuple[int | None, int | None]:
    """(length of the shorter side, None) or (None, length of both); ``alone`` tells an int's."""
    if isinstance(size, int):
        size = {alone: size} if alone == "shortest_edge" else {"height": size, "width": size}
    if isinstance(size, Mapping) and all(type(x) is int for x in size.values()):
        if size.keys() == {"shortest_edge"}:
            return size["shortest_edge"], None
        if size.keys() == {"height", "width"} and size["height"] == size["width"]:
            return None, size["height"]
    raise ValueError(f"it has the size {size}, neither shortest_edge nor a square")
