"""CUB-200-2011 with the captions of Reed et al. (CVPR 2016): birds of 200 species."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import combinations
from pathlib import Path

from hmgr_jax.data.pictures.files import PictureFolder
from hmgr_jax.data.pictures.sets import ListedPicture, Settings, picture_set
from hmgr_jax.data.split import DataSet
from hmgr_jax.data.text.captions import read_lines
from hmgr_jax.errors import UserError

CAPTIONS = ("text_c10", "cvpr2016_cub/text_c10")
PICTURES = ("images", "CUB_200_2011/images")
INDEX = ("images.txt", "CUB_200_2011/images.txt")
LISTS = (".", "cvpr2016_cub", "CUB_200_2011")


def open_cub(
    root: str | Path,
    *,
    splits: Mapping[str, str],
    roles: Collection[str] | None = None,
    pictures: str = "",
    captions_per_image: int | None = None,
    settings: Settings | None = None,
) -> DataSet:
    """Open CUB-200-2011; pictures and captions of one species are positives (`Split.groups`).

    ``root``, or its folders ``CUB_200_2011`` and ``cvpr2016_cub``, holds
    ``images/NNN.Species/NAME.jpg`` and ``text_c10/NNN.Species/NAME.txt`` with one caption a line.
    ``images.txt``, if present, gives the order of the pictures; otherwise they are sorted by name.

    ``splits`` maps train, dev and test to lists, with or without ``.txt``: of species
    (``NNN.Species`` a line) or pictures (``NNN.Species/NAME.jpg``). A picture that one list names
    is left out of the species of the others: training on the 150 seen species leaves out the
    pictures of ``seen_test_images.txt`` if that is dev or test. ``roles`` are the splits to open,
    by default all.

    Raises:
        UserError: files are missing, lists overlap or name unknown pictures, or a picture is
            missing or
            damaged.
    """
    root = Path(root)
    texts = _captions_folder(root)
    found = [root / place for place in PICTURES if (root / place).is_dir()]
    folder = PictureFolder(root / pictures if pictures or not found else found[0])
    names = _names(root, texts)
    lists, files = _lists(root, splits, names)
    lists = {role: of_role for role, of_role in lists.items() if roles is None or role in roles}
    listed = {
        role: [_listed(name, texts, folder, captions_per_image) for name in of_role]
        for role, of_role in lists.items()
    }
    captions = [texts / Path(name).with_suffix(".txt") for of in lists.values() for name in of]
    return picture_set(root, listed, [*files, *captions], settings or Settings())


def _captions_folder(root: Path) -> Path:
    for place in CAPTIONS:
        if (root / place).is_dir():
            return root / place
    raise UserError(
        f"{root} holds no folder text_c10 (nor cvpr2016_cub/text_c10), the captions of CUB-200 by "
        "Reed et al. (CVPR 2016): unpack them there, or correct data.root."
    )


def _names(root: Path, texts: Path) -> list[str]:
    """All pictures, ``NNN.Species/NAME.jpg``."""
    for place in INDEX:
        path = root / place
        if path.is_file():
            return [_indexed(line, f"{path}:{i}") for i, line in enumerate(read_lines(path), 1)]
    found = sorted(file.relative_to(texts) for file in texts.glob("*/*.txt"))
    if not found:
        raise UserError(f"{texts} holds no NNN.Species/NAME.txt: unpack the captions again.")
    return [file.with_suffix(".jpg").as_posix() for file in found]


def _indexed(line: str, where: str) -> str:
    number, _, name = line.partition(" ")
    if not number.isdigit() or name.count("/") != 1:
        raise UserError(
            f"{where} is {line[:80]!r} where a number and NNN.Species/NAME.jpg were expected: give "
            "the file of CUB-200-2011."
        )
    return name


def _lists(
    root: Path, splits: Mapping[str, str], names: Sequence[str]
) -> tuple[dict[str, list[str]], list[Path]]:
    """Pictures of every role, and the files of the lists."""
    files = {role: _find_list(root, role, name) for role, name in splits.items()}
    read = {role: read_lines(path) for role, path in files.items()}
    species = {name.partition("/")[0] for name in names}
    everything = species | set(names)
    for role, lines in read.items():
        for number, line in enumerate(lines, 1):
            if line not in everything:
                raise UserError(
                    f"{files[role]}:{number} names {line!r}, which is neither a species nor a "
                    f"picture of {root}: give a list of CUB-200."
                )
    _check_disjoint(files, read)
    alone = {line for lines in read.values() for line in lines if "/" in line}
    found = {}
    for role, lines in read.items():
        own = set(lines)
        found[role] = [
            name
            for name in names
            if name in own or (name.partition("/")[0] in own and name not in alone)
        ]
    return found, list(files.values())


def _find_list(root: Path, role: str, name: str) -> Path:
    for place in LISTS:
        for ending in ("", ".txt"):
            path = root / place / f"{name}{ending}"
            if path.is_file():
                return path
    raise UserError(
        f"{root} holds no {name}.txt, nor do its folders cvpr2016_cub and CUB_200_2011: set "
        f"data.splits.{role} to a list of species or of pictures."
    )


def _check_disjoint(files: Mapping[str, Path], read: Mapping[str, Sequence[str]]) -> None:
    for a, b in combinations(read, 2):
        both = set(read[a]) & set(read[b])
        if both:
            first = min(both)
            line = list(read[b]).index(first) + 1
            raise UserError(
                f"{files[b]}:{line} names {first}, which {files[a]} lists for {a} too ({len(both)} "
                "in both): give lists that do not overlap."
            )


def _listed(name: str, texts: Path, folder: PictureFolder, count: int | None) -> ListedPicture:
    path = texts / Path(name).with_suffix(".txt")
    captions = _read_captions(path)
    if count is not None and len(captions) < count:
        raise UserError(
            f"{path} holds {len(captions)} captions where data.captions_per_image asks for "
            f"{count}: ask for fewer."
        )
    return ListedPicture(
        name, folder.find(name), captions[:count], str(path), group=_class(name, path)
    )


def _read_captions(path: Path) -> list[str]:
    """Captions of a file, one a line; some files have blank lines or are in Latin-1."""
    try:
        raw = path.read_bytes()
    except OSError:
        raise UserError(
            f"There is no {path}, the captions of a picture of CUB-200: unpack text_c10 again."
        ) from None
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        text = raw.decode("latin-1")
    captions = [" ".join(line.split()) for line in text.split("\n") if line.strip()]
    if not captions:
        raise UserError(f"{path} holds no caption: unpack text_c10 again.")
    return captions


def _class(name: str, path: Path) -> int:
    """Species from 0: NNN - 1 of its folder."""
    number = name.partition(".")[0]
    if not number.isdigit() or int(number) < 1:
        raise UserError(
            f"{path.parent} is not named NNN.Species by the number of the species: unpack text_c10 "
            "again."
        )
    return int(number) - 1
