"""Word graphs of a folder's captions, written as CoNLL-U files beside them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from hmgr_jax.data.text.captions import read_lines
from hmgr_jax.data.text.conllu import Sentence
from hmgr_jax.data.text.text_graph import PARSER, find_word_graphs, parse, read_word_graphs
from hmgr_jax.errors import UserError
from hmgr_jax.files import manifest
from hmgr_jax.files.workdir import write_text_atomic

ENDING = "_caps.txt"


def write(root: Path, splits: str | None, parser: str | None) -> Iterator[tuple[Path, int]]:
    """Parse all (or the named) splits of ``root``; yields (file, number of captions) for each.

    An existing file is replaced atomically.
    """
    for name in _names(root, splits):
        captions = read_lines(root / f"{name}{ENDING}")
        out = root / f"{name}{manifest.GRAPHS}"
        sentences = parse(captions, parser or PARSER)
        write_text_atomic(out, "".join(_block(sentence) for sentence in sentences))
        manifest.add(root, out.name)
        yield out, len(captions)


def check(root: Path, splits: str | None) -> Iterator[tuple[Path, int, bool]]:
    """Check the files of all (or the named) splits of ``root`` against the captions.

    If all match, they are added to the manifest, if there is one: yields (file, number of captions,
    whether it was added). Raises `UserError`, and adds none, if a sentence differs.
    """
    texts = {name: root / f"{name}{ENDING}" for name in _names(root, splits)}
    files = find_word_graphs(texts)
    if not files:
        raise UserError(
            f"{root} holds no {next(iter(texts))}{manifest.GRAPHS} to check: put the files there, "
            "or leave --check out to parse the captions."
        )
    counts = {
        name: len(read_word_graphs(path, read_lines(texts[name]))) for name, path in files.items()
    }
    for name, path in files.items():
        yield path, counts[name], manifest.add(root, path.name)


def _names(root: Path, splits: str | None) -> list[str]:
    if splits:
        return splits.split(",")
    names = sorted(path.name.removesuffix(ENDING) for path in root.glob(f"*{ENDING}"))
    if not names:
        raise UserError(
            f"{root} holds no file that ends in {ENDING}: give the folder of the captions."
        )
    return names


def _block(sentence: Sentence) -> str:
    """Format a sentence as CoNLL-U; unknown columns are underscores."""
    rows = [f"# text = {sentence.text}"]
    for number, word in enumerate(sentence.words, start=1):
        form = sentence.surfaces[word.surface]
        columns = [str(number), form, *"____", str(word.head + 1), word.relation, "_", "_"]
        rows.append("\t".join(columns))
    return "\n".join(rows) + "\n\n"
