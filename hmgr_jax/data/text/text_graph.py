"""Word graphs: the dependency arcs between the words of a caption.

Captions are parsed before training: ``{split}_caps.conllu`` stands beside ``{split}_caps.txt`` and
holds one sentence per caption, in order; ``python -m hmgr_jax.prepare dependencies`` makes it.
Full, window and distance graphs need no file: models make them from positions.
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
"""Relations of a word to its head; others count as ``dep``. The last two are English spaCy's."""
_ALIASES = {
    **{"dobj": "obj", "nsubjpass": "nsubj", "csubjpass": "csubj", "auxpass": "aux"},
    **{"relcl": "acl", "poss": "nmod", "acomp": "xcomp", "attr": "xcomp", "oprd": "xcomp"},
    **{"npadvmod": "obl", "pcomp": "pobj", "prt": "compound", "neg": "advmod", "agent": "prep"},
    **{"quantmod": "advmod", "preconj": "cc", "predet": "det", "dative": "iobj"},
    **{"goeswith": "fixed"},
}
_NUMBER = {name: number for number, name in enumerate(RELATIONS)}
PARSER = "en_core_web_sm"
"""Default spaCy model."""


def relation_number(name: str) -> int:
    """Index of a relation in `RELATIONS` by its name; a subtype is ignored."""
    plain = name.lower().partition(":")[0]
    return _NUMBER.get(_ALIASES.get(plain, plain), 0)


def find_word_graphs(captions: Mapping[str, Path]) -> dict[str, Path]:
    """{role: CoNLL-U file} of all splits; empty if no split has one.

    Raises:
        UserError: only some splits have one.
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
    count = 0
    for count, sentence in enumerate(read_conllu(path), start=1):
        if count <= len(captions):
            found.append(_caption_arcs(sentence, captions[count - 1], f"{path}, sentence {count},"))
    if count != len(captions):
        raise UserError(
            f"{path} holds {count} sentences for {len(captions)} captions: give one sentence per "
            "caption, in their order."
        )
    return found


def _caption_arcs(sentence: Sentence, caption: str, where: str) -> Arcs:
    if sentence.text is not None and _letters(sentence.text) != _letters(caption):
        raise UserError(
            f"{where} reads {sentence.text!r} where the caption is {caption!r}: parse the captions "
            "in their order."
        )
    arcs = between_tokens(tokenize(caption), sentence, _letters(caption))
    if arcs is None:
        raise UserError(f"{where} holds words that do not spell {caption!r}: parse it again.")
    return arcs


def between_tokens(tokens: Sequence[str], sentence: Sentence, letters: str) -> Arcs | None:
    """Transfer a sentence's arcs to our tokens, aligned by letters.

    A token of several words takes the head of the word whose head lies outside the token. Of a word
    split into several tokens, the token with most of its letters takes the arc and the others are
    ``fixed`` to it. None if tokens or words do not spell ``letters``, the caption in lower case
    without spaces.
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
        if not mine:  # another token has the arc of its word
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
    """(start, end) of each part in ``letters``; Treebank quotes match those of the text."""
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
    """Parse captions by a spaCy model, in order, each as one sentence.

    Raises:
        UserError: spaCy or its model is not installed.
    """
    advice = ", or give CoNLL-U files made elsewhere and --check"
    return _parsed(_load_parser(model, "Word graphs of captions need", advice), captions)


def _parsed(parser: Any, captions: Sequence[str]) -> Iterator[Sentence]:
    for document in parser.pipe(captions):
        kept = [token for token in document if not token.is_space]
        place = {token.i: k for k, token in enumerate(kept)}
        words = [
            # Of several sentences in a caption each has its own root.
            Word(k, -1 if token.head.i == token.i else place.get(token.head.i, -1), token.dep_)
            for k, token in enumerate(kept)
        ]
        yield Sentence(document.text, tuple(t.text for t in kept), tuple(words))


def parsed_arcs(captions: Sequence[str], model: str = PARSER) -> list[Arcs]:
    """Parse sentences that have no file, such as search queries, into arcs.

    Raises:
        UserError: spaCy or its model is not installed.
    """
    parser = _load_parser(model, "Word graphs of new sentences need")
    found: list[Arcs] = []
    for caption, sentence in zip(captions, _parsed(parser, captions), strict=True):
        tokens = tokenize(caption)
        arcs = between_tokens(tokens, sentence, _letters(caption))
        if arcs is None:
            message = f"{caption!r} is read without its word graph"
            warnings.warn(message, RuntimeWarning, stacklevel=2)
            arcs = Arcs(tuple(range(len(tokens))), (0,) * len(tokens))
        found.append(arcs)
    return found


def _load_parser(model: str, user: str, otherwise: str = "") -> Any:
    """Load a spaCy model; the message begins with its ``user`` and may end in an alternative."""
    try:
        return _parser(model)
    except ImportError:
        raise UserError(
            f"{user} spaCy, which is not installed: pip install '.[parse]', then install a model "
            f"such as {PARSER} by hand, from spaCy's model releases (pip install FILE.whl)"
            f"{otherwise}."
        ) from None
    except OSError:
        raise UserError(
            f"{user} spaCy's model {model}, which is not installed, and nothing is "
            f"downloaded: after pip install '.[parse]' install a model such as {PARSER} by hand, "
            f"from spaCy's model releases (pip install FILE.whl){otherwise}."
        ) from None


@cache
def _parser(model: str) -> Any:
    import spacy

    return spacy.load(model, disable=["ner", "lemmatizer"])


def open_sentences(
    sentences: Sequence[str], vocabulary: Vocabulary, wanted: Collection[str], max_words: int
) -> CaptionSource:
    """Make a model's text items of new sentences, cut to their first ``max_words`` words.

    Args:
        sentences: without empty ones.
        vocabulary: of the model.
        wanted: names of the model's text inputs: with ``heads`` sentences are parsed, with
            ``features`` they become bags of words.
        max_words: without start and end tokens.

    Raises:
        UserError: sentences must be parsed but no parser is installed, or the model has no words.
    """
    bags = "features" in wanted
    if bags and len(vocabulary) == len(MARKS):
        raise UserError(
            "This run was trained on text vectors, not on words: give arrays of the same kind, as "
            '{"features": [n, D]}.'
        )
    arcs = parsed_arcs(sentences) if "heads" in wanted else None
    tokens = [vocabulary.tokenize(sentence) for sentence in sentences]
    return CaptionSource(tokens, vocabulary, max_words=max_words, arcs=arcs, bags=bags)
