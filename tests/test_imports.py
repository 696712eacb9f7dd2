"""No TensorFlow, no PyTorch; and the core runs where only jax, flax, optax and numpy are."""

import json
import os
import subprocess
import sys

import pytest
from tiny_run import ROOT, arguments

pytestmark = pytest.mark.slow

QUERY = """
import sys
import hmgr_jax.search.command
assert not {"jax", "numpy", "PIL", "matplotlib"} & sys.modules.keys()
"""
LOADED = "print([name for name in ('tensorflow', 'torch') if name in sys.modules])"
WITHOUT = """
import importlib, json, pkgutil, sys

ABSENT = {"grain", "orbax", "ml_collections", "tensorflow_datasets", "tensorboardX", "matplotlib",
          "PIL", "jaxtyping", "beartype", "array_record", "etils", "tensorflow", "torch"}

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ABSENT:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
from hmgr_jax import bench

for package in ("layers", "losses", "models", "metrics"):
    module = importlib.import_module(f"hmgr_jax.{package}")
    for found in pkgutil.walk_packages(module.__path__, f"hmgr_jax.{package}."):
        importlib.import_module(found.name)
for module in ("training.step", "training.optimizer", "training.flops", "distributed.parallel"):
    importlib.import_module(f"hmgr_jax.{module}")
importlib.import_module("hmgr_jax.evaluation.all_pairs")
sizes = "--batch 4 --dim 8 --regions 3 --region-dim 5 --words 4 --vocabulary 9 --matmul-size 8"
assert bench.main(["bench", "step", "--model", "vse", *sizes.split()]) == 0
assert not ABSENT & {name.partition(".")[0] for name in sys.modules}
"""


def _python(code, *argv, cwd=ROOT):
    done = subprocess.run(
        [sys.executable, "-c", code, *argv],
        cwd=cwd,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_brings_in_no_other_framework(tmp_path):
    for name in ("tensorflow", "torch"):  # folders of those names can be imported from there
        (tmp_path / name).mkdir()
    code = f"import sys; sys.path.insert(1, {str(ROOT)!r}); "
    code += "import hmgr_jax, hmgr_jax.main, hmgr_jax.bench, hmgr_jax.modes; "
    assert _python(code + LOADED, cwd=tmp_path) == "[]\n"


def test_importing_the_package_alone_is_quick():
    assert _python("import sys, hmgr_jax; print('jax' in sys.modules)") == "False\n"


def test_training_brings_in_no_other_framework(tmp_path):
    code = f"import sys; from hmgr_jax.main import main; assert main(sys.argv) == 0; {LOADED}"
    out = _python(code, *arguments(tmp_path / "run", train__steps=2)[1:])
    assert out.endswith("[]\n")
    assert (tmp_path / "run" / "results.json").exists()


def test_the_core_runs_without_the_rest():
    assert json.loads(_python(WITHOUT))["benchmark"] == "step"


def test_a_query_that_a_server_answers_loads_no_model():
    _python(QUERY)
