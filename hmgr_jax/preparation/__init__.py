"""From data as people have it to one layout: what ``python -m hmgr_jax.prepare`` does."""
