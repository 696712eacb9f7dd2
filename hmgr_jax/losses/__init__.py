"""Pure functions of scores or embeddings."""
