"""What an index knows of its files, and blocks of a killed command."""

import numpy as np
import pytest

from hmgr_jax.errors import UserError
from hmgr_jax.search import encoded_blocks
from hmgr_jax.search.followed import Followed


def test_followed_survives_being_written(tmp_path):
    followed = Followed(["/p"], {"a": (1, 2)}, {"b": (3, 4)}, ["c"])
    followed.write(tmp_path)
    assert Followed.read(tmp_path) == followed
    (tmp_path / "followed.json").write_text("{")
    with pytest.raises(UserError, match="is damaged"):
        Followed.read(tmp_path)


class _Encoder:
    """Encodes a file as the length of its name."""

    def __init__(self):
        self.seen = []

    def encode(self, modality, files):
        self.seen += files
        return {"length": np.array([[len(file.name)] for file in files], np.float32)}


@pytest.mark.parametrize("name", ["readable.npy", "codes/0.npy", "codes/form.json", "digests.json"])
def test_a_damaged_block_is_encoded_again(tmp_path, name):
    files, encoder = [(tmp_path / "a.png", (1, 2)), (tmp_path / "bc.png", (3, 4))], _Encoder()
    given = encoder, "key", files, tmp_path / "blocks"
    codes, readable = encoded_blocks.encode_files(*given)
    encoded_blocks.encode_files(*given)
    assert len(encoder.seen) == 2
    (block,) = (tmp_path / "blocks").iterdir()
    whole = (block / name).read_bytes()
    (block / name).write_bytes(whole[:-2])
    again, _ = encoded_blocks.encode_files(*given)
    assert len(encoder.seen) == 4
    assert again["length"].tolist() == codes["length"].tolist() == [[5], [6]]
    assert readable.all()
