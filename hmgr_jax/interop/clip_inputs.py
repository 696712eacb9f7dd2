"""Tokenizer and preprocessing of pictures of a folder with a CLIP or SigLIP."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hmgr_jax.data.pictures import preprocessing
from hmgr_jax.data.pictures.preprocessing import PROCESSORS, Preprocessing
from hmgr_jax.data.text import tokenizer_file
from hmgr_jax.data.text.tokenizer_file import TokenizerFile
from hmgr_jax.errors import UserError
from hmgr_jax.files.reading import read_object
from hmgr_jax.interop.clip import Towers
from hmgr_jax.interop.transformers_folder import CONFIG

PROCESSOR, PROCESSORS_FILE = "preprocessor_config.json", "processor_config.json"
TOKENIZER_CONFIG, MARKS = "tokenizer_config.json", "special_tokens_map.json"


def read_tokenizer(folder: str | Path, towers: Towers) -> TokenizerFile:
    """The folder's tokenizer; raises `UserError` if there is none, or one for another network."""
    path = Path(folder, tokenizer_file.FILE)
    if not path.is_file():
        raise UserError(
            f"{path} is missing: only tokenizers in this form are supported, so save the folder "
            "again by a current transformers."
        )
    settings: dict[str, Any] = {}
    for name in (MARKS, TOKENIZER_CONFIG):
        if Path(folder, name).is_file():
            settings |= read_object(Path(folder, name), "get the file again.")
    try:
        content = path.read_text(encoding="utf-8")
        found = tokenizer_file.from_settings(content, settings, towers.text.positions)
        if len(found) > towers.text.vocabulary:
            raise ValueError(
                f"it has ids up to {len(found) - 1} for {towers.text.vocabulary} words"
            )
        end = towers.text.end
        if end is not None and end not in found.encode([]):
            raise ValueError(f"it does not end texts with the id {end}")
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} does not fit this {towers.kind} ({error}): give the tokenizer that was saved "
            f"with the network, with the pad_token in its {TOKENIZER_CONFIG}."
        ) from None
    return found


def read_preprocessing(folder: str | Path, towers: Towers) -> Preprocessing:
    """The folder's preprocessing of pictures.

    Raises `UserError` if there is none, one that is not supported, or one for another network.
    """
    path, both = Path(folder, PROCESSOR), Path(folder, PROCESSORS_FILE)
    known = " and ".join(PROCESSORS)
    advice = f"a folder with the settings of {known} is supported."
    if not path.is_file() and both.is_file():  # current versions save all processors together
        path, settings = both, read_object(both, advice).get("image_processor")
        settings = settings if isinstance(settings, dict) else {}
    else:
        settings = read_object(path, advice)
    try:
        found = preprocessing.from_settings(settings)
        if found.size != towers.image.image:
            raise ValueError(f"it makes {found.size} pixels for a tower of {towers.image.image}")
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path} cannot be used ({error}): only the processors {known} are supported, with "
            f"square pictures of the image_size in {CONFIG}."
        ) from None
    return found
