"""Word graphs of a folder's captions, as CoNLL-U files beside them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from hmgr_jax.data.captions import read_lines
from hmgr_jax.data.conllu import Sentence
from hmgr_jax.data.text_graph import PARSER, parse
from hmgr_jax.errors import UserError
from hmgr_jax.preparation import manifest
from hmgr_jax.training.workdir import write_text_atomic

ENDING = "_caps.txt"


def write(root: Path, splits: str | None, parser: str | None) -> Iterator[tuple[Path, int]]:
    """Parse every split of ``root``, or those named; yields (file, captions) as each is written.

    A file that is there is written anew, whole or not at all.

    Raises:
        UserError: no captions, a file that cannot be read, or no parser.
    """
    names = splits.split(",") if splits else _found(root)
    for name in names:
        captions = read_lines(root / f"{name}{ENDING}")
        out = root / f"{name}_caps.conllu"
        sentences = parse(captions, parser or PARSER)
        write_text_atomic(out, "".join(_block(sentence) for sentence in sentences))
        manifest.add(root, out.name)
        yield out, len(captions)


def _found(root: Path) -> list[str]:
    names = sorted(path.name.removesuffix(ENDING) for path in root.glob(f"*{ENDING}"))
    if not names:
        raise UserError(
            f"{root} holds no file that ends in {ENDING}: give the folder of the captions."
        )
    return names


def _block(sentence: Sentence) -> str:
    """A sentence in the columns of CoNLL-U; what is not known is an underscore."""
    rows = [f"# text = {sentence.text}"]
    for number, word in enumerate(sentence.words, start=1):
        form = sentence.surfaces[word.surface]
        columns = [str(number), form, *"____", str(word.head + 1), word.relation, "_", "_"]
        rows.append("\t".join(columns))
    return "\n".join(rows) + "\n\n"
