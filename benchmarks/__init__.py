"""Measurements that are made once in a while: ``python -m benchmarks.NAME``, from a checkout."""
