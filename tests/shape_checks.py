"""Shape annotations are checked at run time in the tests, where the array mathematics is."""

from typing import Any

from beartype import BeartypeConf, beartype
from jaxtyping import install_import_hook

CHECKED = (
    "hmgr_jax.layers",
    "hmgr_jax.losses",
    "hmgr_jax.models",
    "hmgr_jax.training.optimizer",
    "hmgr_jax.distributed.parallel",
)

_checked = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an int will do for a float


def check(function: Any) -> Any:
    """Check arguments and result, but not the fields of a dataclass.

    ``jax.tree.map`` builds trees of anything: shapes, shardings, numpy arrays.
    """
    return function if function.__name__ == "__init__" else _checked(function)


def install() -> None:
    """Check every function that is imported from now on."""
    install_import_hook(CHECKED, f"{__name__}.check")
