"""Optional hooks of a model, needed by one or two systems beside the contract in base.py.

`Model` inherits every hook with a default that does nothing. A new system can ignore this file.
``variables`` is always a `hmgr_jax.models.base.Variables`, ``codes`` the result of `Model.encode`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from hmgr_jax.layers.bank import Reading
from hmgr_jax.models.corpus import Corpus
from hmgr_jax.shapes import Array, Bool, Float, Int, Tree


class Banks(NamedTuple):
    """The banks of captions that are searched before training, with the search options (XTRA)."""

    train: str
    """Name of the bank in training."""
    test: str
    """Name of the bank at evaluation."""
    most: int
    """Results per query, best first."""
    query: str
    """``image``: search with the picture of a question; ``question``: with its words."""
    what: str
    """``captions``, ``images`` (vectors of their pictures) or ``both``."""
    words: int
    """Words read per caption."""
    exclude_owner: bool
    """Whether captions of the question's own picture are left out."""


class Attended(NamedTuple):
    """Attention from the fragments of one item (queries) to the fragments of another (contexts)."""

    weights: Float[Array, "K Q Y"]
    """Weights at each of K steps, queries by contexts; 0 at padded contexts."""
    cosines: Float[Array, "K Q"]
    """Similarity of a query and its attended context."""


class Explanation(NamedTuple):
    """The score of one image and one caption, step by step."""

    scores: Float[Array, " K"]
    attention: Mapping[str, Attended]
    """{direction: Attended}, queries first: in ``t2i`` words attend to regions."""


class Hooks:
    """The hooks and their defaults; `Model` inherits them."""

    # --- the data -----------------------------------------------------------------------------

    @property
    def needs_labels(self) -> bool:
        """Whether ``loss`` needs ``labels`` in ``row``."""
        return False

    @property
    def reads_pieces(self) -> bool:
        """Whether texts may be word pieces (`hmgr_jax.data.text.pieces`)."""
        return False

    @property
    def positions(self) -> int:
        """The longest text that the model can read, in tokens; 0: no limit."""
        return 0

    # --- before the first step ----------------------------------------------------------------

    @property
    def needs_tables(self) -> bool:
        """Whether the model overrides ``tables_of``."""
        return type(self).tables_of is not Hooks.tables_of

    def tables_of(self, words: Corpus) -> Tree:
        """Build the constant tables for ``init`` from the training texts; default None."""
        return None

    @property
    def banks(self) -> Banks | None:
        """The banks whose search results become ``tables``; default None."""
        return None

    def observe(self, stats: Tree, train: Mapping[str, Any]) -> Tree:
        """Measure the statistics of step 0 from ``train``, {modality: training source}.

        Default: the statistics of ``init``. A system that standardises its features measures them
        here.
        """
        return stats

    # --- training with a memory ---------------------------------------------------------------

    def write_memory(self, memory: Tree, written: Tree, good: Bool[Array, ""], axis: Any) -> Tree:
        """The memory after a step, from what ``loss`` returned; unchanged unless ``good``.

        ``axis`` is the model's ``Axis``. Default: unchanged.
        """
        return memory

    @property
    def split_slots(self) -> int:
        """Slots of a memory that is split over the devices; 0: each device holds all of it.

        All arrays of a split memory but scalars have a leading axis of so many slots. ``loss`` and
        ``write_memory`` get this device's part, and ``encode_over_parts`` replaces ``encode`` at
        evaluation.
        """
        return 0

    def encode_over_parts(
        self, variables: Tree, modality: str, items: Mapping[str, Array], axis: Any
    ) -> Tree:
        """Inference codes of this device's items, with this device's part of a split memory."""
        raise NotImplementedError

    # --- reports of a step --------------------------------------------------------------------

    @property
    def summed(self) -> frozenset[str]:
        """Terms of ``loss``, and ``loss`` itself, that are sums over the rows of the batch.

        A step reports them per row (`hmgr_jax.training.step`); its gradients are of the sums.
        """
        return frozenset()

    def plateau(self, row: Mapping[str, Array], step: Array, axis: Any) -> Array | None:
        """The ``triplet`` term, a sum, of scores that are all equal; None without hinges."""
        return None

    # --- after the first epoch, before evaluation ---------------------------------------------

    def first_epoch_message(self, report: Mapping[str, float]) -> str | None:
        """Optional message after the first epoch, from its last loss terms."""
        return None

    @property
    def needs_train(self) -> bool:
        """Whether ``finalize`` runs before every evaluation, on the encoded training items.

        Default: whether the model overrides it.
        """
        return type(self).finalize is not Hooks.finalize and not self.needs_train_at_end

    @property
    def needs_train_at_end(self) -> bool:
        """Whether ``finalize`` runs only after training, and changes only the memory."""
        return False

    def before_finalize(self, variables: Tree) -> Any:
        """Variables with which the training items are encoded for ``finalize``."""
        return variables

    def finalize(
        self, variables: Tree, train_codes: Mapping[str, Tree], rows: Mapping[str, np.ndarray]
    ) -> Any:
        """Prepare variables for evaluation, such as a memory or a table of neighbours.

        Args:
            variables: the variables after training.
            train_codes: {modality: codes of the training items, in order}.
            rows: {modality: int [N]}, the item of each of the N training rows.
        """
        return variables

    @property
    def remembers(self) -> bool:
        """Whether codes read a memory, so that dev is also evaluated without it."""
        return False

    def memory_report(
        self, variables: Tree, codes: Mapping[str, Tree]
    ) -> tuple[dict[str, Tree], dict[str, float]]:
        """The codes of a split after the memory, and metrics of its use.

        ``codes`` are those before it, under `before_finalize`; only if the model ``remembers``.
        """
        raise NotImplementedError

    def readings(self, variables: Tree, modality: str, codes: Tree) -> Reading | None:
        """What items read from the memory; None if they read nothing.

        ``codes`` are those before the memory, under `before_finalize`.
        """
        return None

    def stored_vectors(self, variables: Tree) -> dict[str, Float[np.ndarray, "S E"]] | None:
        """{modality: vectors of training items in the memory}; None if it holds none for good.

        A calibration of scores uses them instead of vectors of its own.
        """
        return None

    def stored_items(
        self, variables: Tree, rows: Mapping[str, np.ndarray]
    ) -> dict[str, Int[np.ndarray, " S"]]:
        """{modality: the training item in every slot of the memory, -1 where it is unknown}.

        ``rows`` are those of `finalize`; only if the model has ``readings``.
        """
        raise NotImplementedError

    # --- reports on items and pairs -----------------------------------------------------------

    def uncertainty(self, codes: Tree) -> Float[Array, " n"] | None:
        """Uncertainty of each item, larger is less certain; None for point embeddings."""
        return None

    def relations(
        self, variables: Tree, modality: str, items: Mapping[str, Array]
    ) -> Float[Array, "B K N N"] | None:
        """Edge weights within each item in K graph layers, [..., to, from]; None without graph."""
        return None

    def pool_weights(
        self, variables: Tree, modality: str, items: Mapping[str, Array]
    ) -> Float[Array, "B N"] | None:
        """Weight of each fragment in the vector of its item; None if fragments have no weights."""
        return None

    @classmethod
    def explains_vectors(cls) -> bool:
        """Whether the model overrides ``pool_weights``."""
        return cls.pool_weights is not Hooks.pool_weights

    @classmethod
    def explainable(cls) -> bool:
        """Whether the model overrides ``explain``: it explains the score of a pair."""
        return cls.explain is not Hooks.explain

    def explain(self, variables: Tree, image: Tree, text: Tree) -> Explanation:
        """Attention behind the score of one image and one caption (codes of one item each)."""
        raise NotImplementedError
