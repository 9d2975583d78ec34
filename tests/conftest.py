"""Eight fake CPU devices and one cache of compiled functions for every test, set before anything imports JAX."""

import atexit
import os
import pathlib
import shutil
import tempfile

import pytest

os.environ.setdefault("JAX_PLATFORMS", "cpu")
if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="drex_jax_tests_")
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")


@pytest.fixture(scope="session")
def real_data() -> pathlib.Path:
    """The folder of real data sets that DREX_JAX_DATA names; tests that need it skip without it."""
    folder = os.environ.get("DREX_JAX_DATA")
    if not folder:
        pytest.skip("DREX_JAX_DATA is not set: no real data to test on")
    return pathlib.Path(folder)
