"""The place of a feature in a serialised Example, against the parser of TFDS."""

import numpy as np
import pytest
from tensorflow_datasets.proto import tf_example_pb2

from hmgr_jax.data.records.rows import locate


def example(**features):
    found = tf_example_pb2.Example()
    for name, value in features.items():
        kind = "bytes_list" if isinstance(value, bytes) else "int64_list"
        getattr(found.features.feature[name], kind).value.append(value)
    return found.SerializeToString(deterministic=True)


@pytest.mark.parametrize("size", [1, 100, 127, 128, 16383, 16384, 300_000])
def test_the_bytes_of_every_feature(size):
    rng = np.random.default_rng(size)
    given = {"features": rng.bytes(size), "boxes": rng.bytes(3), "zid": b"img7", "count": 5}
    record = example(**given)
    for name in ("features", "boxes", "zid"):
        at, length = locate(record, name.encode())
        assert record[at : at + length] == given[name]


def test_missing_fields_are_not_found():
    record = example(features=b"abcdef", count=5)
    assert locate(record, b"feature") is None
    assert locate(record, b"count") is None  # no bytes
    assert locate(b"", b"features") is None
    assert locate(example(), b"features") is None
    for cut in range(len(record)):
        found = locate(record[:cut], b"features")
        assert found is None or record[:cut][found[0] : sum(found)] == b"abcdef"
    rng = np.random.default_rng(0)
    for _ in range(300):
        locate(rng.bytes(40), b"features")  # never an error
