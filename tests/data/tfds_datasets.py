"""Small TFDS datasets that nobody wrote for us, and damage to files."""

import contextlib
import io

import numpy as np
import tensorflow_datasets as tfds

REGIONS, FEATURES = 3, 5
F = tfds.features


class Foreign(tfds.core.ShardBasedBuilder):
    """``splits`` are {name: examples}; ``fields`` the features of a record."""

    VERSION = tfds.core.Version("2.1.0")
    url_infos = None

    def __init__(self, *, fields, splits, **options):
        self.fields, self.given = fields, splits
        super().__init__(file_format="array_record", **options)

    def _info(self):
        return tfds.core.DatasetInfo(builder=self, features=F.FeaturesDict(self.fields))

    def _shard_iterators_per_split(self, dl_manager):
        return {
            name: [lambda part=part: enumerate(part) for part in (found[:2], found[2:])]
            for name, found in self.given.items()
        }


def tensor(*shape, dtype=np.float16, encoding="bytes"):
    return F.Tensor(shape=shape, dtype=dtype, encoding=encoding)


def fields(**more):
    """What a record must hold, with ``more`` added or in place of it."""
    return {
        "id": F.Text(),
        "features": tensor(REGIONS, FEATURES),
        "captions": F.Sequence(F.Text()),
    } | more


def example(number, **more):
    values = np.arange(REGIONS * FEATURES, dtype=np.float16).reshape(REGIONS, FEATURES)
    found = {
        "id": f"img{number}",
        "features": values + np.float16(20 * number),
        "captions": [f"a picture {number} of {k}" for k in range(1 + number % 2)],
    }
    return found | more


def write(folder, examples=None, *, splits=("train",), change=lambda _: {}, **more):
    """The folder of a dataset with ``examples`` (or 4 of them, ``change``d) in every split."""
    found = examples or [example(n) | change(n) for n in range(4)]
    builder = Foreign(fields=fields(**more), splits=dict.fromkeys(splits, found), data_dir=folder)
    with contextlib.redirect_stdout(io.StringIO()):
        builder.download_and_prepare()
    return folder / "foreign" / "2.1.0"


def shard(folder, split="train", number=0):
    return sorted(folder.glob(f"*-{split}.array_record-*"))[number]


def flip(path, sought):
    """One bit of the first place where ``sought`` stands."""
    data = bytearray(path.read_bytes())
    data[data.index(sought)] ^= 1
    path.write_bytes(data)
