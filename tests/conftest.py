"""Eight fake CPU devices and one cache of compiled functions for every test, set before anything imports JAX."""

import atexit
import os
import pathlib
import shutil
import tempfile
from typing import Any

import pytest

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = " ".join(
    [
        "--xla_force_host_platform_device_count=8",
        "--xla_backend_optimization_level=0",  # compilation is most of the tests' time; these two halve it
        "--xla_cpu_use_fusion_emitters=false",
        os.environ.get("XLA_FLAGS", ""),  # the last of two counts
    ]
)
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="drex_jax_tests_")
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")

pytest_plugins = ["streams"]  # of tests/doubles: small streams and models over them


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--thorough` runs the slowest tests too, which repeat at length what others show."""
    parser.addoption("--thorough", action="store_true", help="run the slowest tests too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skips what is marked `thorough`, unless it is asked for."""
    if not config.getoption("--thorough"):
        for item in items:
            if item.get_closest_marker("thorough"):
                item.add_marker(pytest.mark.skip(reason="slow, and a repetition: pytest --thorough runs it"))


@pytest.fixture(scope="session")
def real_data() -> pathlib.Path:
    """The folder of real data sets that DREX_JAX_DATA names; tests that need it skip without it."""
    folder = os.environ.get("DREX_JAX_DATA")
    if not folder:
        pytest.skip("DREX_JAX_DATA is not set: no real data to test on")
    return pathlib.Path(folder)


@pytest.fixture(scope="session")
def finished_drex(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A finished run of DReX with texts and ratings, of 12 users and 10 items; not to be written to."""
    from drex_jax.training import experiment  # here: most tests need neither
    from drex_jax.training.settings import base, settings_of

    settings: Any = base()
    settings.data.synthetic.update(num_interactions=160, num_users=12, num_items=10, seed=1)
    settings.text.update(width=4, max_tokens=8, vocabulary_size=300)
    settings.model.update(state_size=3, feature_size=3, negatives=3, offsets=True)
    settings.train.update(epochs=1, bptt_windows=2, warmup_steps=1)
    settings.devices.update(count=1, mapping="none")
    settings.baselines = ()
    settings.evaluate.cutoffs = (5,)
    workdir = tmp_path_factory.mktemp("finished") / "run"
    experiment.train(settings_of(settings), workdir)
    return workdir


@pytest.fixture(scope="session")
def finished_popularity(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A finished run of popularity, of 6 users and 5 items, trained in no time; not to be written to."""
    from drex_jax.training import experiment
    from drex_jax.training.settings import base, settings_of

    settings: Any = base()
    settings.data.synthetic.update(num_interactions=60, num_users=6, num_items=5, seed=1)
    settings.text.enabled = False
    settings.devices.update(count=1, mapping="none")
    settings.baselines = ()
    settings.evaluate.cutoffs = (2,)
    settings.model.name = "popularity"
    settings.train.update(epochs=1, selection="ndcg@2")
    workdir = tmp_path_factory.mktemp("finished") / "run"
    experiment.train(settings_of(settings), workdir)
    return workdir
