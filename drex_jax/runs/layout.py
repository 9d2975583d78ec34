"""What a run directory holds, by name; the results of a finished one; and what a failed beginning gives back."""

from __future__ import annotations

import contextlib
import itertools
import os
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any

from drex_jax.common.errors import UserError
from drex_jax.common.files import read_json
from drex_jax.devices import processes
from drex_jax.runs.dataset import FACTS, HISTORY, QUARANTINE

SCHEMA = 1
CONFIG, RESULTS, RUN, MODEL = "config.json", "results.json", "run.json", "model"
SCORER = "scorer.json"  # what the model needs to score, beside its arrays
EXECUTION = "execution.json"
RESULT_KEYS = ("model", "dataset", "split", "seeds", "test", "per_seed", "baselines")
RUN_KEYS = ("seed", "selection", "test", "timing", "schedule")
CHECKPOINTS, LOG = "checkpoints", "metrics.jsonl"
MADE = (f"{HISTORY}/{FACTS}", HISTORY, CHECKPOINTS, "replicas", "baselines", EXECUTION, LOG, CONFIG)  # before training
OWN = (  # all that commands write there or remove
    *(HISTORY, CHECKPOINTS, "replicas", "baselines", "trials", MODEL, "lists", "keywords", "attention", "updates"),
    *(CONFIG, RESULTS, RUN, SCORER, EXECUTION, LOG, QUARANTINE),
    *("report.html", "updates.jsonl", "updates.lock", "run.lock"),
)


def require_own_files(workdir: pathlib.Path) -> None:
    """Makes sure that what is written to or removed from a run directory is in it, whoever made the directory.

    Raises:
      UserError: a link in it leads out of it.
    """
    own = workdir.resolve()
    tops = [workdir / name for name in OWN]
    below = (
        pathlib.Path(folder, name)
        for top in tops
        for folder, *names in os.walk(top)
        for name in itertools.chain(*names)
    )
    for path in itertools.chain(tops, below):
        if path.is_symlink() and not pathlib.Path(os.path.realpath(path)).is_relative_to(own):
            raise UserError(f"{path} is a link that leads out of the run directory, which has to hold its files itself")


def results_of(workdir: pathlib.Path) -> dict[str, Any]:
    """What is in the `results.json` of a finished run.

    Raises:
      UserError: it is missing, damaged or of a newer version, or a link leads out of the directory.
    """
    require_own_files(workdir)
    path = workdir / RESULTS
    schema = read_json(path, ("schema",))["schema"]
    if type(schema) is not int or schema < 1:  # True is an int
        raise UserError(f"{path}: damaged; its schema is {schema!r}, and should be a whole number from 1 to {SCHEMA}")
    if schema > SCHEMA:
        raise UserError(
            f"{path} is of schema {schema}, and this version reads up to {SCHEMA}: a newer drex_jax made the run; "
            "update the package"
        )
    results = read_json(path, RESULT_KEYS)
    if not isinstance(results["seeds"], list) or not all(type(seed) is int for seed in results["seeds"]):
        raise UserError(f"{path}: damaged; its seeds are {results['seeds']!r}")  # they name folders
    return results


@contextlib.contextmanager
def cleanup_on_user_error(workdir: pathlib.Path) -> Iterator[None]:
    """A mistake that ends a run's first command before anything is trained leaves the directory to the corrected one.

    What was there before stays, and so does the list of what was rejected (`quarantine.jsonl`).
    """
    begins = processes.is_main_process() and not (workdir / CONFIG).exists()
    made = [workdir / name for name in MADE if not (workdir / name).exists()]
    try:
        yield
    except UserError:
        trained = any(next(workdir.glob(pattern), None) for pattern in (f"**/{RUN}", f"**/{CHECKPOINTS}/*"))
        if begins and not trained:
            for path in made:  # the configuration last: what is left after a crash is still this run's
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
        raise
