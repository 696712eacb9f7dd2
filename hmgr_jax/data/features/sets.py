"""Feature sets: one vector per image and per text, in pairs, with classes for evaluation.

Wikipedia, Pascal Sentence, NUS-WIDE and XMedia are shared in this form.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from hmgr_jax.data.features.files import read_arrays
from hmgr_jax.data.features.labels import classes, flat
from hmgr_jax.data.fingerprint import fingerprint
from hmgr_jax.data.split import ArraySource, DataSet, Split
from hmgr_jax.data.text.vocabulary import MARKS, Vocabulary
from hmgr_jax.errors import FoundNonFinite, UserError
from hmgr_jax.files.npy_rows import check_features

SIDES = ("image", "text")
ROLES: Mapping[str, tuple[str, ...]] = {
    "train": ("tr", "train"),
    "dev": ("vl", "va", "val", "valid", "dev"),
    "test": ("te", "test"),
}
TEXT_LABELS = ("{}_txt_lab", "{}_texts_labels")
"""Labels of texts, which must equal those of the images."""
PATTERNS: Mapping[str, tuple[str, ...]] = {
    "image": ("I_{}", "{}_img", "{}_imgs_deep", "{}_imgs", "{}_img_feats", "{}_image", "{}_images"),
    "text": ("T_{}", "{}_txt", "{}_text", "{}_texts", "{}_txt_vecs"),
    "labels": (
        "L_{}",
        "{}_img_lab",
        "{}_imgs_labels",
        "{}_lab",
        "{}_label",
        "{}_labels",
        *TEXT_LABELS,
    ),
}
"""Names of a split's arrays, tried in this order for each of the split's names."""
WHOLE: Mapping[str, tuple[str, ...]] = {
    "image": ("img", "image", "images"),
    "text": ("txt", "text", "texts"),
    "labels": ("label", "labels"),
}
"""Names of arrays of all splits, which the array ``split`` separates."""
TESTS = ("rest", "all")


@dataclass(frozen=True)
class Layout:
    """Names of a feature set's arrays, and its dev rows."""

    image: str = ""
    """Name of the array, with ``{}`` for the split's name, or of one for all splits; empty: names
    of `PATTERNS` and `WHOLE` are tried."""
    text: str = ""
    labels: str = ""
    valid: int = 0
    """Number of first test pairs that are dev if the set has no dev."""
    test: str = "rest"
    """``rest``: test excludes them; ``all``: test keeps them."""


@dataclass(frozen=True)
class Pairs:
    """Arrays of one split, row i of each a pair."""

    image: np.ndarray
    text: np.ndarray
    labels: np.ndarray | None
    ids: Mapping[str, Sequence[str]]

    def rows(self, which: slice | np.ndarray) -> Pairs:
        """Select pairs."""
        ids = {m: np.asarray(self.ids[m])[which].tolist() for m in SIDES}
        labels = None if self.labels is None else self.labels[which]
        return Pairs(self.image[which], self.text[which], labels, ids)


def open_features(
    root: str | Path,
    *,
    roles: Sequence[str] = ("train", "dev", "test"),
    splits: Mapping[str, str] | None = None,
    layout: Layout | None = None,
) -> DataSet:
    """Open vectors of images and texts in a file or folder (`hmgr_jax.data.features.files`).

    Items are {"features": float32 [n, D]}; row i pairs image i with text i. `Split.labels` are
    uint8 [n, K]: one class of K, or several; without labels they are empty. Arrays are one per
    split (``I_tr``, ``train_img``, ...), or one for all splits with ``split``, an array of names
    such as ``train``. ``splits`` are names of splits that are tried first.

    Raises:
        UserError: arrays are missing (the message lists those found), rows or sizes do not agree,
            labels are not classes, or there is no dev.
    """
    root, layout = Path(root), layout or Layout()
    arrays, files = read_arrays(root)
    found = _split_up(root, arrays, layout, splits or {})
    labels = classes({role: pairs.labels for role, pairs in found.items()}, str(root))
    found = {role: replace(pairs, labels=labels.get(role)) for role, pairs in found.items()}
    found = _with_dev(root, found, layout)
    _check_sizes(root, found)
    opened = {role: _as_split(role, found[role]) for role in roles}
    digest = fingerprint(files, root if root.is_dir() else None)
    return DataSet(root.resolve().stem, opened, Vocabulary(MARKS), digest)


def _split_up(
    root: Path, arrays: Mapping[str, np.ndarray], layout: Layout, splits: Mapping[str, str]
) -> dict[str, Pairs]:
    """Pairs of train, test and, if given, dev."""
    given = {side: getattr(layout, side) for side in PATTERNS}
    whole = {side: _first(arrays, [given[side]] if given[side] else WHOLE[side]) for side in WHOLE}
    for side in SIDES:
        if given[side] and "{}" not in given[side] and "split" not in arrays:
            raise UserError(
                f"data.features.{side} is {given[side]}, one array for all splits, but {root} has "
                "no array split that separates its rows: add one, or write {} for the split's name."
            )
    if "split" in arrays and whole["image"] and whole["text"]:
        _check_labels(root, arrays, given["labels"], whole["labels"])
        return _by_column(root, arrays, whole, splits)
    found = {}
    for role, names in ROLES.items():
        names = tuple(dict.fromkeys((splits.get(role, role), *names)))
        tried = {
            side: _names(names, [given[side]] if given[side] else PATTERNS[side]) for side in given
        }
        keys = {side: _first(arrays, tried[side]) for side in PATTERNS}
        if role == "dev" and not keys["image"] and not keys["text"]:
            continue
        for side in SIDES:
            if not keys[side]:
                raise UserError(
                    f"{root} holds no {side} features of {role}: expected one of "
                    f"{', '.join(tried[side])}, found {', '.join(arrays) or 'no array'}; name "
                    f"yours as data.features.{side}."
                )
        _check_labels(root, arrays, given["labels"], keys["labels"])
        chosen = {side: arrays[key] for side, key in keys.items() if key}
        again = [] if given["labels"] else _names(names, TEXT_LABELS)
        own = [arrays[name] for name in again if name in arrays]
        found[role] = _pairs(f"{role} of {root}", chosen, keys, role, texts=own[:1])
    return found


def _check_labels(root: Path, arrays: Mapping[str, np.ndarray], given: str, found: str) -> None:
    """Check that labels that were named exist."""
    if given and not found:
        raise UserError(
            f"data.features.labels is {given}, but {root} does not have such an array for every "
            f"split, found {', '.join(arrays)}: correct the name, or leave it empty."
        )


def _names(names: Sequence[str], patterns: Sequence[str]) -> list[str]:
    """Names of arrays to try for a split."""
    return list(dict.fromkeys(p.replace("{}", name) for p in patterns for name in names))


def _first(arrays: Mapping[str, np.ndarray], names: Sequence[str]) -> str:
    return next((name for name in names if name in arrays), "")


def _by_column(
    root: Path, arrays: Mapping[str, np.ndarray], keys: Mapping[str, str], splits: Mapping[str, str]
) -> dict[str, Pairs]:
    """Separate arrays of all pairs by the array ``split``."""
    _check_plain(arrays["split"], "split", str(root))
    of_row = np.char.strip(arrays["split"].astype(str).reshape(-1))
    chosen = {side: arrays[key] for side, key in keys.items() if key}
    everything = _pairs(str(root), chosen, keys, "row")
    if len(of_row) != len(everything.image):
        raise UserError(
            f"split of {root} has {len(of_row)} rows but {keys['image']} has "
            f"{len(everything.image)}: give one name per pair."
        )
    ids = {m: arrays.get(f"{m}_id", np.zeros(0)) for m in SIDES}
    if all(len(of) == len(of_row) for of in ids.values()):
        everything = replace(everything, ids={m: of.astype(str).tolist() for m, of in ids.items()})
    found = {}
    for role, names in ROLES.items():
        rows = np.flatnonzero(np.isin(of_row, (splits.get(role, role), *names)))
        if len(rows):
            found[role] = everything.rows(rows)
        elif role != "dev":
            raise UserError(
                f"split of {root} has no row of {role}, found {', '.join(np.unique(of_row))}: set "
                f"data.splits.{role} to one of them."
            )
    return found


def _pairs(
    where: str,
    arrays: Mapping[str, np.ndarray],
    keys: Mapping[str, str],
    role: str,
    texts: Sequence[np.ndarray] = (),
) -> Pairs:
    image, text = (_vectors(arrays[side], keys[side], where) for side in SIDES)
    if len(image) != len(text):
        raise UserError(
            f"{keys['image']} has {len(image)} rows but {keys['text']} has {len(text)} ({where}): "
            "give as many of each, row i of both a pair."
        )
    labels = flat(arrays["labels"]) if "labels" in arrays else None
    for own in (labels, *texts):
        if own is not None:
            _check_plain(own, keys["labels"], where)
    if labels is not None and labels.dtype.kind == "f" and not np.isfinite(labels).all():
        raise FoundNonFinite(
            f"labels {keys['labels']} ({where}) hold NaN or infinity: give every pair its class."
        )
    for own in (labels, *map(flat, texts)):
        if own is not None and len(own) != len(image):
            raise UserError(
                f"labels {keys['labels']} have {len(own)} rows but {keys['image']} has "
                f"{len(image)} ({where}): give the labels of the same pairs."
            )
        if own is not None and labels is not None and not np.array_equal(own, labels):
            raise UserError(
                f"images and texts of {where} have different labels: make row i of both a pair."
            )
    names = [f"{role}/{number:06d}" for number in range(len(image))]
    return Pairs(image, text, labels, dict.fromkeys(SIDES, names))


def _check_plain(array: np.ndarray, key: str, where: str) -> None:
    """Check that an array is not one of objects, which `read_arrays` does not read."""
    if array.dtype == object:
        raise UserError(
            f"{key} ({where}) holds Python objects or cells, which are not read: save a plain "
            "array of numbers or text."
        )


def _vectors(array: np.ndarray, key: str, where: str) -> np.ndarray:
    """Check vectors and convert them to float32 [n, D]."""
    if array.dtype.kind not in "biuf" or array.ndim < 2 or not len(array):
        raise UserError(
            f"{key} ({where}) is {array.dtype} {list(array.shape)} where numbers [pairs, size] "
            "were expected: store one vector a row."
        )
    with np.errstate(over="ignore"):
        found = np.ascontiguousarray(array.reshape(len(array), -1), np.float32)
    check_features(
        found, lambda row: f"row {row} of {key} ({where})", "correct it or leave it out."
    )
    return found


def _with_dev(root: Path, found: Mapping[str, Pairs], layout: Layout) -> dict[str, Pairs]:
    """Take dev from the first rows of test if there is none."""
    if "dev" in found:
        return dict(found)
    count = len(found["test"].image)
    if not 0 < layout.valid < count + (layout.test == "all"):
        raise UserError(
            f"{root} has no dev pairs, which select checkpoints, and data.features.valid is "
            f"{layout.valid}: set it to a number of the {count} test pairs."
        )
    test = found["test"] if layout.test == "all" else found["test"].rows(slice(layout.valid, None))
    return {**found, "dev": found["test"].rows(slice(layout.valid)), "test": test}


def _check_sizes(root: Path, found: Mapping[str, Pairs]) -> None:
    """Check that vectors of all splits have one size."""
    for side in SIDES:
        sizes = {role: getattr(pairs, side).shape[1] for role, pairs in found.items()}
        if len(set(sizes.values())) > 1:
            raise UserError(
                f"{side} features of {root} have different sizes, "
                f"{', '.join(f'{n} in {role}' for role, n in sizes.items())}: give all one size."
            )


def _as_split(role: str, pairs: Pairs) -> Split:
    numbers = np.arange(len(pairs.image), dtype=np.int32)
    sources = {side: ArraySource({"features": getattr(pairs, side)}) for side in SIDES}
    return Split(
        name=role,
        sources=sources,
        groups=dict.fromkeys(SIDES, numbers),
        rows=dict.fromkeys(SIDES, numbers),
        ids=pairs.ids,
        labels={} if pairs.labels is None else dict.fromkeys(SIDES, pairs.labels),
    )
