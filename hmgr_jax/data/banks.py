"""Banks of captions that systems retrieve from, and the files of VQA v2 among which they lie."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hmgr_jax.data.generated.worlds.facts import BANKS
from hmgr_jax.data.generated.worlds.questions import Worlds
from hmgr_jax.data.generated.worlds.questions import open_bank as open_worlds_bank
from hmgr_jax.data.vqa.open import Layout as VQALayout
from hmgr_jax.data.vqa.open import open_bank as open_vqa_bank
from hmgr_jax.data.vqa.questions import Bank
from hmgr_jax.errors import UserError


def bank_names(data: Any) -> tuple[str, ...]:
    """Names of the banks of captions of ``config.data``, the default first.

    Raises:
        UserError: there is none.
    """
    if data.source == "questions":
        return tuple(BANKS)
    if data.source == "vqa" and data.vqa.banks:
        return tuple(data.vqa.banks)
    raise UserError(
        f"data.source {data.source} has no bank of captions to retrieve from: set model.k_train "
        "and model.k_test to 0, or give questions."
    )


def open_bank(data: Any, name: str) -> Bank:
    """Open a bank of captions by name.

    Raises:
        UserError: no bank has that name.
    """
    bank_names(data)
    if data.source == "vqa":
        return open_vqa_bank(vqa_layout(data), name)
    return open_worlds_bank(Worlds(**data.questions.to_dict()), name)


def vqa_layout(data: Any) -> VQALayout:
    """File locations of VQA v2."""
    given: dict[str, Any] = data.vqa.to_dict()
    splits, words = dict(data.splits), data.max_words
    return VQALayout(root=Path(data.root), splits=splits, max_words=words, **given)
