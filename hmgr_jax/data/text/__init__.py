"""Captions, tokens, vocabularies, word vectors and word graphs."""
