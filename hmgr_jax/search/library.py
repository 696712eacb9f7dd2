"""An index in a program: ``hmgr_jax.load(run).index(folder)`` builds or updates it."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from pathlib import Path

from hmgr_jax.errors import UserError
from hmgr_jax.evaluation.retriever import Retriever
from hmgr_jax.files.workdir import cache_folder
from hmgr_jax.search import asking, following
from hmgr_jax.search.following import Changes
from hmgr_jax.search.retrieved import retrieved_tables
from hmgr_jax.search.searcher import Hit, Searcher, model_key


class IndexingRetriever(Retriever):
    """A `Retriever` that also indexes the pictures of a folder."""

    def index(self, folder: str | Path, out: str | Path | None = None) -> FolderIndex:
        """The index of all readable pictures in a folder: built, or brought up to date.

        Args:
            folder: the pictures, in sub-folders too.
            out: the folder of the index; by default one in the user's folder of caches.

        Raises:
            UserError: there is no readable picture, or ``out`` is an index of another folder or
                model.
        """
        folder = Path(folder)
        if out is None:
            name = hashlib.sha256(f"{folder.resolve()}\0{model_key(self)}".encode()).hexdigest()
            out = cache_folder() / "indices" / name[:16]
        out = Path(out)
        if out.exists():
            found = FolderIndex(self, out)
            followed = found.searcher.followed.folders
            if followed != [str(folder.resolve())]:
                raise UserError(
                    f"{out} follows {', '.join(followed) or 'no folder'}, not {folder}: give "
                    "another out."
                )
            found.update()
            return found
        blocks = out.with_name(f"{out.name}.encoded")
        made = following.build(self, [folder], blocks)
        made.save(out, f"hmgr_jax.load({str(self.workdir)!r}).index({str(folder)!r})")
        shutil.rmtree(blocks, ignore_errors=True)
        return FolderIndex(self, out)


class FolderIndex:
    """An index on disk; other programs may search it while this one changes it."""

    def __init__(self, retriever: Retriever, folder: Path) -> None:
        self.folder, self._retriever = folder, retriever
        self.searcher = Searcher.open(folder, retriever=retriever)

    def __len__(self) -> int:
        return len(self.searcher.index)

    def search(self, query: str | Path, k: int = 10) -> list[Hit]:
        """The best ``k`` items (or all there are) for a sentence, or for the picture of a `Path`.

        Raises:
            UserError: the query is empty, of unknown words only, or no readable picture.
        """
        if k < 1:
            raise UserError(f"k must be at least 1, got {k}.")
        if isinstance(query, Path):
            asked = asking.of_pictures(self._retriever, [query])
        else:
            asked = asking.of_sentences(self._retriever, [query])
        most = min(k, len(self))
        return self.searcher.hits(*self.searcher.search(asked.modality, asked.codes, most))[0]

    def add(self, files: Sequence[str | Path]) -> Changes:
        """Add pictures; see `following.add`."""
        paths = [Path(file) for file in files]
        return self._after(following.add(self.folder, paths, retriever=self._retriever))

    def remove(self, ids: Sequence[str]) -> Changes:
        """Remove items; see `following.remove`."""
        return self._after(following.remove(self.folder, ids, retriever=self._retriever))

    def update(self) -> Changes:
        """Follow the folder; see `following.update`."""
        return self._after(following.update(self.folder, retriever=self._retriever))

    def _after(self, done: Changes) -> Changes:
        self.searcher = Searcher.open(self.folder, retriever=self._retriever)
        return done


def load(workdir: str | Path) -> IndexingRetriever:
    """See `hmgr_jax.load`."""
    found = IndexingRetriever.load(workdir, retrieve=retrieved_tables)
    assert isinstance(found, IndexingRetriever)
    return found
