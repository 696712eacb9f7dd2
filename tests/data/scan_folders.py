"""Small folders in SCAN's two layouts, for tests."""

from pathlib import Path

import numpy as np

REGIONS, FEATURES = 3, 5


def captions_of(image: int, count: int = 5) -> list[str]:
    """Sentences that name the image, of different lengths."""
    return [f"image {image} shows {'very ' * k}much ." for k in range(count)]


def features_of(images: int, seed: int = 0) -> np.ndarray:
    """Float16 [images, R, D]; the first number of each is the image's own."""
    features = np.random.default_rng(seed).random((images, REGIONS, FEATURES)).astype(np.float16)
    features[:, 0, 0] = np.arange(images)
    return features


def write_split(
    root: Path,
    name: str,
    images: int,
    *,
    repeated: bool = False,
    ids: bool = True,
    count: int = 5,
    kind: str = "ims",
    dtype: type = np.float16,
) -> np.ndarray:
    """Write one split; ``repeated`` stores every image once a caption, as SCAN's dev files do."""
    features = features_of(images).astype(dtype)
    times = count if repeated else 1
    np.save(root / f"{name}_{kind}.npy", np.repeat(features, times, axis=0))
    lines = [line for image in range(images) for line in captions_of(image, count)]
    (root / f"{name}_caps.txt").write_text("\n".join(lines) + "\n", "utf-8")
    if ids:
        numbers = np.repeat(np.arange(images) + 100, times)
        (root / f"{name}_ids.txt").write_text("".join(f"{i}\n" for i in numbers))
    return features


def write_folder(root: Path, **options) -> Path:
    """Train of 6 images stored once, dev of 3 and test of 4 stored once a caption."""
    write_split(root, "train", 6, **options)
    write_split(root, "dev", 3, repeated=True, **options)
    write_split(root, "test", 4, repeated=True, **options)
    return root
