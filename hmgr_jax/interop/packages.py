"""Files of installed packages that hold nothing but a network's weights."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

from hmgr_jax.errors import UserError


def installed_file(package: str, ending: str, holds: str, command: str) -> Path:
    """The one file of an installed package whose name has an ending; nothing is imported.

    Args:
        package: its name on PyPI.
        ending: of the file, with the dot.
        holds: what the package holds, for messages.
        command: what pip installs to get it.

    Raises `UserError` if the package is not installed, or holds no such file.
    """
    try:
        files = importlib.metadata.files(package) or []
    except importlib.metadata.PackageNotFoundError:
        raise UserError(
            f"{holds} are in the package {package}, which is not installed: pip install {command}."
        ) from None
    found = [Path(str(file.locate())) for file in files if file.suffix == ending]
    if len(found) != 1 or not found[0].is_file():
        raise UserError(
            f"The package {package} holds {len(found)} files {ending} where one was expected: pip "
            f"install --force-reinstall {command}."
        )
    return found[0]
