"""Initialise parts of a model from another run: ``config.init = {"image": "runs/other"}``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import jax
from flax.traverse_util import unflatten_dict

from hmgr_jax.data.text.pieces import vocabulary_from_json
from hmgr_jax.data.text.vocabulary import Vocabulary
from hmgr_jax.errors import UserError
from hmgr_jax.leaves import arrange_like, by_name
from hmgr_jax.models.base import Parts
from hmgr_jax.shapes import Tree
from hmgr_jax.training.checkpoint import Checkpoints


def warm_start(
    params: Tree,
    parts: Parts,
    init: Mapping[str, str],
    vocabulary: Vocabulary,
    of: str = "params",
) -> Tree:
    """Replace the parts named in ``init`` by those of the best step of other runs.

    Args:
        params: freshly drawn parameters.
        parts: ``model.parts()``.
        init: {part: workdir of a run}; a part with an empty workdir keeps its random values.
        vocabulary: a part with word vectors needs a run with the same words.
        of: the tree of the state: ``params``, or ``stats``, which only some parts have.
    """
    for part, workdir in init.items():
        own = {n: x for n, x in by_name(params).items() if _within(n, parts[part])}
        if not workdir or (not own and of != "params"):
            continue
        if not own:
            raise UserError(f"init.{part} is set, but the part has no parameters: remove it.")
        words = vocabulary if _holds_words(part, parts) else None
        leaves = by_name(params) | _read(part, workdir, own, words, of)
        params = arrange_like(params, leaves, None)
    return params


def _read(
    part: str, workdir: str, own: Mapping[str, jax.Array], words: Vocabulary | None, of: str
) -> dict[str, jax.Array]:
    """The leaves ``own`` of the best step (the newest where none was evaluated) of a run."""
    folder = Path(workdir) / "checkpoints"
    if not folder.is_dir():
        raise UserError(
            f"init.{part} names {workdir}, which holds no checkpoints: give the --workdir of a "
            "trained run."
        )
    template = {of: unflatten_dict(dict(own), sep="/")}
    with Checkpoints(folder, read_only=True) as checkpoints:
        try:
            state, meta, _ = checkpoints.restore(template, best=True, partial=True)
        except UserError as error:
            raise UserError(f"init.{part} cannot start from {workdir}: {error}") from None
    if words is not None and vocabulary_from_json(meta["vocabulary"]) != words:
        raise UserError(
            f"init.{part} holds word vectors, but {workdir} was trained with another vocabulary: "
            "set data.vocabulary to the same file in both runs, or remove the part."
        )
    return by_name(state[of])


def _within(name: str, paths: tuple[str, ...]) -> bool:
    return any(name == path or name.startswith(f"{path}/") for path in paths)


def _holds_words(part: str, parts: Parts) -> bool:
    """Whether the part overlaps with the word vectors."""
    own, words = parts[part], parts.get("words", ())
    return any(_within(x, own) for x in words) or any(_within(x, words) for x in own)
