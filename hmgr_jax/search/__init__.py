"""Search with a trained run: index, gallery, queries, re-ranking."""
