"""Convert common dataset formats to one layout: ``python -m hmgr_jax.prepare``."""
