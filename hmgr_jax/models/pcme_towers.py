"""The two encoders of PCME: a picture (or its regions) and a caption as a Gaussian each."""

from __future__ import annotations

from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from hmgr_jax.layers.batch_norm import Rows
from hmgr_jax.layers.dropout import Keys, dropout
from hmgr_jax.layers.masking import length_mask, masked_mean
from hmgr_jax.layers.probabilistic import MeanHead, SigmaHead, plain_linear
from hmgr_jax.layers.recurrent import SentenceGRU
from hmgr_jax.layers.words import WordVectors, forget_words, remove_words
from hmgr_jax.models.base import Items
from hmgr_jax.models.picture_side import read_cells
from hmgr_jax.shapes import Array, Bool, Float


class Gaussian(NamedTuple):
    """What an encoder says of its items."""

    means: Float[Array, "B K D"]
    """K proposals, of unit length."""
    log_sigma: Float[Array, "B D"] | None
    """None where the side is a point."""
    attention: Float[Array, "B N K"] | None
    """How much the mean looks at every fragment."""


def _gaussian(
    model: Any,
    fragments: tuple[Float[Array, "B N C"], Bool[Array, "B N"]],
    wholes: tuple[Float[Array, "B D"], Float[Array, "B D"] | None],
    attention: bool,
) -> Gaussian:
    """The heads of one side, on its fragments and one vector of the whole for each head."""
    common: dict[str, Any] = {"attention": attention, "dtype": jnp.dtype(model.dtype)}
    mean = MeanHead(model.dim, proposals=model.proposals, **common, name="mean")
    means, weights = mean(*fragments, wholes[0])
    if wholes[1] is None:
        return Gaussian(means, None, weights)
    sigma = SigmaHead(model.dim, kind=model.sigma_head, **common, name="sigma")
    return Gaussian(means, sigma(*fragments, wholes[1]) + model.log_sigma_start, weights)


class PictureTower(nn.Module):
    """Pixels through a ResNet, or regions as they are; both become fragments and their mean."""

    model: Any

    @nn.compact
    def __call__(self, items: Items, keys: Keys | None, rows: Rows | None) -> Gaussian:
        """Encode; with ``rows`` the ResNet normalises by the batch."""
        m = self.model
        dtype = jnp.dtype(m.dtype)
        x, mask = read_cells(m, items, keys, rows)
        mean, size = masked_mean(x, mask), x.shape[-1]
        whole = plain_linear(m.dim, size, dtype, "fc")(mean)
        of_sigma = plain_linear(m.dim, size, dtype, "fc_sigma")(mean) if m.img_probemb else None
        return _gaussian(m, (x, mask), (whole, of_sigma), m.img_attention)


class CaptionTower(nn.Module):
    """Word vectors, which attention looks at, and a GRU of its own for the mean and for sigma."""

    model: Any

    @nn.compact
    def __call__(self, items: Items, keys: Keys | None, rows: Rows | None) -> Gaussian:
        """Encode; captions do not depend on ``rows``."""
        m = self.model
        tokens, lengths = items["tokens"], items["lengths"]
        tokens = forget_words(tokens, length_mask(lengths, tokens.shape[1]), m.word_dropout, keys)
        tokens, lengths = remove_words(tokens, lengths, m.word_removal, keys)
        mask = length_mask(lengths, tokens.shape[1])
        x = WordVectors(m.vocabulary_size, m.word_dim, name="words")(tokens)
        x = dropout(x, m.vector_dropout, keys, "word_vectors")

        def sentence(name: str) -> Array:
            gru = SentenceGRU(m.dim, m.bigru_pool, jnp.dtype(m.dtype), name=name)
            return gru(x, lengths)

        wholes = sentence("gru"), sentence("gru_sigma") if m.txt_probemb else None
        return _gaussian(m, (x, mask), wholes, m.txt_attention)


def tower(model: Any, modality: str) -> PictureTower | CaptionTower:
    """The encoder of a modality."""
    return PictureTower(model) if modality == "image" else CaptionTower(model)
