"""PyTorch's zip format: a pickle that describes tensors, and a record a storage with the numbers.

Records are ``NAME/data.pkl``, ``NAME/data/KEY`` and ``NAME/byteorder``, all stored uncompressed
(PyTorch's notes on serialization; the default of ``torch.save`` since 1.6).
"""

from __future__ import annotations

import zipfile
from pathlib import Path

from hmgr_jax.errors import UserError
from hmgr_jax.interop import torch_pickle
from hmgr_jax.interop.torch_pickle import Storage
from hmgr_jax.interop.torch_saved import Saved

PICKLE = "data.pkl"


class TorchZip(Saved):
    """An open archive; tensors are read when they are asked for.

    Raises:
        UserError: the archive is damaged, of a big-endian machine, or holds anything but tensors
            and plain values.
    """

    def __init__(self, archive: zipfile.ZipFile, path: Path) -> None:
        super().__init__(path)
        self._archive = archive
        names = [n for n in archive.namelist() if n.endswith(f"/{PICKLE}") and n.count("/") == 1]
        if len(names) != 1:
            raise UserError(
                f"{path} is a zip file with {len(names)} records FOLDER/{PICKLE} instead of one: "
                "give what torch.save wrote."
            )
        self._prefix = names[0].removesuffix(PICKLE)
        order = f"{self._prefix}byteorder"
        if order in archive.namelist() and self._record("byteorder") != b"little":
            raise self._big_endian()
        self.root = torch_pickle.load(self._record(PICKLE), str(path))

    def _bytes_of(self, storage: Storage) -> bytes:
        return self._record(f"data/{storage.key}")

    def _record(self, name: str) -> bytes:
        try:
            info = self._archive.getinfo(self._prefix + name)
            if info.compress_type != zipfile.ZIP_STORED:  # could unpack to any size
                raise self._damaged(f"{name} is compressed, as torch.save never does")
            return self._archive.read(info)
        except KeyError:
            raise self._damaged(f"the record {name} is missing") from None
        except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
            raise self._damaged(str(error)) from None
