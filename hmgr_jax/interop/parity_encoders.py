"""Known answers of encoders: outputs, statistics after training, gradient norms.

In training every channel is normalised by few numbers (12 in the last stages of a ResNet for 3
pictures of 2x2 cells), and many norms in sequence amplify rounding errors ten thousand times: the
released float32 answer of ``resnet50_logits`` differs from float64 by 2e-4. So the tolerance of
outputs and gradients of training is measured: how far they move when the weights change in their
last bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from hmgr_jax.interop import center3d, resnet
from hmgr_jax.interop.known_answers import ATOL, RTOL_NORMS, Answer, Case, Checker, in_order
from hmgr_jax.interop.layouts import linear
from hmgr_jax.interop.names import Names, from_params
from hmgr_jax.layers.batch_norm import STATS, ValidRows
from hmgr_jax.layers.linear import Linear
from hmgr_jax.layers.meshnet import Faces, MeshNet
from hmgr_jax.layers.point_clouds import DGCNN
from hmgr_jax.layers.resnet import ResNet
from hmgr_jax.models.base import LocalAxis
from hmgr_jax.models.center3d import Views
from hmgr_jax.shapes import Array, Float, Tree

VIEWS = ("image", "image_v")
POINTS = ("points",)
FACES = ("centers", "corners", "normals", "neighbor_index")
DISTURBED = 3
"""Number of random changes of the weights, each by at most half of their last bit."""
WIDER = 4.0
"""Factor on the measured tolerance, since every operation rounds, not only the weights."""


def answers(
    module: nn.Module,
    names: Names,
    given: Tree,
    case: Case,
    *,
    again: Mapping[str, str] | None = None,
    unused: tuple[str, ...] = (),
) -> Mapping[str, Answer]:
    """All possible outputs of a case of an encoder by official name.

    Args:
        module: called as ``module(given, rows)``.
        names: of its parameters and statistics.
        given: the inputs, in our layouts.
        case: with the official state_dict.
        again: {second official prefix: first prefix} of modules with two names.
        unused: prefixes of official names that the network does not use.
    """
    again = again or {}
    template = jax.eval_shape(lambda: module.init(jax.random.key(0), given, None))
    dropped = tuple(f"{prefix}." for prefix in (*again, *unused))
    state = {n: x for n, x in case.state.items() if not n.startswith(dropped)}
    found = resnet.weights_of(names, state, template["params"], template[STATS])
    labels = case.option("grad_names", list)

    def answer(variables: Tree) -> tuple[Array, Array, Tree, np.ndarray]:
        inferred, (trained, stats, gradient) = _run(module, variables, given)
        of_params = from_params(names, {"params": gradient})
        norms = {n: float(np.linalg.norm(np.float64(g))) for n, g in of_params.items()}
        idle = {n: 0.0 for n in case.state if n.startswith(dropped)}
        norms = idle | norms | _renamed(norms, again)
        return inferred, trained, stats, np.array(in_order(norms, labels))

    inferred, trained, stats, norms = answer(jax.tree.map(jnp.asarray, found))
    others = [answer(_disturbed(found, seed)) for seed in range(DISTURBED)]
    moved = max(float(jnp.max(jnp.abs(other[1] - trained))) for other in others)
    some = norms > ATOL  # the gradient of a bias before a norm is only rounding
    bent = max(float(np.max(np.abs(other[3][some] / norms[some] - 1.0))) for other in others)
    after = from_params(names, {"stats": stats})
    after = {n: case.state[n] for n in case.state if n.startswith(dropped)} | after
    after |= _renamed(after, again)
    return {
        **{f"after::{name}": Answer(x) for name, x in after.items()},
        "eval_out": Answer(inferred),
        "train_out": Answer(trained, atol=max(ATOL, WIDER * moved)),
        "gradnorm": Answer(norms, labels, max(RTOL_NORMS, WIDER * bent)),
    }


def _renamed(found: Mapping[str, Any], again: Mapping[str, str]) -> dict[str, Any]:
    """The values under the second name of modules with two names."""
    return {
        second + name.removeprefix(first): value
        for second, first in again.items()
        for name, value in found.items()
        if name.startswith(f"{first}.")
    }


def _disturbed(variables: Tree, seed: int) -> Tree:
    """The variables with random relative changes of parameters of at most 2^-24."""
    rng = np.random.default_rng(seed)

    def of_one(x: np.ndarray) -> Array:
        return jnp.asarray(np.float64(x) * (1.0 + rng.uniform(-1, 1, x.shape) * 2.0**-24), x.dtype)

    params = jax.tree.map(of_one, variables["params"])
    return {**jax.tree.map(jnp.asarray, variables), "params": params}


@partial(jax.jit, static_argnums=0)
def _run(module: nn.Module, variables: Tree, given: Tree) -> Any:
    """Outputs of inference; outputs, statistics and gradient of mean(out²) of training."""
    valid = jnp.ones(len(jax.tree.leaves(given)[0]), bool)

    def loss(params: Tree) -> tuple[Array, tuple[Array, Tree]]:
        own = {**variables, "params": params}
        out, changed = module.apply(own, given, ValidRows(valid, LocalAxis()), mutable=[STATS])
        return jnp.mean(out**2), (out, changed[STATS])

    (_, (trained, stats)), gradient = jax.value_and_grad(loss, has_aux=True)(variables["params"])
    return module.apply(variables, given, None), (trained, stats, gradient)


class Classifier(nn.Module):
    """torchvision's ``resnet50``."""

    classes: int

    @nn.compact
    def __call__(
        self, views: Float[Array, "B 1 H W 3"], rows: ValidRows | None
    ) -> Float[Array, "B K"]:
        """Logits of the only view."""
        x = jnp.mean(ResNet("resnet50", name="cnn")(views[:, 0], rows), axis=(1, 2))
        return Linear(self.classes, name="fc")(x)


def _of_views(case: Case) -> Mapping[str, Answer]:
    single = case.meta["model"] == "singleview"
    found = [x.transpose(0, 2, 3, 1) for x in case.inputs(*(VIEWS if single else VIEWS[:1]))]
    views = jnp.asarray(np.stack(found, axis=1))
    if single:
        module = Views(len(case.state["bn6.weight"]), "resnet18")
        return answers(module, center3d.views("resnet18"), views, case)
    names = (*resnet.names("resnet50", "cnn/"), *linear("fc", "params/fc"))
    return answers(Classifier(len(case.state["fc.bias"])), names, views, case)


def _of_shapes(case: Case) -> Mapping[str, Answer]:
    features = len(case.state["bn6.weight"])
    if case.meta["model"] == "meshnet":
        *shapes, neighbours = case.inputs(*FACES)
        centers, corners, normals = (jnp.asarray(x.swapaxes(1, 2)) for x in shapes)
        faces = Faces(centers, corners, normals, jnp.asarray(neighbours, jnp.int32))
        return answers(MeshNet(features), center3d.meshnet(), faces, case)
    (points,) = case.inputs(*POINTS)
    module = DGCNN(features, neighbours=case.option("k", int))
    again = {name: f"conv{name[-1]}.1" for name in center3d.DGCNN_TWICE}
    given = jnp.asarray(points.swapaxes(1, 2))
    return answers(module, center3d.dgcnn(), given, case, again=again, unused=center3d.DGCNN_UNUSED)


def _answers(case: Case) -> Mapping[str, Answer]:
    views = case.meta["model"] in ("resnet50", "singleview")
    return _of_views(case) if views else _of_shapes(case)


CHECKER = Checker(inputs=(*VIEWS, *POINTS, *FACES), answers=_answers)
