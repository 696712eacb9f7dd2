"""One page per caption: its words and regions by weight, what it read from memory, its results.

Sizes are in inches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from hmgr_jax.layers.bank import EMPTY
from hmgr_jax.reports.faded_picture import FadedPicture
from hmgr_jax.reports.grid import FRAME, GREY, Page, Thumbnail, bullets, shorten, wrap
from hmgr_jax.reports.split_pictures import SplitPictures
from hmgr_jax.reports.vector_explanation import Ranking, StoredPair, VectorExplanation

COLUMNS, SIDE, GAP, MARGIN = 6, 2.0, 0.15, 0.3
WIDTH = COLUMNS * (SIDE + GAP) - GAP + 2 * MARGIN
QUERY = 2.3
"""Width of the picture of the pair; its height is within `TALLEST`."""
TALLEST = 2.6
TITLE, LINE, HEADING, ABOVE, BETWEEN = 0.3, 0.62, 0.3, 0.25, 0.22
"""Heights: the title, a line of words, a heading, the line above a thumbnail, between sections."""
SENTENCE = 0.18
"""Height of a line below a thumbnail."""
WORD, LETTERS, LONGEST, NOTE = 14, 28, 24, 134
"""Font size of the words; letters of a line below a thumbnail, of an id or a word, of a note."""
MOST = 4
"""Words whose absence is noted."""
SHADE, CORRECT, UP, DOWN = "#f78c28", "#2f9e44", "#2b8a3e", "#c92a2a"


def draw_retrieval(
    found: VectorExplanation,
    gallery: SplitPictures,
    train: SplitPictures | None,
    sentence: str,
) -> Figure:
    """The page of a caption and an image of the gallery; ``train`` has the stored pairs."""
    words_left = MARGIN + QUERY + 2 * GAP
    picture = gallery.picture(found.image)
    tall, wide = (1, 1) if picture is None else picture.shape[:2]
    tall = min(QUERY * tall / wide, TALLEST)
    lines = _lines(found.words, WIDTH - MARGIN - words_left)
    notes = bullets(_notes(found, gallery), NOTE)
    beside = HEADING + LINE * len(lines) + 0.2 * len(notes.splitlines())
    head = max(tall, beside) + BETWEEN
    title = wrap(sentence, 100).splitlines() or [sentence]
    rows = [_pairs_row(pairs, m, train) for m, pairs in found.pairs.items() if train]
    rows += [_results_row(found, name, gallery) for name in _rankings(found)]
    top = MARGIN + TITLE * len(title) + TITLE
    page = Page(WIDTH, top + head + sum(row.height for row in rows))
    page.text(MARGIN, MARGIN - 0.05, "\n".join(title), size=15, weight="bold")
    page.text(MARGIN, top - TITLE, _summary(found, gallery), size=11)
    _draw_fragments(page.panel(MARGIN, top, QUERY, tall), picture, found, gallery)
    page.text(words_left, top, _legend(found, gallery), size=9.5, color="#444444")
    room = WIDTH - MARGIN - words_left, LINE * len(lines)
    _draw_words(page.panel(words_left, top + HEADING, *room), room, lines, found)
    page.text(words_left, top + HEADING + room[1], notes, size=9.5, color="#444444")
    top += head
    for row in rows:
        row.draw(page, top)
        top += row.height
    return page.figure


@dataclass(frozen=True)
class Row:
    """A heading and a row of thumbnails."""

    heading: str
    shown: Sequence[Thumbnail]
    marks: Sequence[tuple[str, str]] = ()
    """A mark above each thumbnail, at its right, and its colour."""

    @property
    def height(self) -> float:
        """The height on the page."""
        lines = max((shown.below.count("\n") + 1 for shown in self.shown), default=1)
        return HEADING + ABOVE + SIDE + 0.1 + SENTENCE * lines + BETWEEN

    def draw(self, page: Page, top: float) -> None:
        """Draw the row at a height of the page."""
        page.text(MARGIN, top, self.heading, size=11)
        top += HEADING + ABOVE
        for place, shown in enumerate(self.shown):
            page.thumbnail(MARGIN + place * (SIDE + GAP), top, SIDE, shown)
        for place, (mark, colour) in enumerate(self.marks):
            right = MARGIN + place * (SIDE + GAP) + SIDE
            page.text(right, top - 0.05, mark, ha="right", va="bottom", color=colour, weight="bold")


# --- the caption and the image ------------------------------------------------------------------


def _summary(found: VectorExplanation, gallery: SplitPictures) -> str:
    score, rank = found.found.scores[found.image], found.describe_rank(found.image)
    return f"{gallery.id(found.image)}    score {score:.3f}    rank {rank}"


def _legend(found: VectorExplanation, gallery: SplitPictures) -> str:
    what = "regions" if gallery.split.visual == "image" else "frames"
    if not found.weights:
        return f"The pool of this system has no weights of words and {what}."
    said = f"Weights in the vectors of the caption and of the {_noun(gallery)}, shaded from the"
    weights = found.weights.get(gallery.split.visual)
    own = f" ({what} {weights.min():.3f} to {weights.max():.3f})" if weights is not None else ""
    return f"{said} lowest to the highest{own}."


def _notes(found: VectorExplanation, gallery: SplitPictures) -> list[str]:
    """What the memory does to this search."""
    notes, noun = [], _noun(gallery)
    for modality, pairs in found.pairs.items():
        own, other = ("caption", noun) if modality == "text" else (noun, "caption")
        notes.append(
            f"The {own} reads the {len(pairs)} training pairs whose {own} is most like it: the "
            f"{other}s of these pairs, in proportion to their weights, are added to its vector."
        )
    if found.uncertainty:
        names = {"text": "caption"}
        each = [f"{s:.3g} of the {names.get(m, noun)}" for m, s in found.uncertainty.items()]
        notes.append(f"Uncertainty σ (geometric mean over dimensions): {', '.join(each)}.")
    if found.without_word is not None:
        sigma, whole = found.without_word, found.uncertainty["text"]
        change = np.abs(np.nan_to_num(sigma, nan=whole) - whole)
        places = np.argsort(-change, kind="stable")[:MOST]
        each = [
            f"{sigma[i]:.3g} without {found.words[i]!r}" for i in places if sigma[i] == sigma[i]
        ]
        notes.append(
            f"σ of the caption changes most where one word is left out: {', '.join(each)}."
        )
    if found.calibration is not None and found.calibration.strength:
        numbers = f"λ = {found.calibration.strength:g}, β = {found.calibration.sharpness:g}"
        notes.append(
            f"Scores are calibrated ({numbers}): an item that is near to many stored vectors of "
            "the other modality loses score."
        )
    return notes


def _shares(weights: np.ndarray) -> np.ndarray:
    """Weights from 0 (the lowest) to 1 (the highest)."""
    spread = float(weights.max() - weights.min())
    return (weights - weights.min()) / spread if spread else np.ones_like(weights)


def _noun(pictures: SplitPictures) -> str:
    return "picture" if pictures.split.visual == "image" else "clip"


def _draw_fragments(
    axes: Axes, picture: np.ndarray | None, found: VectorExplanation, gallery: SplitPictures
) -> None:
    """Regions in colour by weight; without boxes the picture, or else bars of the weights."""
    weights = found.weights.get(gallery.split.visual)
    if found.boxes is not None:
        faded = FadedPicture(picture, found.boxes)
        if weights is None:
            faded.draw(axes, np.ones(len(found.boxes)), 1.0, frame=False)
        else:
            faded.draw(axes, _shares(weights), 1.0, label=False)
    elif picture is not None:
        axes.imshow(picture)
    elif weights is not None:
        axes.bar(range(len(weights)), weights, color=SHADE, width=0.8)
        axes.set_xlabel("region" if gallery.split.visual == "image" else "frame", fontsize=9)
    else:
        axes.set_axis_off()


def _lines(words: Sequence[str], width: float) -> list[list[tuple[int, float, float]]]:
    """Lines of (number of a word, left, width)."""
    lines: list[list[tuple[int, float, float]]] = [[]]
    measure, left = Page(1, 1).width_of, 0.0
    for number, word in enumerate(words):
        wide = measure(shorten(word, LONGEST), size=WORD) + 0.12
        if left + wide > width and lines[-1]:
            lines.append([])
            left = 0.0
        lines[-1].append((number, left, wide))
        left += wide + 0.1
    return lines


def _draw_words(
    axes: Axes,
    room: tuple[float, float],
    lines: Sequence[Sequence[tuple[int, float, float]]],
    found: VectorExplanation,
) -> None:
    """The words, shaded by their weights, which stand below them."""
    weights = found.weights.get("text")
    shares = np.zeros(len(found.words)) if weights is None else _shares(weights)
    axes.set(xlim=(0, room[0]), ylim=(room[1], 0))
    axes.set_axis_off()
    for line, words in enumerate(lines):
        top = LINE * line
        for number, left, wide in words:
            word = found.words[number]
            box = FancyBboxPatch(
                (left, top), wide, 0.32, boxstyle="round,pad=0,rounding_size=0.04", lw=0
            )
            box.set(facecolor=SHADE, alpha=0.06 + 0.84 * shares[number], clip_on=False)
            axes.add_patch(box)
            middle = left + wide / 2
            options: dict[str, Any] = {"ha": "center", "parse_math": False}
            ends = number in (0, len(found.words) - 1)
            colour = GREY if ends or word in found.unknown else "black"
            axes.text(
                middle, top + 0.235, shorten(word, LONGEST), fontsize=WORD, color=colour, **options
            )
            if weights is not None:
                said = f"{weights[number]:.2f}"
                axes.text(middle, top + 0.47, said, fontsize=8.5, color=GREY, **options)


# --- rows of thumbnails -------------------------------------------------------------------------


def _pairs_row(pairs: Sequence[StoredPair], reader: str, train: SplitPictures) -> Row:
    """The pictures of the largest weights, each with the pair of its largest weight."""
    of_picture: dict[int, list[StoredPair]] = {}
    for pair in pairs:
        of_picture.setdefault(pair.picture, []).append(pair)
    weights = {picture: sum(p.weight for p in some) for picture, some in of_picture.items()}
    best = sorted(weights, key=weights.__getitem__, reverse=True)[:COLUMNS]
    who, noun = "caption" if reader == "text" else _noun(train), f"{_noun(train)}s"
    share = 100 * sum(weights[picture] for picture in best)
    heading = (
        f"Training pairs that the {who} reads from the memory: {len(best)} of {len(weights)} "
        f"{noun}, with {share:.0f}% of the weight"
    )
    return Row(heading, [_stored(of_picture[picture], train) for picture in best])


def _stored(pairs: Sequence[StoredPair], train: SplitPictures) -> Thumbnail:
    """The pairs of one picture, with the sentence of the first."""
    picture, caption = pairs[0].picture, pairs[0].caption
    above = f"weight {sum(pair.weight for pair in pairs):.3f}"
    if len(pairs) > 1:
        above += f"  in {len(pairs)} pairs"
    name = train.id(picture)
    below = shorten(name, LONGEST)
    if caption != EMPTY:
        below = wrap(train.sentences[caption], LETTERS, 3)
    return Thumbnail(train.picture(picture), words=name, above=above, below=below)


def _rankings(found: VectorExplanation) -> dict[str, Ranking]:
    """{name: ranking} of the rows of results."""
    if found.without is None:
        return {"": found.found}
    return {" without the memory": found.without, " with the memory": found.found}


def _results_row(found: VectorExplanation, name: str, gallery: SplitPictures) -> Row:
    """The best results; the last one gives its place to a correct one beyond them."""
    ranking, best = _rankings(found)[name], found.best_correct()
    shown = ranking.order[:COLUMNS]
    if ranking.ranks[best] > COLUMNS:
        shown = [*shown[:-1], best]
    heading = f"Top results{name}. Framed: the correct {_noun(gallery)}, rank {ranking.ranks[best]}"
    if found.without is not None:
        heading += ". Arrows: moved by the memory"
    results = [
        Thumbnail(
            gallery.picture(image),
            words=gallery.first_caption(image),
            above=f"{ranking.ranks[image]}    {ranking.scores[image]:.3f}",
            below=shorten(gallery.id(image), LETTERS),
            frame=CORRECT if image in found.correct else FRAME,
            thick=image in found.correct,
        )
        for image in shown
    ]
    return Row(heading, results, [_change(found, ranking, image) for image in shown])


def _change(found: VectorExplanation, ranking: Ranking, image: int) -> tuple[str, str]:
    """The rank in the other row, and its colour."""
    rise = found.rise(image)
    if found.without is None or not rise:
        return "" if found.without is None else "=", GREY
    other, word = (found.found, "to") if ranking is found.without else (found.without, "from")
    return f"{'▲' if rise > 0 else '▼'} {word} {other.ranks[image]}", UP if rise > 0 else DOWN
