"""Every test runs on 8 virtual CPU devices, with silent broadcasting and promotion forbidden."""

import importlib.metadata
import os
import resource
import signal
import sys
from pathlib import Path

os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parent.parent / ".jax_cache"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "0")
# Most of the time goes into compiling: these flags make it three times faster, and programs slower.
# jaxlib 0.11 ends at the second one, which it does not know, and loses digits under the first.
if importlib.metadata.version("jaxlib").startswith("0.10."):
    fast = (
        "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false "
        "--xla_cpu_parallel_codegen_split_count=1"
    )
    os.environ["XLA_FLAGS"] = f"{fast} {os.environ.get('XLA_FLAGS', '')}".strip()

import jax
import pytest
import shape_checks

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")
shape_checks.install()
if (
    signal.getsignal(signal.SIGINT) is signal.SIG_IGN
):  # as in a job that a shell runs in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)

# For ``benchmarks``, which no wheel holds. At the end: an installed hmgr_jax comes first.
sys.path.append(str(Path(__file__).parents[1]))

SHARED_DATA = Path(os.environ.get("HMGR_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))


PROGRAMS_BYTES = 4 << 30
"""Memory of a worker above which the compiled programs of the tests so far are dropped."""


@pytest.hookimpl(wrapper=True)  # before pytest-xdist's own, which reads the groups
def pytest_collection_modifyitems(items):
    """One worker runs a whole file, unless a test names another group.

    Groups are the systems (`contract_cases.params_of`), so that a worker compiles each of them
    once, and ``runs``: the files that train the tiny system of `tiny_run.finished`.
    """
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            tiny = hasattr(item.module, "finished")
            group = "runs" if tiny else item.path.stem.removeprefix("test_")
            item.add_marker(pytest.mark.xdist_group(group))
    return (yield)


@pytest.fixture(scope="module", autouse=True)
def _bound_memory():
    """Drop compiled programs when they fill the memory; the compile cache on disk keeps them."""
    yield
    unit = 1 if sys.platform == "darwin" else 1024
    if resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit > PROGRAMS_BYTES:
        jax.clear_caches()


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of small real data sets; tests that need it skip where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"real data not found at {SHARED_DATA} (set HMGR_TEST_DATA to a copy)")
    return SHARED_DATA
