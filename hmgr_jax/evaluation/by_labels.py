"""Metrics of queries with the training items as gallery, by shared labels."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from hmgr_jax.data.split import Split
from hmgr_jax.errors import UserError
from hmgr_jax.evaluation.evaluate import Evaluator
from hmgr_jax.evaluation.tiles import check_memory
from hmgr_jax.metrics.directions import direction
from hmgr_jax.metrics.protocols import get_protocol
from hmgr_jax.metrics.shared_labels import SharedLabels, sharing
from hmgr_jax.models.base import Variables

PREFIX = "train_gallery/"
"""Prefix of these metrics."""


def check_labels(queries: Split, train: Split, protocols: Sequence[str]) -> None:
    """Check that a protocol of shared labels and labels are there.

    Raises:
        UserError: one of them is missing.
    """
    judged = any(isinstance(get_protocol(name), SharedLabels) for name in protocols)
    if not judged or not queries.labels or not train.labels:
        raise UserError(
            "eval.train_gallery needs labels of test and train and a protocol map or map_relevant "
            "in eval.protocols: add them, or set it to false."
        )


def against_train(
    evaluator: Evaluator,
    variables: Variables,
    queries: Split,
    train: Split,
    protocols: Sequence[str],
) -> dict[str, float]:
    """Metrics of queries with the training items of the other modality as gallery (SCKR).

    Args:
        evaluator: of the model.
        variables: finalised.
        queries: the split of the queries.
        train: the split of the gallery.
        protocols: those of shared labels are reported, with `PREFIX`.

    Raises:
        UserError: see `check_labels`.
    """
    check_labels(queries, train, protocols)
    chosen = [p for p in map(get_protocol, protocols) if isinstance(p, SharedLabels)]
    found: dict[str, float] = {}
    for a, b in itertools.permutations(evaluator.model.modalities, 2):
        check_memory(len(queries.sources[a]), len(train.sources[b]), codes=0)
        codes = {
            a: evaluator.encode(variables, a, queries.sources[a]),
            b: evaluator.encode(variables, b, train.sources[b]),
        }
        first, second = sorted((a, b), key=evaluator.model.modalities.index)
        scores = evaluator.scores(variables, first, codes[first], second, codes[second])
        matrix = scores if first == a else scores.T
        matrix, relevant = sharing(matrix, queries.labels[a], train.labels[b])
        for protocol in chosen:
            of_direction = protocol.of_direction(matrix, relevant, direction(a, b))
            found |= {f"{PREFIX}{name}": value for name, value in of_direction.items()}
    return found
