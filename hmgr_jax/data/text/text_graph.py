"""Word graphs: which word of a caption depends on which, and how (ReSG spec 5.3).

Parsing is no part of training: ``{split}_caps.conllu`` lies beside ``{split}_caps.txt`` with one
sentence a caption, in the order of the captions; ``python -m hmgr_jax.prepare dependencies`` makes
it. Full, window and distance graphs need no file: models make them of positions.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from hmgr_jax.data.text.captions import Arcs, CaptionSource
from hmgr_jax.data.text.conllu import Sentence, Word, read_conllu
from hmgr_jax.data.text.tokens import tokenize
from hmgr_jax.data.text.vocabulary import MARKS, Vocabulary
from hmgr_jax.errors import UserError

RELATIONS = (
    *("dep", "root", "acl", "advcl", "advmod", "amod", "appos", "aux", "case", "cc", "ccomp"),
    *("compound", "conj", "cop", "csubj", "det", "expl", "fixed", "flat", "iobj", "mark", "nmod"),
    *("nsubj", "nummod", "obj", "obl", "parataxis", "punct", "xcomp", "prep", "pobj"),
)
"""What a word may be to its head; others count as ``dep``. The last two are English spaCy's."""
_ALIASES = {
    **{"dobj": "obj", "nsubjpass": "nsubj", "csubjpass": "csubj", "auxpass": "aux"},
    **{"relcl": "acl", "poss": "nmod", "acomp": "xcomp", "attr": "xcomp", "oprd": "xcomp"},
    **{"npadvmod": "obl", "pcomp": "pobj", "prt": "compound", "neg": "advmod", "agent": "prep"},
    **{"quantmod": "advmod", "preconj": "cc", "predet": "det", "dative": "iobj"},
    **{"goeswith": "fixed"},
}
_NUMBER = {name: number for number, name in enumerate(RELATIONS)}
PARSER = "en_core_web_sm"
"""The spaCy model that parses where no other is named."""


def relation_number(name: str) -> int:
    """The number of a relation by its name, whatever its subtype."""
    plain = name.lower().partition(":")[0]
    return _NUMBER.get(_ALIASES.get(plain, plain), 0)


def find_word_graphs(captions: Mapping[str, Path]) -> dict[str, Path]:
    """{role: CoNLL-U file} of all splits, or nothing where none has one.

    Raises:
        UserError: only some of them have.
    """
    files = {role: path.with_suffix(".conllu") for role, path in captions.items()}
    there = [path for path in files.values() if path.is_file()]
    lacking = [path for path in files.values() if not path.is_file()]
    if there and lacking:
        raise UserError(
            f"{there[0]} has no counterpart {lacking[0].name}: give word graphs for all splits or "
            "for none (python -m hmgr_jax.prepare dependencies makes them)."
        )
    return files if there else {}


def read_word_graphs(path: Path, captions: Sequence[str]) -> list[Arcs]:
    """The arcs of every caption, between the tokens of `tokenize`.

    Raises:
        UserError: another number of sentences than of captions, or a sentence that is not its
            caption; names the first.
    """
    found: list[Arcs] = []
    for sentence in read_conllu(path):
        if len(found) < len(captions):
            found.append(_of_caption(sentence, captions[len(found)], path, len(found)))
        else:
            found.append(Arcs((), ()))
    if len(found) != len(captions):
        raise UserError(
            f"{path} holds {len(found)} sentences for {len(captions)} captions: there must be one "
            "a caption, in their order."
        )
    return found


def _of_caption(sentence: Sentence, caption: str, path: Path, number: int) -> Arcs:
    where = f"{path}:{sentence.line}, the sentence of caption {number + 1},"
    if sentence.text is not None and _letters(sentence.text) != _letters(caption):
        raise UserError(
            f"{where} reads {sentence.text!r} where the caption is {caption!r}: parse the captions "
            "in their order."
        )
    arcs = between_tokens(tokenize(caption), sentence, _letters(caption))
    if arcs is None:
        raise UserError(
            f"{where} holds words that do not spell {caption!r}: parse that caption again."
        )
    return arcs


def between_tokens(tokens: Sequence[str], sentence: Sentence, letters: str) -> Arcs | None:
    """The sentence's arcs between our tokens, by the letters that they share.

    A token of several words takes the head of the one whose head lies outside it; of a word of
    several tokens the others are ``fixed`` to the one with most of its letters. None where tokens
    or words do not spell ``letters``, the caption in lower case without its spaces.
    """
    of_tokens, of_surfaces = _spans(tokens, letters), _spans(sentence.surfaces, letters)
    if of_tokens is None or of_surfaces is None:
        return None
    token_at = [t for t, (start, end) in enumerate(of_tokens) for _ in range(start, end)]
    main: list[int] = []
    for word in sentence.words:
        start, end = of_surfaces[word.surface]
        own = token_at[start:end]
        main.append(max(dict.fromkeys(own), key=own.count) if own else -1)
    heads: list[int] = []
    relations: list[int] = []
    for token, (start, _) in enumerate(of_tokens):
        mine = [w for w, m in zip(sentence.words, main, strict=True) if m == token]
        head, relation = _arc(token, mine, main)
        if not mine:  # a part of a word whose arc another token has
            surface = next(s for s, (a, b) in enumerate(of_surfaces) if a <= start < b)
            place = next(i for i, w in enumerate(sentence.words) if w.surface == surface)
            head, relation = main[place], _NUMBER["fixed"]
        heads.append(head)
        relations.append(relation)
    return Arcs(tuple(heads), tuple(relations))


def _arc(token: int, words: Sequence[Word], main: Sequence[int]) -> tuple[int, int]:
    for word in words:
        head = main[word.head] if word.head >= 0 else -1
        if head != token:
            return head, relation_number(word.relation)
    return token, 0


def _letters(text: str) -> str:
    return "".join(text.lower().split())


def _spans(parts: Iterable[str], letters: str) -> list[tuple[int, int]] | None:
    """Where each part lies in ``letters``; the quotes of Treebank stand for those of the text."""
    found: list[tuple[int, int]] = []
    place = 0
    for part in parts:
        wanted = _letters(part)
        if wanted in ("``", "''") and letters[place : place + 1] == '"':
            wanted = '"'
        elif wanted == "``":
            wanted = "''"
        if not wanted or not letters.startswith(wanted, place):
            return None
        found.append((place, place + len(wanted)))
        place += len(wanted)
    return found if place == len(letters) else None


# --- a parser -----------------------------------------------------------------------------------


def parse(captions: Sequence[str], model: str = PARSER) -> Iterator[Sentence]:
    """Captions parsed by a spaCy model, in order, each as one sentence.

    Raises:
        UserError: spaCy or its model is not installed.
    """
    advice = ", or give CoNLL-U files made elsewhere and --check"
    return _parsed(_demand_parser(model, "Word graphs of captions need", advice), captions)


def _parsed(parser: Any, captions: Sequence[str]) -> Iterator[Sentence]:
    for number, document in enumerate(parser.pipe(captions), start=1):
        kept = [token for token in document if not token.is_space]
        place = {token.i: k for k, token in enumerate(kept)}
        words = [
            # Of several sentences in a caption each has its own root.
            Word(k, -1 if token.head.i == token.i else place.get(token.head.i, -1), token.dep_)
            for k, token in enumerate(kept)
        ]
        yield Sentence(number, document.text, tuple(t.text for t in kept), tuple(words))


def parsed_arcs(captions: Sequence[str], model: str = PARSER) -> list[Arcs]:
    """The arcs of sentences that have no file, for a search by a sentence of one's own.

    Raises:
        UserError: spaCy or its model is not installed.
    """
    parser = _demand_parser(model, "Word graphs of sentences of your own need")
    found: list[Arcs] = []
    for caption, sentence in zip(captions, _parsed(parser, captions), strict=True):
        tokens = tokenize(caption)
        arcs = between_tokens(tokens, sentence, _letters(caption))
        if arcs is None:
            said = f"{caption!r} is read without its word graph"
            warnings.warn(said, RuntimeWarning, stacklevel=2)
            arcs = Arcs(tuple(range(len(tokens))), (0,) * len(tokens))
        found.append(arcs)
    return found


def _demand_parser(model: str, wanted: str, otherwise: str = "") -> Any:
    """The parser, or a refusal that says what is ``wanted`` of it and what else would do."""
    try:
        return _parser(model)
    except ImportError:
        raise UserError(
            f"{wanted} spaCy, which is not installed: pip install '.[parse]', then install a model "
            f"such as {PARSER} by hand, from spaCy's model releases (pip install FILE.whl)"
            f"{otherwise}."
        ) from None
    except OSError:
        raise UserError(
            f"{wanted} spaCy's model {model}, which is not installed, and nothing is downloaded "
            f"here: after pip install '.[parse]' install a model such as {PARSER} by hand, from "
            f"spaCy's model releases (pip install FILE.whl){otherwise}."
        ) from None


@cache
def _parser(model: str) -> Any:
    import spacy

    return spacy.load(model, disable=["ner", "lemmatizer"])


def open_sentences(
    sentences: Sequence[str], vocabulary: Vocabulary, wanted: Collection[str], max_words: int
) -> CaptionSource:
    """Sentences, of which the first ``max_words`` words count, as a model's text items.

    Args:
        sentences: none of them empty.
        vocabulary: of the model.
        wanted: names of the model's inputs of text; with ``heads`` among them they are parsed, with
            ``features`` they are bags of words.
        max_words: without the marks of beginning and end.

    Raises:
        UserError: they have to be parsed, and no parser is installed; the model has no words.
    """
    bags = "features" in wanted
    if bags and len(vocabulary) == len(MARKS):
        raise UserError(
            "This run was trained on vectors of texts, not on words: give arrays, as "
            '{"features": [n, D]}, made like those that it was trained on.'
        )
    arcs = parsed_arcs(sentences) if "heads" in wanted else None
    tokens = [vocabulary.tokenize(sentence) for sentence in sentences]
    return CaptionSource(tokens, vocabulary, max_words=max_words, arcs=arcs, bags=bags)
