"""The leaves of a tree: by path in nested dicts, and by name whatever containers hold them."""

from __future__ import annotations

from typing import Any

import jax


def leaf_at(tree: Any, path: str) -> Any:
    """What lies at ``path``; raises ``KeyError`` where nothing does."""
    for key in path.split("/"):
        tree = tree[key]
    return tree


def with_leaf(tree: Any, path: str, leaf: Any) -> Any:
    """The tree with ``leaf`` at ``path``; the given one stays as it is."""
    key, _, rest = path.partition("/")
    return {**tree, key: with_leaf(tree[key], rest, leaf) if rest else leaf}


def by_name(tree: Any) -> dict[str, Any]:
    """Path of each leaf (``params/dense/kernel``, ``opt/0/mu/...``) -> leaf, in the tree's order.

    A field, a key and a position are all just words of the path, as they are in a checkpoint; what
    holds no array (None, an empty tuple) has no name.
    """
    return {_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def arrange_like(tree: Any, leaves: dict[str, Any], default: Any) -> Any:
    """``tree`` with each leaf replaced by the one of its name, or by ``default``."""
    return jax.tree_util.tree_map_with_path(lambda path, _: leaves.get(_name(path), default), tree)


def differences(saved: Any, wanted: Any, *, partial: bool = False) -> list[str]:
    """One phrase a leaf whose name, shape or dtype differs, in the order of the names.

    ``saved`` and ``wanted`` are pytrees of anything with a shape and a dtype. ``partial`` allows
    leaves that only ``saved`` has.
    """
    have = {name: _describe(leaf) for name, leaf in by_name(saved).items()}
    want = {name: _describe(leaf) for name, leaf in by_name(wanted).items()}
    names = sorted(want if partial else have.keys() | want.keys())
    return [
        f"{name} is {have.get(name, 'absent')} in the checkpoint"
        f" and {want.get(name, 'absent')} in the model"
        for name in names
        if have.get(name) != want.get(name)
    ]


def _name(path: tuple[Any, ...]) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _describe(leaf: Any) -> str:
    if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):  # saved as the integers inside
        leaf = jax.eval_shape(jax.random.key_data, leaf)
    return f"{leaf.dtype}[{','.join(map(str, leaf.shape))}]"
