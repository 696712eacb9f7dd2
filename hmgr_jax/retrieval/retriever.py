"""A trained model in one's own program: ``hmgr_jax.load(workdir)``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from hmgr_jax.data.captions import CaptionSource
from hmgr_jax.data.open import open_data
from hmgr_jax.data.split import DataSet
from hmgr_jax.data.tokens import tokenize
from hmgr_jax.data.vocabulary import Vocabulary
from hmgr_jax.errors import UserError
from hmgr_jax.models.base import Model, Plan, Variables
from hmgr_jax.training.checkpoint import Checkpoints
from hmgr_jax.training.evaluate import Evaluator
from hmgr_jax.training.experiment import make_model
from hmgr_jax.training.parallel import make_mesh, replicate


class Retriever:
    """Encodes items, scores pairs and searches a gallery with the dev-best step of a run."""

    def __init__(
        self,
        config: ConfigDict,
        model: Model,
        variables: Variables,
        vocabulary: Vocabulary,
        step: int,
    ) -> None:
        self.config, self.model, self.vocabulary, self.step = config, model, vocabulary, step
        mesh = make_mesh(config.parallel.devices)
        self.variables = replicate(mesh, variables)
        self.evaluator = Evaluator(
            model,
            mesh,
            batch_size=config.eval.batch_size,
            tile=config.eval.tile,
            buckets=config.data.buckets,
        )

    @classmethod
    def load(cls, workdir: str | Path, config: ConfigDict | None = None) -> Retriever:
        """The dev-best step of the run in ``workdir`` (its newest where none was evaluated).

        ``config`` replaces where the data lies and how it is evaluated; the model stays the one
        that was trained.

        Raises:
            UserError: there is no checkpoint, or it is damaged.
        """
        workdir = Path(workdir)
        if not (workdir / "checkpoints").is_dir():
            raise UserError(f"{workdir} holds no checkpoints: give the --workdir of a trained run.")
        with Checkpoints(workdir / "checkpoints", read_only=True) as checkpoints:
            newest = checkpoints.newest()
            if newest is None:
                raise UserError(f"{workdir} holds no whole checkpoint: train there first.")
            meta = checkpoints.meta(newest)
            saved = ConfigDict(_with_tuples(meta["config"]))
            model = make_model(saved, _plan(meta, saved))
            abstract = jax.eval_shape(lambda: model.init(jax.random.key(0)))
            parts = {"params": abstract.params, "stats": abstract.stats, "memory": abstract.memory}
            best = checkpoints.best_step()
            state, _, step = checkpoints.restore(parts, best, partial=True)
        if config is not None:
            if config.model.name != saved.model.name:
                raise UserError(
                    f"{workdir} holds a {saved.model.name}, not a {config.model.name}: give its own "
                    "recipe or another --workdir."
                )
            saved.data, saved.eval, saved.parallel = config.data, config.eval, config.parallel
        variables = Variables(**state, tables=None)
        return cls(saved, model, variables, Vocabulary(tuple(meta["vocabulary"])), step)

    def open(self, roles: Sequence[str]) -> DataSet:
        """The run's data set, with the vocabulary of the checkpoint."""
        return open_data(self.config.data, self.vocabulary, roles)

    def evaluate(self, split: str, protocols: Sequence[str]) -> dict[str, float]:
        """Metrics of a split of the run's data."""
        return self.evaluator.metrics(
            self.variables, self.open((split,)).splits[split], protocols
        )

    def encode(self, modality: str, items: Sequence[str] | Mapping[str, np.ndarray]) -> Any:
        """Codes of items, one for each, in order.

        Args:
            modality: one of ``model.modalities``.
            items: sentences for ``"text"``; otherwise arrays by input name with a leading item
                axis, such as ``{"regions": [n, R, D]}``.

        Raises:
            UserError: another modality, or inputs that do not fit the model.
        """
        if modality not in self.model.modalities:
            raise UserError(
                f"{self.config.model.name} knows {', '.join(self.model.modalities)}, not {modality}."
            )
        if isinstance(items, Mapping):
            source: Any = _Arrays(self._complete(modality, items))
        else:
            limit = self.config.data.max_words
            source = CaptionSource(map(tokenize, items), self.vocabulary, max_words=limit)
        return self.evaluator.encode(self.variables, modality, source)

    def score(self, a: tuple[str, Any], b: tuple[str, Any]) -> np.ndarray:
        """Score matrix of (modality, codes) with (modality, codes), higher is better."""
        return self.evaluator.scores(self.variables, a[0], a[1], b[0], b[1])

    def search(
        self, query: tuple[str, Any], gallery: tuple[str, Any], k: int = 10
    ) -> tuple[np.ndarray, np.ndarray]:
        """The best ``k`` gallery items of every query: (item numbers [q, k], scores [q, k])."""
        if k < 1:
            raise UserError(f"k must be at least 1, it is {k}.")
        first = self.model.modalities.index(query[0]) < self.model.modalities.index(gallery[0])
        scores = self.score(query, gallery) if first else self.score(gallery, query).T
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        return order, np.take_along_axis(scores, order, axis=1)

    @cached_property
    def _shapes(self) -> dict[str, dict[str, tuple]]:
        return {m: {n: f.shape for n, f in fs.items()} for m, fs in self.model.inputs().items()}

    def _complete(self, modality: str, items: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        found = {name: np.asarray(value) for name, value in items.items()}
        count = len(next(iter(found.values())))
        if "n_regions" in self._shapes[modality] and "n_regions" not in found:
            found["n_regions"] = np.full(count, found["regions"].shape[1], np.int32)
        for name, shape in self._shapes[modality].items():
            if name not in found or found[name].shape[1:] != shape or len(found[name]) != count:
                got = list(found[name].shape) if name in found else "nothing"
                raise UserError(
                    f"{modality} items need {name} of shape {[count, *shape]}, found {got}."
                )
            if found[name].dtype.kind == "f" and not np.isfinite(found[name]).all():
                raise UserError(f"{name} of the {modality} items holds NaN or infinity.")
        return found


class _Arrays:
    """Items that are in memory already."""

    lengths = None

    def __init__(self, items: dict[str, np.ndarray]) -> None:
        self._items = items

    def __len__(self) -> int:
        return len(next(iter(self._items.values())))

    def gather(self, items: np.ndarray, length: int | None = None) -> dict[str, np.ndarray]:
        return {name: value[items] for name, value in self._items.items()}


def _plan(meta: Mapping[str, Any], config: ConfigDict) -> Plan:
    features = {
        m: {name: tuple(shape) for name, shape in inputs.items()}
        for m, inputs in meta["features"].items()
    }
    return Plan(
        config.train.steps, meta["steps_per_epoch"], len(meta["vocabulary"]), features
    )


def _with_tuples(tree: Any) -> Any:
    """JSON's lists back to the tuples that configurations hold."""
    if isinstance(tree, Mapping):
        return {k: _with_tuples(v) for k, v in tree.items()}
    return tuple(_with_tuples(v) for v in tree) if isinstance(tree, list) else tree

