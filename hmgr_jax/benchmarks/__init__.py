"""Benchmarks of `python -m hmgr_jax.bench` and `launch/scaling.py`."""
