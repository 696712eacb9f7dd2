"""The items that a model is most and least certain of, as one HTML file with their pictures."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

import numpy as np
from PIL import Image

from hmgr_jax.data.pictures.pixels import PixelSource
from hmgr_jax.data.split import Split

EACH = 12
"""Items at either end."""
SIDE = 160
"""Pixels of the longer side of a picture."""
STYLE = """
body{font:15px/1.45 system-ui,sans-serif;margin:2rem auto;max-width:76rem;padding:0 1rem;
color:#222;background:#fff}h1{font-size:1.35rem}h2{font-size:1.1rem;margin-top:2rem}
ol{display:grid;grid-template-columns:repeat(auto-fill,minmax(170px,1fr));gap:1rem;padding:0;
list-style:none}li{border:1px solid #ddd;border-radius:6px;padding:.6rem;overflow-wrap:anywhere}
img{display:block;max-width:100%;height:auto;margin-bottom:.4rem;border-radius:3px}
p{margin:.2rem 0}.n{color:#666;font-size:.85em}
@media(prefers-color-scheme:dark){body{color:#ddd;background:#181818}li{border-color:#444}
.n{color:#aaa}}
"""


class Shown(NamedTuple):
    """One side's uncertainties."""

    modality: str
    uncertainty: np.ndarray
    """float [n]."""
    ranks: np.ndarray
    """int [n], 0-based, of the best right answer."""


def sheet(split: Split, sides: Sequence[Shown], title: str, each: int = EACH) -> str:
    """The HTML: for each side the ``each`` most and least certain items, nothing loaded from
    elsewhere.

    An image is shown as a picture where the split has pictures (not features), with one of its
    captions; a caption as its sentence with the picture that it is of.
    """
    parts = [f"<h1>{escape(title)}</h1>"]
    for side in sides:
        order = np.argsort(side.uncertainty, kind="stable").tolist()
        ends = {"Most certain": order[:each], "Least certain": order[::-1][:each]}
        for what, items in ends.items():
            parts.append(f"<h2>{what}: {escape(side.modality)}</h2><ol>")
            parts += [_item(split, side, item) for item in items]
            parts.append("</ol>")
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>"
        f"<body>{''.join(parts)}</body></html>\n"
    )


def _item(split: Split, side: Shown, item: int) -> str:
    rows = split.rows[side.modality]
    row = int(np.flatnonzero(rows == item)[0])
    image, caption = int(split.rows[split.visual][row]), int(split.rows["text"][row])
    captions = getattr(split.sources["text"], "captions", ())
    sentence = captions[caption] if captions else split.ids["text"][caption]
    name = split.ids[side.modality][item]
    picture = _picture(split, image, f"picture of {name}")
    return (
        f"<li>{picture}<p>{escape(sentence)}</p>"
        f'<p class="n">{escape(name)}<br>uncertainty {side.uncertainty[item]:.4g}, '
        f"right answer at rank {int(side.ranks[item]) + 1}</p></li>"
    )


def _picture(split: Split, image: int, alt: str) -> str:
    """An ``img`` with its contents, empty where the split has features."""
    source = split.sources[split.visual]
    if not isinstance(source, PixelSource):
        return ""
    picture = source.pictures.load(image).copy()
    picture.thumbnail((SIDE, SIDE), Image.Resampling.BILINEAR)
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=85)
    data = base64.b64encode(file.getvalue()).decode()
    width, height = picture.size
    return (
        f'<img width="{width}" height="{height}" alt="{escape(alt)}" '
        f'src="data:image/jpeg;base64,{data}">'
    )
