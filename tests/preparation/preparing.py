"""The command in this process, and small sources in the formats that it reads."""

import base64
import json

import numpy as np

from hmgr_jax.data.regions.scan import open_scan
from hmgr_jax.data.text.vocabulary import MARKS, Vocabulary
from hmgr_jax.prepare import main

REGIONS, FEATURES = 4, 6


def prepare(*arguments):
    """The exit code of ``python -m hmgr_jax.prepare ARGUMENTS``."""
    return main(["prepare", *map(str, arguments)])


def opened(out, *splits):
    """A prepared folder as training opens it."""
    vocabulary = Vocabulary((*MARKS, "a"))
    return open_scan(out, splits={name: name for name in splits}, vocabulary=vocabulary).splits


def values(number, regions=REGIONS):
    """Features [R, D] that tell which image they are of; exact in float16."""
    found = np.arange(regions * FEATURES, dtype=np.float32).reshape(regions, FEATURES)
    return found + np.float32(100 * number)


def boxes(regions=REGIONS, width=1.0, height=1.0):
    """Boxes [R, 4] xyxy, growing from the corner."""
    part = np.arange(1, regions + 1, dtype=np.float32)[:, None] / regions
    far = np.concatenate([part * width, part * height], axis=1)
    return np.concatenate([np.zeros_like(far), far], axis=1).astype(np.float32)


def check(out, split, numbers, ids, captions, *, with_boxes=True):
    """A split holds the images ``numbers`` (see `values`) under ``ids`` with ``captions``."""
    found = opened(out, split)[split]
    images = found.sources["image"].gather(np.arange(len(ids)))
    np.testing.assert_array_equal(images["regions"], np.stack([values(n) for n in numbers]))
    assert images["regions"].dtype == np.float16
    assert list(found.ids["image"]) == ids
    texts = [[] for _ in ids]
    for image, caption in zip(found.groups["text"], found.sources["text"].captions, strict=True):
        texts[image].append(caption)
    assert texts == captions
    if with_boxes:
        np.testing.assert_allclose(images["boxes"], np.stack([boxes()] * len(ids)), atol=1e-6)
    else:
        assert "boxes" not in images


def check_ragged(out, split, numbers, counts, most, *, with_boxes=True):
    """A split holds the images ``numbers``, the first ``counts`` regions of each, then zeros."""
    found = opened(out, split)[split].sources["image"].gather(np.arange(len(numbers)))
    assert found["n_regions"].tolist() == counts
    assert found["regions"].shape[1] == most
    for i, (number, count) in enumerate(zip(numbers, counts, strict=True)):
        np.testing.assert_array_equal(found["regions"][i, :count], values(number, count))
        assert not found["regions"][i, count:].any()
        if with_boxes:
            assert found["boxes"][i, :count].any(axis=1).all()
            assert not found["boxes"][i, count:].any()


SPLITS = ("train", "train", "train", "val", "test", "restval")


def captions_of(number):
    """Image 1 has two captions, the others one."""
    return [f"a picture {number} ."] * (2 if number == 1 else 1)


def karpathy(path, dataset="flickr8k", splits=SPLITS, change=None):
    """Karpathy's JSON of one image a split: cocoid 1000 + 7 i, imgid i, pic_i.jpg."""
    images = [
        {
            "filename": f"pic_{i}.jpg",
            "split": split,
            "imgid": i,
            "cocoid": 1000 + 7 * i,
            "sentids": [i],
            "sentences": [
                {"raw": f" {raw}\n", "tokens": raw.split(), "imgid": i, "sentid": i}
                for raw in captions_of(i)
            ],
        }
        for i, split in enumerate(splits)
    ]
    if change:
        change(images)
    path.write_text(json.dumps({"images": images, "dataset": dataset}))
    return path


def text(array):
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()


def tsv_line(number, name=None, *, regions=REGIONS, width=40, height=20, objects=None):
    """A line of bottom-up attention; ``objects`` is None, "after" or "lxmert"."""
    name = name or 1000 + 7 * number
    pixels = boxes(regions, width, height)
    whole = [str(regions), text(pixels), text(values(number, regions))]
    labels = [
        text(np.arange(regions, dtype=np.int64) + number),
        text(np.full(regions, 0.5, np.float32)),
        text(np.arange(regions, dtype=np.int64)),
        text(np.full(regions, 0.25, np.float32)),
    ]
    if objects == "lxmert":
        return "\t".join([str(name), str(height), str(width), *labels, *whole]) + "\n"
    return (
        "\t".join([str(name), str(width), str(height), *whole, *(labels if objects else [])]) + "\n"
    )
