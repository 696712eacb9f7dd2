"""What `python -m hmgr_jax.bench` measures, one file a benchmark."""
