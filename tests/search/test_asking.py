"""Sentences of words that a run does not know."""

import pytest

from hmgr_jax.data.text.vocabulary import MARKS, Vocabulary
from hmgr_jax.errors import UserError
from hmgr_jax.search.asking import check_known

KNOWN = Vocabulary((*MARKS, "a", "dog", "."))


def test_unknown_words_of_a_query_are_named():
    check_known(KNOWN, ["a dog!"])
    with pytest.warns(RuntimeWarning, match=r"does not know 2 of 5 words .*: 'cat', 'runs'"):
        check_known(KNOWN, ["a cat runs", "a dog"])


@pytest.mark.parametrize("sentence", ["xyzzy", "cat .", "\u732b"])
def test_a_query_of_unknown_words_only_is_refused(sentence):
    with pytest.raises(UserError, match=f"knows no word of '{sentence}'"):
        check_known(KNOWN, ["a dog", sentence])
