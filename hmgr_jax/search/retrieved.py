"""Retrieved captions and pictures of every question as tables, stored in the run's folder.

    captions [N, C], lengths [N]     words of the bank's captions, if the model reads captions
    vectors [N, E]                   of pictures, if the model reads pictures
    retrieved [Q, K]                 their rows for every picture (question) of all splits, or -1

N is rounded up, so that banks of similar size have tables of equal shape.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from hmgr_jax.data.banks import bank_names, open_bank
from hmgr_jax.data.split import DataSet
from hmgr_jax.data.text.captions import CaptionSource
from hmgr_jax.data.vqa.questions import QUESTION, Bank, QuestionSource
from hmgr_jax.distributed import hosts
from hmgr_jax.errors import UserError
from hmgr_jax.evaluation.retriever import Retriever
from hmgr_jax.files.arrays import read_npz
from hmgr_jax.files.workdir import replacing
from hmgr_jax.models.base import Banks
from hmgr_jax.search import needs
from hmgr_jax.search.index import Index, Item
from hmgr_jax.training.experiment import Experiment
from hmgr_jax.training.tables import RunTables, make_tables

FOLDER = "retrieved"
ROUND = 4096
"""The number of rows of a table is a multiple of this."""
PROBES = 8
"""Number of pictures per split in the fingerprint."""

Tables = dict[str, np.ndarray]


def run_tables(experiment: Experiment, workdir: Path | None) -> RunTables:
    """The tables of a run's model: its own tables, or the captions retrieved for its questions.

    ``workdir`` is the folder of the run, or None if nothing is trained, see `retrieved_tables`.

    Raises:
        UserError: see `retrieved_tables`.
    """
    model, config, data = experiment.model, experiment.config, experiment.data
    banks = model.banks
    if banks is None:
        return RunTables(*(make_tables(model, config.data, lambda: data),) * 2)
    train = retrieved_tables(banks, banks.train, config, data, workdir)
    same = banks.test == banks.train
    test = train if same else retrieved_tables(banks, banks.test, config, data, workdir)
    return RunTables(train, test)


def load_run(
    workdir: str | Path,
    config: ConfigDict | None = None,
    change: Callable[[ConfigDict], ConfigDict] | None = None,
) -> Retriever:
    """`Retriever.load` that also supports models with retrieved captions or pictures."""
    return Retriever.load(workdir, config, change, retrieve=retrieved_tables)


def retrieved_tables(
    banks: Banks, name: str, config: ConfigDict, data: DataSet, workdir: Path | None
) -> Tables:
    """The tables of the bank ``name``; retrieved unless ``workdir`` holds them.

    Args:
        banks: requirements of the model.
        name: a bank of the data, or ``random``.
        config: the configuration of the run.
        data: the data set with all splits.
        workdir: the folder of the run; None gives tables of the correct shapes without retrieval.

    Raises:
        UserError: the bank is unknown or too small, or the retriever is not trained.
    """
    bank = open_bank(config.data, bank_names(config.data)[0] if name == needs.RANDOM else name)
    sources: list[Any] = [split.sources[QUESTION] for split in data.splits.values()]
    if workdir is None:
        queries = len(_owners(banks, sources))
        found = {"retrieved": np.full((queries, banks.most), -1, np.int32)}
        if banks.what != "captions":
            found["vectors"] = np.zeros(
                (_round_up(len(bank)), config.model.picture_dim), np.float32
            )
    else:
        found = _load_or_retrieve(banks, name, bank, config, sources, workdir)
    if banks.what != "images":
        found |= _caption_tables(bank, data, banks.words)
    return found


def _round_up(count: int) -> int:
    return -(-count // ROUND) * ROUND


def _caption_tables(bank: Bank, data: DataSet, most: int) -> Tables:
    """Captions as token ids without ``<start>``, cut to ``most`` words, and their lengths."""
    tokens = [data.vocabulary.tokenize(caption) for caption in bank.captions]
    source = CaptionSource(tokens, data.vocabulary, max_words=most)
    found = source.gather(np.arange(len(source)), most + 2)
    more = ((0, _round_up(len(source)) - len(source)), (0, 0))
    return {
        "captions": np.pad(found["tokens"][:, 1:], more),
        "lengths": np.pad(found["lengths"] - 1, more[0]),
    }


def _load_or_retrieve(
    banks: Banks,
    name: str,
    bank: Bank,
    config: ConfigDict,
    sources: Sequence[QuestionSource],
    workdir: Path,
) -> Tables:
    """``retrieved`` (and ``vectors``) from the run's folder, or computed and stored there."""
    what = f"{name}-{banks.query}-{banks.what}{'' if banks.exclude_owner else '-own'}"
    path = workdir / FOLDER / f"{what}.npz"
    made_by = None if name == needs.RANDOM else needs.retriever_digest(config, workdir)
    about = {
        "bank": bank.fingerprint,
        "asked": _fingerprint(banks, sources),
        "retriever": made_by,
    }
    stored = _read(path, about)
    enough = stored is not None and stored["retrieved"].shape[1] >= banks.most
    if hosts.broadcast_from_first(enough) and stored is not None:
        return {**stored, "retrieved": stored["retrieved"][:, : banks.most]}
    if name == needs.RANDOM and banks.what != "captions":
        raise UserError(
            f"The bank {name} has only captions, but model.retrieve is {banks.what}: set it to "
            "captions, or name another bank."
        )
    if name == needs.RANDOM:
        made = _draw_captions(banks, bank, sources)
    else:
        made = _search(banks, bank, sources, needs.load_retriever(config, workdir), config)
    if hosts.is_first():
        _write(path, made, about)
    return made


def _owners(banks: Banks, sources: Sequence[QuestionSource]) -> np.ndarray:
    """The owner of every query, in order: the picture of the query."""
    if banks.query == "image":
        return np.concatenate([source.pictures.owners for source in sources])
    return np.concatenate([source.pictures.owners[source.of] for source in sources])


def _fingerprint(banks: Banks, sources: Sequence[QuestionSource]) -> str:
    """Fingerprint of the pictures of all splits and, if questions are queries, of questions."""
    digest = hashlib.sha256()
    for source in sources:
        digest.update(source.pictures.owners.tobytes())
        probes = np.arange(min(PROBES, len(source.pictures.owners)))
        for _, values in sorted(source.pictures.source.gather(probes).items()):
            digest.update(np.ascontiguousarray(values).tobytes())
        if banks.query == "question":
            digest.update("\n".join(source.captions).encode())
    return digest.hexdigest()


def _draw_captions(banks: Banks, bank: Bank, sources: Sequence[QuestionSource]) -> Tables:
    """Random captions, none of which describes the query's own picture."""
    owners, draws = _owners(banks, sources)[:, None], np.random.default_rng(0)
    found = draws.integers(len(bank), size=(len(owners), banks.most), dtype=np.int32)
    if banks.exclude_owner:
        if len(np.unique(bank.owners)) == 1 and (owners == bank.owners[0]).any():
            raise UserError(
                f"All captions of the bank {bank.name} describe one picture, whose own captions "
                "are excluded: give a larger bank."
            )
        while (own := bank.owners[found] == owners).any():
            found[own] = draws.integers(len(bank), size=int(own.sum()), dtype=np.int32)
    return {"retrieved": found}


def _search(
    banks: Banks,
    bank: Bank,
    sources: Sequence[QuestionSource],
    retriever: Retriever,
    config: ConfigDict,
) -> Tables:
    """Search a flat index of the bank with every query."""
    if hosts.is_first():
        print(f"Retrieving from {bank.name}, {len(bank):,} captions, for every {banks.query} ...")
    pictures = np.concatenate([_encode_pictures(retriever, source) for source in sources])
    of_pictures = np.concatenate([source.pictures.owners for source in sources])
    if banks.query == "image":
        queries = pictures
    else:
        asked = [text for source in sources for text in source.captions]
        queries = _encode_sentences(retriever, asked)
    if banks.what == "images":
        gallery, owners = pictures, of_pictures
    else:
        gallery, owners = _encode_sentences(retriever, bank.captions), bank.owners
    items = [Item(str(n), owner=str(o)) for n, o in enumerate(owners.tolist())]
    index = Index.build(gallery, items, model=str(retriever.workdir), engine="flat")
    own = _owners(banks, sources).tolist()
    without = [str(owner) for owner in own] if banks.exclude_owner else None
    numbers, _ = index.search(queries, banks.most, without=without)
    found: Tables = {"retrieved": numbers.astype(np.int32)}
    if banks.what != "captions":
        found["vectors"] = _vectors(pictures, of_pictures, owners, config.model.picture_dim)
    return found


def _vectors(
    pictures: np.ndarray, of_pictures: np.ndarray, owners: np.ndarray, dim: int
) -> np.ndarray:
    """The vector of the picture of every item, 0 if the data lacks the picture."""
    if pictures.shape[1] != dim:
        raise UserError(
            f"model.picture_dim is {dim}, but the retriever's vectors have dimension "
            f"{pictures.shape[1]}: set it to {pictures.shape[1]}."
        )
    place = {owner: row for row, owner in enumerate(of_pictures.tolist())}
    found = np.zeros((_round_up(len(owners)), dim), np.float32)
    for row, owner in enumerate(owners.tolist()):
        if owner in place:
            found[row] = pictures[place[owner]]
    return found


def _encode_pictures(retriever: Retriever, source: QuestionSource) -> np.ndarray:
    """Vectors of the pictures of a split, float32 [P, E]."""
    pictures = source.pictures.source
    has = pictures.gather(np.zeros(1, np.int64))
    for name, feature in retriever.model.inputs()["image"].items():
        shape = has[name].shape[1:] if name in has else ()
        same_rank = name in has and len(shape) == len(feature.shape)
        fits = same_rank and all(n in (None, m) for n, m in zip(feature.shape, shape, strict=True))
        if not fits and not feature.optional:
            raise UserError(
                f"{retriever.workdir} reads {name} of shape {list(feature.shape)} per picture, "
                f"but pictures of the questions have {list(shape) if name in has else 'none'}: "
                "train the retriever on the same features."
            )
    codes = retriever.evaluator.encode(retriever.variables, "image", pictures)
    return retriever.evaluator.calibrated(None).vectors(retriever.variables, "image", codes)


def _encode_sentences(retriever: Retriever, sentences: Sequence[str]) -> np.ndarray:
    """Vectors of sentences, float32 [n, E]."""
    codes = retriever.encode("text", sentences)
    return retriever.evaluator.calibrated(None).vectors(retriever.variables, "text", codes)


def _read(path: Path, about: Mapping[str, Any]) -> Tables | None:
    """The tables that `_write` wrote with the same ``about``, or None.

    Tables outlive their retriever: one that is no longer there is not compared.
    """
    if not path.is_file():
        return None
    try:
        found = read_npz(path, "delete it to retrieve again.")
        saved = {"retriever": None, **json.loads(str(found.pop("about", "{}")))}
    except (ValueError, TypeError) as error:
        raise UserError(f"{path} cannot be read ({error}): delete it to retrieve again.") from None
    if about["retriever"] is None:
        about = {**about, "retriever": saved["retriever"]}
    return found if saved == dict(about) else None


def _write(path: Path, tables: Tables, about: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        np.savez(file, about=np.array(json.dumps(dict(about))), **tables)  # type: ignore[arg-type]
