"""Benchmarks of `python -m hmgr_jax.bench`."""
