"""What `python -m hmgr_jax.bench` and `launch/scaling.py` measure, and how."""
