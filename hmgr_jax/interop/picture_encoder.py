"""Pictures as features of regions: the cells of a grid, as a pretrained network describes them.

    encoder = Encoder.of("efficientnet_lite2", grid=6)
    regions = encoder.regions(np.stack([encoder.preprocess(file) for file in files]))  # [B, 36, D]
    encoder.save(folder);  encoder = Encoder.load(folder)

The map of the network is pooled to the grid by adaptive averages, as PyTorch's; square roots and a
PCA may follow. New pictures are described by the same steps, and by the same weights: a saved
encoder holds their sha256.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from hmgr_jax.data.pictures.decode import load_picture, read_ahead
from hmgr_jax.data.pictures.pca import Pca
from hmgr_jax.data.split import Items
from hmgr_jax.distributed.hosts import local_mesh
from hmgr_jax.distributed.parallel import make_mesh, replicate, shard
from hmgr_jax.errors import UserError
from hmgr_jax.files import digests
from hmgr_jax.files.manifest import ENCODER, ENCODER_PCA
from hmgr_jax.files.reading import read_object
from hmgr_jax.files.workdir import write_json_atomic
from hmgr_jax.interop.picture_networks import Network, read_network
from hmgr_jax.layers.linear import einsum
from hmgr_jax.layers.regions import scale_features
from hmgr_jax.shapes import Array, Float

GRID = 6
BATCH = {"cpu": 8}
"""Pictures per device in one batch; 64 on other devices."""
DESCRIBED = ("encoder", "weights", "preprocessing", "grid", "sqrt", "pca")
"""Keys of a description: all that the features depend on."""
NEAR = 2
"""A large JPEG is decoded at no less than this multiple of the network's pictures."""


class Encoder:
    """A network, a grid, and what follows; raises `UserError` for a PCA of another network."""

    def __init__(
        self, network: Network, grid: int = GRID, pca: Pca | None = None, *, sqrt: bool = False
    ) -> None:
        if pca is not None and len(pca.mean) != network.size:
            raise UserError(
                f"The PCA takes {len(pca.mean)} features, but {network.kind} gives {network.size}: "
                "give the PCA that was fitted to this encoder."
            )
        self.network, self.grid, self.pca, self.sqrt = network, grid, pca, sqrt
        self._mesh = local_mesh(make_mesh())
        devices = self._mesh.devices
        self.batch = devices.size * BATCH.get(devices.flat[0].platform, 64)

    @classmethod
    def of(
        cls,
        specification: str,
        grid: int = GRID,
        pca: Pca | None = None,
        *,
        sqrt: bool | None = None,
    ) -> Self:
        """The encoder of a specification, see `hmgr_jax.interop.picture_networks`.

        ``sqrt`` takes square roots before the PCA; by default where there is a PCA and no feature
        is negative. Raises `UserError` for an unknown network, or weights that are missing or of
        another one.
        """
        network = read_network(specification, grid)
        sqrt = pca is not None and network.positive if sqrt is None else sqrt
        return cls(network, grid, pca, sqrt=sqrt)

    def with_pca(self, pca: Pca | None, *, sqrt: bool) -> Encoder:
        """The same network followed by a PCA."""
        return Encoder(self.network, self.grid, pca, sqrt=sqrt)

    @property
    def size(self) -> int:
        """D, the numbers of a cell."""
        return self.network.size if self.pca is None else self.pca.size

    def describe(self) -> dict[str, Any]:
        """What the features depend on, without places, for JSON."""
        pca = self.pca and {"components": self.pca.size, "sha256": self.pca.sha256()}
        return {
            "encoder": self.network.kind,
            "weights": dict(self.network.weights),
            "preprocessing": dataclasses.asdict(self.network.preprocessing),
            "grid": self.grid,
            "sqrt": self.sqrt,
            "pca": pca,
        }

    @classmethod
    def from_description(
        cls, described: dict[str, Any], place: str | None = None, pca: Pca | None = None
    ) -> Self:
        """The encoder that gives the same features.

        Args:
            described: what `describe` gave.
            place: of the weights; None where they are installed.
            pca: the PCA, where one is described.

        Raises:
            UserError: the weights are missing, or anything has changed.
        """
        kind, where = described["encoder"], f"={place}" if place else ""
        found = cls.of(kind + where, described["grid"], pca, sqrt=described["sqrt"])
        now, then = (json.loads(json.dumps(x)) for x in (found.describe(), described))
        changed = [key for key in now if now[key] != then.get(key)]
        if changed:
            raise UserError(
                f"{kind}{where} has other {changed[0]} now than when the data were prepared "
                f"({now[changed[0]]} instead of {then.get(changed[0])}): put the former files "
                "back, or prepare and train again."
            )
        return found

    def save(self, folder: Path) -> None:
        """Write `ENCODER` and, where there is a PCA, `ENCODER_PCA`."""
        if self.pca is not None:
            self.pca.write(folder / ENCODER_PCA)
        write_description(folder, {"place": self.network.place, **self.describe()})

    @classmethod
    def load(cls, folder: Path) -> Self:
        """The encoder saved in a folder; raises `UserError` as `from_description`."""
        found = read_description(folder)
        place = found.pop("place")
        pca = read_pca(folder, found)
        try:
            return cls.from_description(found, place, pca)
        except UserError as error:
            raise UserError(
                f"{folder / ENCODER} names an encoder that cannot be used: {error}"
            ) from None

    def preprocess(self, picture: Image.Image | str | Path) -> Float[np.ndarray, "S S 3"]:
        """The pixels of a picture or a file, as the network expects them."""
        if not isinstance(picture, Image.Image):
            picture = self.load_picture(picture)
        return self.network.preprocessing(picture)

    def load_picture(self, file: str | Path) -> Image.Image:
        """Decode a file; raises `UserError` if that is impossible."""
        how = self.network.preprocessing
        return load_picture(Path(file), near=NEAR * (how.resize or how.size))

    def boxes(self, width: int, height: int) -> Float[np.ndarray, "N 4"]:
        """The boxes of the cells in a picture of this size, float32, xyxy in 0..1, row by row."""
        left, top, right, bottom = self.network.preprocessing.kept(width, height)
        edges = np.array(_cells(self.network.side, self.grid)) / self.network.side
        edges *= self.network.covered
        y, x = (part.reshape(-1) for part in np.mgrid[: self.grid, : self.grid])
        (x0, x1), (y0, y1) = edges[x].T, edges[y].T
        across, down = right - left, bottom - top
        found = [left + x0 * across, top + y0 * down, left + x1 * across, top + y1 * down]
        return np.stack(found, axis=1).astype(np.float32)

    def regions(self, pixels: Float[np.ndarray, "B S S 3"]) -> Float[np.ndarray, "B N D"]:
        """The features of the cells, row by row."""
        return np.concatenate(list(self.stream([pixels])))

    def encode_files(
        self, files: Iterable[str | Path]
    ) -> Iterator[tuple[Float[np.ndarray, "N D"], Float[np.ndarray, "N 4"]]]:
        """Features and boxes of each picture, decoded by threads beside the device.

        Raises `UserError` for a file that cannot be decoded.
        """
        boxes: deque[np.ndarray] = deque()

        def load(file: str | Path) -> tuple[np.ndarray, np.ndarray]:
            picture = self.load_picture(file)
            return self.preprocess(picture), self.boxes(*picture.size)

        def pixels() -> Iterator[np.ndarray]:
            for one, places in read_ahead(load, files, 2 * self.batch):
                boxes.append(places)
                yield one[None]

        for regions in self.stream(pixels()):
            yield regions[0], boxes.popleft()

    def stream(
        self, groups: Iterable[Float[np.ndarray, "F S S 3"]]
    ) -> Iterator[Float[np.ndarray, "F N D"]]:
        """The features of each group of pictures; batches run across groups."""
        sizes: deque[int] = deque()

        def pictures() -> Iterator[np.ndarray]:
            for group in groups:
                sizes.append(len(group))
                yield from group

        found: list[np.ndarray] = []
        for rows in self._batches(pictures()):
            found += rows
            while sizes and len(found) >= sizes[0]:
                count = sizes.popleft()
                yield np.stack(found[:count])
                del found[:count]

    def _batches(self, pictures: Iterator[np.ndarray]) -> Iterator[list[np.ndarray]]:
        """Features of batch after batch; one is read while the device works on another."""
        begun: tuple[Any, int] | None = None
        for some in iter(lambda: list(itertools.islice(pictures, self.batch)), []):
            size = self.batch if self.network.traced else len(some)
            pixels = np.zeros((size, *some[0].shape), np.float32)
            pixels[: len(some)] = some
            if begun is not None:
                yield list(np.asarray(begun[0])[: begun[1]])
            begun = self._apply(pixels), len(some)
        if begun is not None:
            yield list(np.asarray(begun[0])[: begun[1]])

    @functools.cached_property
    def _apply(self) -> Callable[[np.ndarray], Array]:
        network, sqrt = self.network, self.sqrt
        averages = _averages(network.side, self.grid)

        def describe(variables: Any, pca: Any, pixels: Array) -> Array:
            x = network.cells(variables, pixels)
            if network.side != self.grid:
                x = einsum("gi,bijd->bgjd", averages, x)
                x = einsum("hj,bgjd->bghd", averages, x)
            x = scale_features(x.reshape(len(x), -1, network.size), "sqrt" if sqrt else "none")
            return x if pca is None else einsum("bnd,de->bne", x - pca[0][None, None], pca[1])

        pca = self.pca and (self.pca.mean, self.pca.components)
        if not network.traced:
            return functools.partial(describe, {}, pca)
        placed = replicate(self._mesh, (network.variables, pca))
        compiled = jax.jit(describe)
        return lambda pixels: compiled(*placed, shard(self._mesh, pixels))


class EncodedPictures:
    """Items ``{"regions", "n_regions", "boxes"}`` of picture files, as prepared folders hold them.

    Raises `UserError` for a picture that cannot be read.
    """

    lengths: np.ndarray | None = None

    def __init__(self, files: Sequence[str | Path], encoder: Encoder) -> None:
        self.files, self.encoder = tuple(files), encoder

    def __len__(self) -> int:
        return len(self.files)

    def gather(self, items: np.ndarray, length: int | None = None) -> Items:
        """Regions float16 [k, N, D], their number int32 [k], and boxes float32 [k, N, 4]."""
        chosen, places = np.unique(np.asarray(items, np.int64).reshape(-1), return_inverse=True)
        found = self.encoder.encode_files(self.files[number] for number in chosen.tolist())
        regions, boxes = (np.stack(each)[places] for each in zip(*found, strict=True))
        counts = np.full(len(places), self.encoder.grid**2, np.int32)
        return {"regions": regions.astype(np.float16), "n_regions": counts, "boxes": boxes}


def write_description(folder: Path, described: Mapping[str, Any]) -> None:
    """Write `ENCODER`: what `Encoder.describe` gave, sealed, and the ``place`` of the weights.

    The seal leaves ``place`` out, which the user corrects after moving the weights.
    """
    content = {key: value for key, value in described.items() if key != "place"}
    write_json_atomic(folder / ENCODER, {"place": described["place"], **digests.seal(content)})


def read_description(folder: Path) -> dict[str, Any]:
    """What `write_description` wrote; older versions wrote no seal.

    Raises:
        UserError: the file cannot be read, or more than ``place`` was changed.
    """
    path = folder / ENCODER
    found = read_object(path, "prepare the data again.")
    try:
        place = found.pop("place")
        content = digests.unseal(found, known=DESCRIBED)
        return {"place": place, **{key: content[key] for key in DESCRIBED}}
    except (ValueError, KeyError) as error:
        raise UserError(
            f"{path} was changed in more than its place ({error}): put the former file back, of "
            "which the folder of the data and the runs on it have a copy each, or prepare again."
        ) from None


def read_pca(folder: Path, described: Mapping[str, Any]) -> Pca | None:
    """The PCA of a description in ``folder``, None where there is none.

    Raises:
        UserError: it cannot be read, or is another one.
    """
    if described["pca"] is None:
        return None
    pca = Pca.read(folder / ENCODER_PCA)
    if pca.sha256() != described["pca"]["sha256"]:
        raise UserError(
            f"{folder / ENCODER_PCA} is not the PCA that {ENCODER} beside it names: put the former "
            "file back, or prepare the data again."
        )
    return pca


def _cells(side: int, grid: int) -> list[tuple[int, int]]:
    """First and end of what each cell of a row averages."""
    return [(i * side // grid, -(-(i + 1) * side // grid)) for i in range(grid)]


def _averages(side: int, grid: int) -> Float[Array, "grid side"]:
    found = np.zeros((grid, side), np.float32)
    for row, (first, end) in zip(found, _cells(side, grid), strict=True):
        row[first:end] = 1 / (end - first)
    return jnp.asarray(found)
