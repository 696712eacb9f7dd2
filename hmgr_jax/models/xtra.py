"""XTRA (Gur et al., Findings of EMNLP 2021): visual questions answered with retrieved captions.

A trained retriever searches a bank of captions with the picture (or with the question). A reader
answers from the question, the k captions found and the picture.

    question ‖ k captions ‖ regions -> reader -> z [B, W] -> classifier -> logits [B, A]

    t_a   = mean over 9 of the 10 annotators of min(matches / 3, 1)
    L     = mean_i Σ_a BCE(logit_ia, t_ia)

Retrieved captions are a table (``variables.tables``), so that a bank is swapped without
recompiling, and k at test may differ from k in training. Answers are items: the code of an answer
is its column of the classifier with its bias, and the score is the logit. See docs/models/xtra.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from hmgr_jax.errors import UserError
from hmgr_jax.layers import bert
from hmgr_jax.layers.dropout import Keys, dropout, keep_mask
from hmgr_jax.layers.linear import Linear, einsum
from hmgr_jax.layers.masking import length_mask, masked_softmax
from hmgr_jax.layers.words import WordVectors
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
    example_item,
)
from hmgr_jax.models.options import option
from hmgr_jax.shapes import Array, Bool, Float, Int, Num, Tree

QUERIES = {"image": "picture", "question": "question"}
"""{query: the input that holds an item's row of the table ``retrieved``}."""
LAST = 2
"""Distance of a question's last word from the end of the tokens, which is ``<end>``."""
ENOUGH = 3
"""Number of annotators that give an answer full accuracy."""


class Retrieved(NamedTuple):
    """Search results for each question, best first."""

    tokens: Int[Array, "B K C"]
    """Words of captions and ``<end>``; K is 0 if no captions are read."""
    words: Bool[Array, "B K C"]
    """The mask of ``tokens``."""
    vectors: Float[Array, "B P E"]
    """Retriever's vectors of pictures; P is 0 if none are read."""
    pictures: Bool[Array, "B P"]
    """The mask of ``vectors``."""


# --- the reader visualbert ------------------------------------------------------------------------


class VisualBert(nn.Module):
    """``[CLS] question [SEP] caption [SEP] ... ‖ regions`` in one stream (Li et al., 2019).

    The segment is 0 for the question and 1 for captions; regions and retrieved pictures have their
    own learned vectors instead. The state of the last word of the question is pooled.
    """

    model: XTRA

    @nn.compact
    def __call__(self, items: Items, found: Retrieved, keys: Keys | None) -> Float[Array, "B W"]:
        """The vector for the classifier."""
        m = self.model
        dtype, sizes, lengths = jnp.dtype(m.dtype), m.sizes, items["lengths"]
        seen = Visual(m, name="visual")(items, found, keys)
        states = Stream(sizes, dtype, name="bert")(self._text(items, found), seen, keys)
        last = jnp.maximum(lengths - LAST, 0)[:, None, None]
        pooled = jnp.take_along_axis(states, last, axis=1)[:, 0]
        pooled = dropout(pooled, m.head_dropout, keys, "pooled")
        hidden = jax.nn.gelu(Linear(m.width, dtype=dtype, name="hidden")(pooled), approximate=False)
        return bert.layer_norm("norm")(hidden)

    def _text(self, items: Items, found: Retrieved) -> Text:
        """Ids, positions, segments and mask [B, L + K C] of the question and all captions."""
        tokens, lengths = items["tokens"], items["lengths"]
        batch, length = tokens.shape
        places = jnp.broadcast_to(jnp.arange(length)[None, :], tokens.shape)
        within = jnp.broadcast_to(
            jnp.arange(found.tokens.shape[2])[None, None, :], found.tokens.shape
        )
        if self.model.caption_positions == "run_on":
            sizes = jnp.sum(found.words, axis=2)
            before = lengths[:, None] + jnp.cumsum(sizes, axis=1) - sizes
            within = jnp.where(found.words, within + before[:, :, None], 0)
        segments = jnp.ones(found.tokens.shape, jnp.int32)
        parts = (found.tokens, within, segments, found.words)
        own = (tokens, places, jnp.zeros_like(tokens), length_mask(lengths, length))
        joined = [
            jnp.concatenate([a, b.reshape(batch, -1)], axis=1)
            for a, b in zip(own, parts, strict=True)
        ]
        return Text(*joined)


class Text(NamedTuple):
    """The words of the question and of all captions as one sequence."""

    ids: Int[Array, "B L"]
    positions: Int[Array, "B L"]
    segments: Int[Array, "B L"]
    mask: Bool[Array, "B L"]


class Stream(nn.Module):
    """BERT over words and visual tokens; its parameters have the names of `bert.Bert`'s."""

    sizes: bert.Sizes
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        text: Text,
        seen: tuple[Float[Array, "B N W"], Bool[Array, "B N"]],
        keys: Keys | None,
    ) -> Float[Array, "B M W"]:
        """States of all words, then of all visual tokens."""
        embeddings = bert.Embeddings(self.sizes, name="embeddings")
        x = embeddings(text.ids, text.positions, text.segments, keys)
        x = jnp.concatenate([x, seen[0]], axis=1)
        mask = jnp.concatenate([text.mask, seen[1]], axis=1)
        return bert.Encoder(self.sizes, self.dtype, name="encoder")(x, mask, keys)


class Visual(nn.Module):
    """Visual tokens: regions and vectors of retrieved pictures.

    Each kind has its own linear map and its own learned vector, which is added.
    """

    model: XTRA

    @nn.compact
    def __call__(
        self, items: Items, found: Retrieved, keys: Keys | None
    ) -> tuple[Float[Array, "B N W"], Bool[Array, "B N"]]:
        """Vectors and their mask."""
        m = self.model
        dtype = jnp.dtype(m.dtype)
        kinds = self.param("kinds", bert.START, (2, m.width), jnp.float32)
        regions = items["regions"].astype(jnp.float32)
        mask = length_mask(items["n_regions"], regions.shape[1])
        # Padding must be finite: attention weights of 0 do not remove NaN.
        regions = jnp.where(mask[:, :, None], regions, 0.0)
        x = Linear(m.width, dtype=dtype, name="regions")(regions) + kinds[None, :1]
        if m.retrieve != "captions":
            other = Linear(m.width, dtype=dtype, name="pictures")(found.vectors) + kinds[None, 1:]
            x, mask = jnp.concatenate([x, other], 1), jnp.concatenate([mask, found.pictures], 1)
        return dropout(bert.layer_norm("norm")(x), m.dropout, keys, "visual"), mask


# --- the reader mcan ------------------------------------------------------------------------------


class MCAN(nn.Module):
    """Deep modular co-attention (Yu et al., CVPR 2019), the captions read like the question.

    An LSTM reads the question and each caption separately. Their states form one sequence, each
    plus a learned vector of its source (question or caption). Layers of self-attention run over
    this text, then guided layers over the regions; both are pooled by attention, added and normed.
    """

    model: XTRA

    @nn.compact
    def __call__(self, items: Items, found: Retrieved, keys: Keys | None) -> Float[Array, "B W"]:
        """The vector for the classifier."""
        m = self.model
        dtype, batch = jnp.dtype(m.dtype), items["tokens"].shape[0]
        count, size = found.tokens.shape[1:]
        read = WordLSTM(m, name="words")
        sources = self.param("sources", bert.START, (2, m.width), jnp.float32)
        words = length_mask(items["lengths"], items["tokens"].shape[1])
        text = read(items["tokens"], items["lengths"]) + sources[None, :1]
        if count:
            lengths = jnp.sum(found.words, axis=2).reshape(-1)
            captions = read(found.tokens.reshape(batch * count, size), lengths)
            captions = captions.reshape(batch, count * size, -1) + sources[None, 1:]
            text = jnp.concatenate([text, captions], axis=1)
            words = jnp.concatenate([words, found.words.reshape(batch, -1)], axis=1)
        text = dropout(jnp.where(words[:, :, None], text, 0.0), m.dropout, keys, "words")
        seen, regions = Visual(m, name="visual")(items, found, keys)
        for number in range(m.layers):
            text = Guided(m.sizes, dtype, name=f"text{number}")(text, words, None, None, keys)
        for number in range(m.layers):
            layer = Guided(m.sizes, dtype, name=f"visual{number}")
            seen = layer(seen, regions, text, words, keys)
        flat = [
            AttentionFlat(m.width, m.head_dropout, dtype, name=name)(x, mask, keys)
            for name, x, mask in (("flat_text", text, words), ("flat_visual", seen, regions))
        ]
        return bert.layer_norm("norm")(flat[0] + flat[1])


class WordLSTM(nn.Module):
    """States of an LSTM over word vectors."""

    model: XTRA

    @nn.compact
    def __call__(
        self, tokens: Int[Array, "B L"], lengths: Int[Array, " B"]
    ) -> Float[Array, "B L W"]:
        """States of all words; states at padding are undefined."""
        x = WordVectors(self.model.vocabulary_size, self.model.word_dim, name="vectors")(tokens)
        run: Any = nn.RNN(nn.OptimizedLSTMCell(self.model.width, name="cell"), name="run")
        # The key is not used: the first carry is zero.
        found: Array = run(x, seq_lengths=lengths, init_key=jax.random.key(0))
        return found


def _norm(name: str) -> nn.LayerNorm:
    return nn.LayerNorm(epsilon=1e-6, use_fast_variance=False, dtype=jnp.float32, name=name)


class Guided(nn.Module):
    """Self-attention, attention to optional guides, and an MLP; a norm after each.

    Without guides this is MCAN's SA, with guides its SGA (section 3.1).
    """

    sizes: bert.Sizes
    """Only the fields width, heads, intermediate and dropout are used."""
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B N W"],
        mask: Bool[Array, "B N"],
        guides: Float[Array, "B M W"] | None,
        guide_mask: Bool[Array, "B M"] | None,
        keys: Keys | None,
    ) -> Float[Array, "B N W"]:
        """Apply the layer; results at padding of ``x`` are undefined."""
        s = self.sizes
        own = keys.named(self.name or "") if keys is not None else None
        x = _norm("own_norm")(x + self._attend("own", x, x, mask, own))
        if guides is not None and guide_mask is not None:
            x = _norm("guided_norm")(x + self._attend("guided", x, guides, guide_mask, own))
        hidden = jax.nn.relu(Linear(s.intermediate, dtype=self.dtype, name="hidden")(x))
        hidden = dropout(hidden, s.dropout, own, "hidden")
        update = Linear(s.width, dtype=self.dtype, name="out")(hidden)
        return _norm("norm")(x + dropout(update, s.dropout, own, "out"))

    def _attend(self, name: str, x: Array, to: Array, mask: Array, keys: Keys | None) -> Array:
        s, (batch, _, width) = self.sizes, x.shape
        heads = (batch, -1, s.heads, width // s.heads)
        query, key, value = (
            Linear(width, dtype=self.dtype, name=f"{name}_{part}")(of).reshape(heads)
            for part, of in (("query", x), ("key", to), ("value", to))
        )
        logits = einsum("bqhd,bkhd->bhqk", query, key, dtype=self.dtype) / heads[-1] ** 0.5
        weights = masked_softmax(logits, jnp.broadcast_to(mask[:, None, None, :], logits.shape))
        weights = dropout(weights, s.dropout, keys, f"{name}_weights")
        seen = einsum("bhqk,bkhd->bqhd", weights, value, dtype=self.dtype).reshape(x.shape)
        update = Linear(width, dtype=self.dtype, name=f"{name}_out")(seen)
        return dropout(update, s.dropout, keys, f"{name}_update")


class AttentionFlat(nn.Module):
    """Attention pooling: a linear map of the mean of the valid rows, weighted by an MLP."""

    features: int
    dropout: float = 0.1
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "B N W"], mask: Bool[Array, "B N"], keys: Keys | None
    ) -> Float[Array, "B W"]:
        """Pool the valid rows of ``x``; the hidden layer has half its width."""
        hidden = jax.nn.relu(Linear(x.shape[-1] // 2, dtype=self.dtype, name="hidden")(x))
        hidden = dropout(hidden, self.dropout, keys, f"{self.name}/hidden")
        weights = masked_softmax(Linear(1, name="weight")(hidden)[..., 0], mask)
        pooled = einsum("bn,bnd->bd", weights, x)
        return Linear(self.features, dtype=self.dtype, name="out")(pooled)


READERS = {"visualbert": VisualBert, "mcan": MCAN}


# --- loss -----------------------------------------------------------------------------------------


def soft_targets(counts: Num[Array, "B A"], annotators: int = 10) -> Float[Array, "B A"]:
    """Mean over all subsets without one annotator of min(matches / 3, 1), from counts of answers.

    With ten annotators 0, 1, 2, 3 and more matches give 0, 0.3, 0.6, 0.9 and 1, MCAN's table.
    """
    n = counts.astype(jnp.float32)
    without_one = jnp.minimum((n - 1.0) / ENOUGH, 1.0) * n
    others = jnp.minimum(n / ENOUGH, 1.0) * (annotators - n)
    return (without_one + others) / annotators


def answer_loss(
    logits: Float[Array, "b A"],
    targets: Float[Array, "b A"],
    valid: Bool[Array, " b"],
    axis: Any,
) -> Float[Array, ""]:
    """Binary cross entropy summed over answers, mean over the valid rows of all devices.

    Pythia and MMF write it as the mean times the number of answers.
    """
    each = jax.nn.softplus(logits) - logits * targets
    rows = jnp.where(valid, jnp.sum(each, axis=1), 0.0)
    count = axis.sum(jnp.sum(valid.astype(jnp.float32)))
    return axis.sum(jnp.sum(rows)) / jnp.maximum(count, 1.0)


# --- the system -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class XTRA(Model):
    """Options of XTRA; a size of 0 is taken from the data, other sizes are those of BERT-base."""

    modalities: ClassVar[tuple[str, ...]] = ("question", "answer")
    coarse_exact: ClassVar[bool] = True

    vocabulary_size: int = 0
    answers: int = 0
    regions: int = 0
    region_dim: int = 0
    dtype: str = "float32"
    # reader
    reader: str = option("visualbert", choices=tuple(READERS))
    width: int = option(768, at_least=1)
    layers: int = option(12, at_least=1)
    """For mcan: layers of self-attention, and the same number of guided layers."""
    heads: int = option(12, at_least=1)
    intermediate: int = option(3072, at_least=1)
    positions: int = option(512, at_least=0)
    word_dim: int = option(300, at_least=1)
    """Size of mcan's word vectors."""
    dropout: float = 0.1
    head_dropout: float = 0.1
    # retrieval
    k_train: int = option(10, at_least=0)
    k_test: int = option(10, at_least=0)
    """Captions or pictures read per question; 0: none."""
    index_train: str = "main"
    index_test: str = ""
    """Names of banks; empty: the bank used in training."""
    query: str = option("image", choices=tuple(QUERIES))
    retrieve: str = option("captions", choices=("captions", "images", "both"))
    picture_dim: int = option(0, at_least=0)
    """Length of the retriever's vectors, if pictures are retrieved."""
    exclude_owner: bool = True
    """Exclude captions of the question's own picture."""
    caption_words: int = option(20, at_least=1)
    """Words read per caption."""
    caption_positions: str = option("restart", choices=("restart", "run_on"))
    """``restart``: positions of each caption count from 0; ``run_on``: from the question on."""
    retrieval_dropout: float = 0.1
    """Share of captions (pictures) dropped in training."""

    # --- one item ---------------------------------------------------------------------------------

    def encode(
        self, variables: Variables, modality: str, items: Items, *, train: bool, keys: Keys | None
    ) -> tuple[Codes, Tree]:
        """Vectors [B, W + 1]: a question's z and a 1; an answer's classifier column and its bias.

        Raises:
            UserError: the table holds fewer captions than the model reads.
        """
        if modality == "answer":
            return self._classifier_rows(variables)[items["number"]], variables.stats
        keys = keys if train else None
        found = self._read_retrieved(variables.tables, items, train, keys)
        given = {"params": variables.params["reader"]}
        read: Any = READERS[self.reader](self).apply(given, items, found, keys)
        return jnp.concatenate([read, jnp.ones_like(read[:, :1])], axis=1), variables.stats

    def _classifier_rows(self, variables: Variables) -> Float[Array, "A E"]:
        """The classifier, one row per answer, its bias last."""
        of = variables.params["classifier"]
        return jnp.concatenate([of["kernel"].T, of["bias"][:, None]], axis=1)

    def _read_retrieved(
        self, tables: Tree, items: Items, train: bool, keys: Keys | None
    ) -> Retrieved:
        """The first k search results of each item, with dropout in training."""
        found = self._no_captions(len(items["lengths"]))
        k = self.k_train if train else self.k_test
        if not k:
            return found
        has = 0 if tables is None else tables["retrieved"].shape[1]
        if has < k:
            raise UserError(
                f"The model reads {k} captions, but {has} were retrieved: lower model.k_train and "
                "model.k_test."
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
            vectors = tables["vectors"][rows]  # 0 if the picture of the caption is unknown
            known = there & (vectors != 0).any(axis=-1)
            found = found._replace(vectors=vectors, pictures=known)
        self._check_positions(items["tokens"].shape[1], found.tokens.shape[1:])
        return found

    def _no_captions(self, batch: int) -> Retrieved:
        return Retrieved(
            jnp.zeros((batch, 0, 1), jnp.int32),
            jnp.zeros((batch, 0, 1), bool),
            jnp.zeros((batch, 0, self.picture_dim), jnp.float32),
            jnp.zeros((batch, 0), bool),
        )

    def _check_positions(self, question: int, captions: tuple[int, ...]) -> None:
        """Check that the position table is long enough for all words."""
        count, size = captions
        run_on = self.caption_positions == "run_on"
        most = question + count * size if run_on else max(question, size)
        if self.reader == "visualbert" and most > self.positions:
            raise UserError(
                f"A question of {question} and {count} captions of {size} tokens need {most} "
                f"positions, but model.positions is {self.positions}: raise it, or lower "
                "model.k_train and model.k_test."
            )

    # --- loss -------------------------------------------------------------------------------------

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
        logits = einsum("bd,ad->ba", codes["question"], self._classifier_rows(variables))
        total = answer_loss(logits, soft_targets(row["labels"]), row["valid"], axis)
        return total, {}, variables.stats, None

    # --- options, inputs and parameters -----------------------------------------------------------

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width % self.heads:
            raise UserError(
                f"model.heads must divide model.width, {self.width}, got {self.heads}: change one."
            )
        if self.retrieve != "captions" and not self.picture_dim:
            raise UserError(
                f"model.retrieve is {self.retrieve}, so model.picture_dim must be the length of "
                "the retriever's vectors: set it (1024 for DXR's default dim)."
            )

    @property
    def needs_labels(self) -> bool:
        """Always: the number of annotators who gave each answer."""
        return True

    @property
    def banks(self) -> Banks | None:
        """The banks to search; None if the model reads no captions or pictures."""
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
    def sizes(self) -> bert.Sizes:
        """Sizes of the reader's layers."""
        return bert.Sizes(
            vocabulary=self.vocabulary_size,
            width=self.width,
            layers=self.layers,
            heads=self.heads,
            intermediate=self.intermediate,
            positions=self.positions,
            dropout=self.dropout,
        )

    def fit_to(self, plan: Plan) -> XTRA:
        """Sizes, vocabulary and number of answers from the data."""
        if not plan.classes or (self.answers and self.answers != plan.classes):
            raise UserError(
                f"xtra needs answers: model.answers is {self.answers}, the data has "
                f"{plan.classes}. Give data with answers, and leave model.answers at 0."
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
        """A question with its picture's regions and its row of ``retrieved``; an answer's number.

        The row is the number of the picture or of the question, see ``query``.
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
        """The reader with its words, regions, BERT and head; and the classifier."""
        parts: dict[str, tuple[str, ...]] = {"reader": ("reader",), "visual": ("reader/visual",)}
        if self.reader == "visualbert":
            parts |= {part: (f"reader/bert/{part}",) for part in ("embeddings", "encoder")}
            parts["bert"] = ("reader/bert",)
            parts["head"] = ("reader/hidden", "reader/norm")
        else:
            parts["words"] = ("reader/words/vectors/vectors",)
        return {**parts, "classifier": ("classifier",)}

    def init(self, key: Array, tables: Tree = None) -> Variables:
        """Fresh parameters; they do not depend on ``tables``."""
        first, second = jax.random.split(key)
        items = example_item(self.inputs()["question"])
        made = READERS[self.reader](self).init(first, items, self._no_captions(1), None)
        classifier = {
            "kernel": bert.START(second, (self.width, self.answers), jnp.float32),
            "bias": jnp.zeros(self.answers, jnp.float32),
        }
        return Variables({"reader": made["params"], "classifier": classifier}, {}, None, tables)
