"""Recipes lie in ``configs/`` of a checkout and in ``hmgr_jax/recipes/`` of a wheel."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["hmgr_jax*"]), "hmgr_jax.recipes"],
    package_dir={"hmgr_jax.recipes": "configs"},
)
