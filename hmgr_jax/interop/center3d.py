"""Official names of the encoders of cross-modal center loss.

The released picture encoder is ``SingleViewNet``; its ``img_net`` is a torch.nn.Sequential of
torchvision's children, of which 4 to 7 are the stages. Convolutions of size 1 are linear maps here.
"""

from __future__ import annotations

from hmgr_jax.interop import resnet
from hmgr_jax.interop.layouts import PARAMS, batch_norm, linear_without_bias, pointwise
from hmgr_jax.interop.names import Entry, Names, same

DGCNN_TWICE = tuple(f"bn{k}" for k in range(1, 6))
"""Norms that the released DGCNN names twice: ``bn1`` is ``conv1.1``."""
DGCNN_UNUSED = ("linear2", "bn7", "linear3")
"""Modules that the released DGCNN does not use."""


def _out() -> Names:
    """The last layer of every encoder."""
    return (linear_without_bias("linear1", f"{PARAMS}/out/linear"), *batch_norm("bn6", "out/norm"))


def views(kind: str) -> Names:
    """`hmgr_jax.models.center3d.Views` with a CNN of ``kind``."""
    trunk = resnet.names(kind, "cnn/", ("img_net.0", "img_net.1"), "img_net.{}", first=4)
    return (*trunk, *_out())


def dgcnn() -> Names:
    """`hmgr_jax.layers.point_clouds.DGCNN`."""
    found: list = []
    for number in range(1, 5):
        found.append(pointwise(f"conv{number}.0", f"{PARAMS}/conv{number}", axes=2))
        found += batch_norm(f"conv{number}.1", f"conv{number}/edges/norm")
    found.append(pointwise("conv5.0", f"{PARAMS}/conv5/linear"))
    return (*found, *batch_norm("conv5.1", "conv5/norm"), *_out())


def meshnet() -> Names:
    """`hmgr_jax.layers.meshnet.MeshNet`."""
    rotate = "structural_descriptor.FRC"
    found = [
        *_layers("spatial_descriptor.spatial_mlp", "spatial"),
        *_layers(f"{rotate}.rotate_mlp", "rotate/pair"),
        *_layers(f"{rotate}.fusion_mlp", "rotate/fusion"),
        _angles("structural_descriptor.FKC.weight_alpha", "correlate/polar"),
        _angles("structural_descriptor.FKC.weight_beta", "correlate/around"),
        *batch_norm("structural_descriptor.FKC.bn", "correlate/norm"),
        *_layers("structural_descriptor.structural_mlp", "structural"),
    ]
    for number in (1, 2):
        official, ours = f"mesh_conv{number}", f"conv{number}"
        found += _layer(f"{official}.combination_mlp", 0, f"{ours}/combine")
        found.append(pointwise(f"{official}.concat_mlp.0", f"{PARAMS}/{ours}", axes=2))
        found.append(same(f"{official}.concat_mlp.0.bias", f"{PARAMS}/{ours}/bias"))
        found += batch_norm(f"{official}.concat_mlp.1", f"{ours}/edges/norm")
        found += _layer(f"{official}.aggregation_mlp", 0, f"{ours}/aggregate")
    found += [*_layer("fusion_mlp", 0, "fusion"), *_layer("concat_mlp", 0, "join")]
    return (*found, *_out())


def _angles(official: str, path: str) -> Entry:
    """Angles [kernels, 4], officially [1, kernels, 4]."""
    return Entry((official,), (f"{PARAMS}/{path}",), lambda x: (x[0],), lambda x: (x[None],))


def _layers(official: str, path: str) -> Names:
    """Two convolutions of size 1 with their norms, each followed by a ReLU."""
    first, second = (_layer(official, 3 * k, f"{path}/layer{k}") for k in (0, 1))
    return (*first, *second)


def _layer(official: str, at: int, path: str) -> Names:
    convolution = f"{official}.{at}"
    return (
        pointwise(convolution, f"{PARAMS}/{path}/linear"),
        same(f"{convolution}.bias", f"{PARAMS}/{path}/linear/bias"),
        *batch_norm(f"{official}.{at + 1}", f"{path}/norm"),
    )
