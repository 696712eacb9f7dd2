"""Known answers of the encoders of shapes: DGCNN's of points, MeshNet's of faces."""

from __future__ import annotations

from collections.abc import Mapping

import jax.numpy as jnp

from hmgr_jax.interop import center3d
from hmgr_jax.interop.comparison import Answer
from hmgr_jax.interop.known_answers import Case, Checker
from hmgr_jax.interop.parity_encoder import answers
from hmgr_jax.layers.meshnet import Faces, MeshNet
from hmgr_jax.layers.point_clouds import DGCNN

POINTS = ("points",)
FACES = ("centers", "corners", "normals", "neighbor_index")


def _answers(case: Case) -> Mapping[str, Answer]:
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


CHECKER = Checker(inputs=(*POINTS, *FACES), answers=_answers)
