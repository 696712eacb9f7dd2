"""Known answers of ResNets: a whole classifier, and the center loss's encoder of two views."""

from __future__ import annotations

from collections.abc import Mapping

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from hmgr_jax.interop import center3d, resnet
from hmgr_jax.interop.comparison import Answer
from hmgr_jax.interop.known_answers import Case, Checker
from hmgr_jax.interop.layouts import linear
from hmgr_jax.interop.parity_encoder import answers
from hmgr_jax.layers.batch_norm import Rows
from hmgr_jax.layers.linear import Linear
from hmgr_jax.layers.resnet import ResNet
from hmgr_jax.models.center3d import Views
from hmgr_jax.shapes import Array, Float

VIEWS = ("image", "image_v")


class Classifier(nn.Module):
    """torchvision's ``resnet50``."""

    classes: int

    @nn.compact
    def __call__(self, views: Float[Array, "B 1 H W 3"], rows: Rows | None) -> Float[Array, "B K"]:
        """Logits of the only view."""
        x = jnp.mean(ResNet("resnet50", name="cnn")(views[:, 0], rows), axis=(1, 2))
        return Linear(self.classes, name="fc")(x)


def _answers(case: Case) -> Mapping[str, Answer]:
    single = case.meta["model"] == "singleview"
    found = [x.transpose(0, 2, 3, 1) for x in case.inputs(*(VIEWS if single else VIEWS[:1]))]
    views = jnp.asarray(np.stack(found, axis=1))
    if single:
        module = Views(len(case.state["bn6.weight"]), "resnet18")
        return answers(module, center3d.views("resnet18"), views, case)
    names = (*resnet.names("resnet50", "cnn/"), *linear("fc", "params/fc"))
    return answers(Classifier(len(case.state["fc.bias"])), names, views, case)


CHECKER = Checker(inputs=VIEWS, answers=_answers)
