"""Eight fake CPU devices for every test, set before anything imports JAX."""

import os
import pathlib

import pytest

os.environ.setdefault("JAX_PLATFORMS", "cpu")
if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"


@pytest.fixture(scope="session")
def real_data() -> pathlib.Path:
    """The folder of real data sets that DREX_JAX_DATA names; tests that need it skip without it."""
    folder = os.environ.get("DREX_JAX_DATA")
    if not folder:
        pytest.skip("DREX_JAX_DATA is not set: no real data to test on")
    return pathlib.Path(folder)
