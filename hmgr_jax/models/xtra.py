"""XTRA (Gur et al., Findings of EMNLP 2021): visual questions answered with retrieved captions.

A retriever that was trained before finds captions for the picture (or the question) in a bank;
a reader answers from the question, these captions and the picture.

    question ‖ k captions ‖ regions -> reader -> [B, W] -> classifier -> [B, A]

Retrieved captions are a table that is joined to a batch here, so that a bank is swapped for another
one without compiling, and k at test may differ from k in training. The answers are items: the
vector of one is its column of the classifier with its bias, and a score is its logit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from hmgr_jax.errors import UserError
from hmgr_jax.layers.bert import START, Sizes
from hmgr_jax.layers.dropout import Keys, keep_mask
from hmgr_jax.layers.linear import einsum
from hmgr_jax.layers.masking import length_mask
from hmgr_jax.layers.regions import SCALES
from hmgr_jax.losses.soft_answers import answer_loss, soft_targets
from hmgr_jax.models.base import (
    Axis,
    Banks,
    Codes,
    Feature,
    Items,
    Model,
    Parts,
    Plan,
    Terms,
    Variables,
    example,
)
from hmgr_jax.models.ranges import check_ranges
from hmgr_jax.models.xtra_readers import MCAN, Retrieved, VisualBert
from hmgr_jax.shapes import Array, Float, Int, Tree

READERS = {"visualbert": VisualBert, "mcan": MCAN}
CHOICES = {
    "reader": tuple(READERS),
    "query": ("image", "question"),
    "retrieve": ("captions", "images", "both"),
    "caption_positions": ("restart", "run_on"),
    "region_scale": SCALES,
}
AT_LEAST = dict.fromkeys(
    ("width", "layers", "heads", "intermediate", "word_dim", "caption_words"), 1
) | dict.fromkeys(("positions", "k_train", "k_test", "picture_dim"), 0)
QUERIES = {"image": "picture", "question": "question"}
"""{query: the number of an item that is its row of ``retrieved``}."""


@dataclass(frozen=True)
class XTRA(Model):
    """Hyper-parameters of XTRA; sizes of 0 come from the data, the others are BERT-base's."""

    modalities: ClassVar[tuple[str, ...]] = ("question", "answer")
    coarse_exact: ClassVar[bool] = True

    vocabulary_size: int = 0
    answers: int = 0
    regions: int = 0
    region_dim: int = 0
    dtype: str = "float32"
    # reader
    reader: str = "visualbert"
    width: int = 768
    layers: int = 12
    """Of MCAN as many of self-attention and as many that are guided."""
    heads: int = 12
    intermediate: int = 3072
    positions: int = 512
    word_dim: int = 300
    """Of MCAN."""
    region_scale: str = "none"
    dropout: float = 0.1
    head_dropout: float = 0.1
    # retrieval
    k_train: int = 10
    k_test: int = 10
    """Captions or pictures that are read for a question; 0: none."""
    index_train: str = "main"
    index_test: str = ""
    """Names of banks; empty: the one of training."""
    query: str = "image"
    retrieve: str = "captions"
    picture_dim: int = 0
    """Of the retriever's vectors, where pictures are retrieved."""
    exclude_owner: bool = True
    caption_words: int = 20
    """Words of a caption that are read."""
    caption_positions: str = "restart"
    """``restart``: the words of every caption count from 0; ``run_on``: from the question on."""
    retrieval_dropout: float = 0.1
    """Of whole captions (pictures), in training."""

    def __post_init__(self) -> None:
        check_ranges(self, choices=CHOICES, at_least=AT_LEAST)
        if self.width % self.heads:
            raise UserError(
                f"model.heads, {self.heads}, do not divide model.width, {self.width}: change one."
            )
        if self.retrieve != "captions" and not self.picture_dim:
            raise UserError(
                f"model.retrieve is {self.retrieve}, so model.picture_dim must be the length of "
                "the retriever's vectors: set it, 1024 for DXR as it is."
            )

    @property
    def needs_labels(self) -> bool:
        """Always: how many annotators gave which answer."""
        return True

    @property
    def banks(self) -> Banks | None:
        """What is to be retrieved; None where nothing is read of it."""
        count = max(self.k_train, self.k_test)
        if not count:
            return None
        return Banks(
            self.index_train,
            self.index_test or self.index_train,
            count,
            self.query,
            self.retrieve,
            self.caption_words,
            self.exclude_owner,
        )

    @property
    def sizes(self) -> Sizes:
        """Of the encoder."""
        return Sizes(
            vocabulary=self.vocabulary_size,
            width=self.width,
            layers=self.layers,
            heads=self.heads,
            intermediate=self.intermediate,
            positions=self.positions,
            dropout=self.dropout,
        )

    def fit_to(self, plan: Plan) -> XTRA:
        """Sizes, words and answers from the data."""
        if not plan.classes or (self.answers and self.answers != plan.classes):
            raise UserError(
                f"xtra chooses among answers, of which model.answers says {self.answers or 'none'} "
                f"and the data has {plan.classes}: give data with answers, and leave "
                "model.answers at 0."
            )
        regions, dim = plan.features["question"]["regions"]
        return replace(
            self,
            answers=plan.classes,
            vocabulary_size=self.vocabulary_size or plan.vocabulary_size,
            regions=self.regions or regions,
            region_dim=self.region_dim or dim,
        )

    def inputs(self) -> Mapping[str, Mapping[str, Feature]]:
        """A question, its picture's regions, and its row of what was retrieved; an answer's number.

        Which number is the row depends on ``query``.
        """
        question = {
            "tokens": Feature((None,), "int32"),
            "lengths": Feature((), "int32"),
            "regions": Feature((self.regions, self.region_dim), "float16"),
            "n_regions": Feature((), "int32"),
            QUERIES[self.query]: Feature((), "int32"),
        }
        return {"question": question, "answer": {"number": Feature((), "int32")}}

    def parts(self) -> Parts:
        """What reads words, what reads regions, the layers, and the classifier."""
        parts: dict[str, tuple[str, ...]] = {"reader": ("reader",), "visual": ("reader/visual",)}
        if self.reader == "visualbert":
            parts |= {part: (f"reader/bert/{part}",) for part in ("embeddings", "encoder")}
            parts["bert"] = ("reader/bert",)
            parts["head"] = ("reader/hidden", "reader/norm")
        else:
            parts["words"] = ("reader/words/vectors/vectors",)
        return {**parts, "classifier": ("classifier",)}

    def init(self, key: Array, tables: Tree = None) -> Variables:
        """Fresh parameters, which do not depend on what was retrieved."""
        first, second = jax.random.split(key)
        items = example(self.inputs()["question"])
        made = READERS[self.reader](self).init(first, items, self._nothing(1), None)
        classifier = {
            "kernel": START(second, (self.width, self.answers), jnp.float32),
            "bias": jnp.zeros(self.answers, jnp.float32),
        }
        return Variables({"reader": made["params"], "classifier": classifier}, {}, None, tables)

    # --- one item -----------------------------------------------------------------------------

    def encode(
        self, variables: Variables, modality: str, items: Items, *, train: bool, keys: Keys | None
    ) -> tuple[Codes, Tree]:
        """Vectors [B, W + 1]: what was read with a 1 after it; an answer's column with its bias.

        Raises:
            UserError: fewer were retrieved than are to be read.
        """
        if modality == "answer":
            return self._columns(variables)[items["number"]], variables.stats
        keys = keys if train else None
        found = self._retrieved(variables.tables, items, train, keys)
        given = {"params": variables.params["reader"]}
        read: Any = READERS[self.reader](self).apply(given, items, found, keys)
        return jnp.concatenate([read, jnp.ones_like(read[:, :1])], axis=1), variables.stats

    def _columns(self, variables: Variables) -> Float[Array, "A E"]:
        """The classifier, a row an answer, its bias last."""
        of = variables.params["classifier"]
        return jnp.concatenate([of["kernel"].T, of["bias"][:, None]], axis=1)

    def _nothing(self, batch: int) -> Retrieved:
        return Retrieved(
            jnp.zeros((batch, 0, 1), jnp.int32),
            jnp.zeros((batch, 0, 1), bool),
            jnp.zeros((batch, 0, self.picture_dim), jnp.float32),
            jnp.zeros((batch, 0), bool),
        )

    def _retrieved(self, tables: Tree, items: Items, train: bool, keys: Keys | None) -> Retrieved:
        """The first k of what was retrieved for each item, in training with some left out."""
        found = self._nothing(len(items["lengths"]))
        k = self.k_train if train else self.k_test
        if not k:
            return found
        if tables is None or tables["retrieved"].shape[1] < k:
            has = 0 if tables is None else tables["retrieved"].shape[1]
            raise UserError(
                f"{k} captions are to be read, but {has} were retrieved: lower "
                "model.k_train and model.k_test."
            )
        rows = tables["retrieved"][items[QUERIES[self.query]]][:, :k]
        there, rows = rows >= 0, jnp.maximum(rows, 0)
        if keys is not None and self.retrieval_dropout:
            there &= keep_mask(keys.named("retrieved"), (k,), self.retrieval_dropout)
        if self.retrieve != "images":
            tokens = tables["captions"][rows]
            lengths = jnp.where(there, tables["lengths"][rows], 0)
            words = length_mask(lengths.reshape(-1), tokens.shape[2]).reshape(tokens.shape)
            found = found._replace(tokens=tokens, words=words)
        if self.retrieve != "captions":
            vectors = tables["vectors"][rows]  # 0 where nobody knows the caption's picture
            known = there & (vectors != 0).any(axis=-1)
            found = found._replace(vectors=vectors, pictures=known)
        self._demand_positions(items["tokens"].shape[1], found.tokens.shape[1:])
        return found

    def _demand_positions(self, question: int, captions: tuple[int, ...]) -> None:
        """Refuse words beyond the table of positions, which would all share its last one."""
        count, size = captions
        run_on = self.caption_positions == "run_on"
        most = question + count * size if run_on else max(question, size)
        if self.reader == "visualbert" and most > self.positions:
            raise UserError(
                f"A question of {question} and {count} captions of {size} tokens take positions to "
                f"{most}, but model.positions is {self.positions}: raise it, or lower "
                "model.k_train and model.k_test."
            )

    # --- loss ---------------------------------------------------------------------------------

    def loss(
        self,
        variables: Variables,
        codes: Mapping[str, Codes],
        row: Items,
        *,
        step: Int[Array, ""],
        keys: Keys,
        axis: Axis,
    ) -> tuple[Float[Array, ""], Terms, Tree, Tree]:
        """Binary cross entropy of all answers against soft targets."""
        logits = einsum("bd,ad->ba", codes["question"], self._columns(variables))
        total = answer_loss(logits, soft_targets(row["labels"]), row["valid"], axis)
        return total, {}, variables.stats, None
