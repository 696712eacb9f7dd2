"""Known answers of ResNets: outputs in inference and in training, statistics, gradient norms.

Two networks: a whole classifier (``resnet50``), and the picture encoder of the cross-modal center
loss (``singleview``), where the vectors of two views are averaged.

In training every channel of the last stages is normalised by 12 numbers (3 pictures of 2x2 cells),
and 53 norms in a row make rounding errors ten thousand times larger: of ``resnet50_logits`` the
released float32 answer itself lies 2e-4 from what float64 gives. So the tolerance of what comes
after all norms, outputs and gradients of training, is what the network itself does to rounding
errors: how far its answer moves when the last bit of the weights does.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from hmgr_jax.interop import resnet
from hmgr_jax.interop.comparison import ATOL, RTOL_NORMS, Answer, in_order
from hmgr_jax.interop.known_answers import Case, Checker
from hmgr_jax.interop.layouts import batch_norm, linear, linear_without_bias
from hmgr_jax.interop.names import Names, from_params
from hmgr_jax.layers.batch_norm import STATS, BatchNorm, Rows
from hmgr_jax.layers.linear import Linear
from hmgr_jax.layers.resnet import ResNet
from hmgr_jax.models.base import LocalAxis
from hmgr_jax.shapes import Array, Float, Tree

VIEWS = ("image", "image_v")
DISTURBED = 3
"""So many times the weights are, each by half of their last bit at most."""
WIDER = 4.0
"""By so much an answer may be off that every operation rounds, and not the weights alone."""


class Classifier(nn.Module):
    """torchvision's ``resnet50``."""

    classes: int

    @nn.compact
    def __call__(self, views: tuple[Array, ...], rows: Rows | None) -> Float[Array, "B K"]:
        """Logits of the only view."""
        x = jnp.mean(ResNet("resnet50", name="cnn")(views[0], rows), axis=(1, 2))
        return Linear(self.classes, name="fc")(x)


class SingleView(nn.Module):
    """The center loss's picture encoder: a ResNet-18 whose two views share all layers."""

    features: int

    @nn.compact
    def __call__(self, views: tuple[Array, ...], rows: Rows | None) -> Float[Array, "B D"]:
        """The mean vector of the views."""
        cnn, norm = ResNet("resnet18", name="cnn"), BatchNorm(name="norm")
        out = Linear(self.features, use_bias=False, name="out")
        vectors = [jnp.mean(cnn(x, rows), axis=(1, 2)) for x in views]
        found = [jax.nn.relu(norm(out(x), rows)) for x in vectors]
        return sum(found[1:], start=found[0]) / len(found)


def _network(case: Case) -> tuple[nn.Module, Names, int]:
    """The module, its official names, and how many views it reads."""
    if case.meta["model"] == "singleview":
        head = linear_without_bias("linear1", "params/out")
        norm = batch_norm("bn6", "params/norm", "stats/norm")
        # A torch.nn.Sequential of torchvision's children: 4 to 7 are the stages.
        trunk = resnet.names("resnet18", "cnn/", ("img_net.0", "img_net.1"), "img_net.{}", first=4)
        return SingleView(len(case.state["bn6.weight"])), (*trunk, head, *norm), 2
    names = (*resnet.names("resnet50", "cnn/"), *linear("fc", "params/fc"))
    return Classifier(len(case.state["fc.bias"])), names, 1


def _answers(case: Case) -> Mapping[str, Answer]:
    module, names, count = _network(case)
    views = tuple(jnp.asarray(x.transpose(0, 2, 3, 1)) for x in case.inputs(*VIEWS[:count]))
    template = jax.eval_shape(lambda: module.init(jax.random.key(0), views, None))
    found = resnet.weights_of(names, case.state, template["params"], template[STATS])
    labels = case.option("grad_names", list)

    def answer(variables: Tree) -> tuple[Array, Array, Tree, np.ndarray]:
        inferred, (trained, stats, gradient) = _run(module, variables, views)
        of_params = from_params(names, {"params": gradient})
        norms = {n: float(np.linalg.norm(np.float64(g))) for n, g in of_params.items()}
        return inferred, trained, stats, np.array(in_order(norms, labels))

    inferred, trained, stats, norms = answer(jax.tree.map(jnp.asarray, found))
    others = [answer(_disturbed(found, seed)) for seed in range(DISTURBED)]
    moved = max(float(jnp.max(jnp.abs(other[1] - trained))) for other in others)
    bent = max(float(np.max(np.abs(other[3] / norms - 1.0))) for other in others)
    after = from_params(names, {"stats": stats})
    return {
        **{f"after::{name}": Answer(x) for name, x in after.items()},
        "eval_out": Answer(inferred),
        "train_out": Answer(trained, atol=max(ATOL, WIDER * moved)),
        "gradnorm": Answer(norms, labels, max(RTOL_NORMS, WIDER * bent)),
    }


def _disturbed(variables: Tree, seed: int) -> Tree:
    """The variables with parameters off by at most 2^-24 of themselves."""
    rng = np.random.default_rng(seed)

    def of_one(x: np.ndarray) -> Array:
        return jnp.asarray(np.float64(x) * (1.0 + rng.uniform(-1, 1, x.shape) * 2.0**-24), x.dtype)

    params = jax.tree.map(of_one, variables["params"])
    return {**jax.tree.map(jnp.asarray, variables), "params": params}


@partial(jax.jit, static_argnums=0)
def _run(module: nn.Module, variables: Tree, views: tuple[Array, ...]) -> Any:
    """Outputs of inference; outputs, statistics and the gradient of mean(out²) of training."""
    valid = jnp.ones(views[0].shape[0], bool)

    def loss(params: Tree) -> tuple[Array, tuple[Array, Tree]]:
        given = {**variables, "params": params}
        out, changed = module.apply(given, views, Rows(valid, LocalAxis()), mutable=[STATS])
        return jnp.mean(out**2), (out, changed[STATS])

    (_, (trained, stats)), gradient = jax.value_and_grad(loss, has_aux=True)(variables["params"])
    return module.apply(variables, views, None), (trained, stats, gradient)


CHECKER = Checker(inputs=VIEWS, answers=_answers)
