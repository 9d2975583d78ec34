"""The paths of everything in a run directory, and the results of a finished run."""

from __future__ import annotations

import itertools
import os
import pathlib
from typing import Any

from drex_jax.common.errors import UserError
from drex_jax.common.files import read_json

SCHEMA = 2
RESULT_KEYS = ("model", "dataset", "split", "seeds", "test", "per_seed", "baselines")
RUN_KEYS = ("seed", "selection", "test", "timing", "schedule")


class RunLayout:
    """The paths in a run directory. The class only names them; it reads and writes nothing.

    The run's first seed is in the run directory itself, and every other seed in `replicas/SEED`. The folders of those
    seeds, of baselines and of trials hold the same files as the run itself, so each of them has a layout as well.

    Attributes:
      folder: the directory.
      config, results: the configuration, and the results over all seeds.
      data, facts, vocabulary, pieces, tokens, quarantine: the data set as it was read: its folder, what reading
        counted, the vocabulary of its texts (or the word pieces of a BERT), the tokens, and the rejected rows.
      checkpoints, metrics, tensorboard: the training checkpoints, and the logs of its steps.
      execution: the schedule's width, and whether seeds train together.
      model, constants: the arrays of the trained model, and the constants that it is made of.
      record: the selection, test metrics and timing of one seed. It is written last: the seed is finished then.
      lists, keywords, attention: the test metrics by list, the keyword profiles, and the attention to reviews.
      trial: the record of a finished trial, in a trial's folder.
      replicas, baselines, trials: the folders of further seeds, of baselines and of trials.
      updates, updates_log, updates_lock: the saved updates, their log, and the lock of a commit.
      report: the report of the run.
      lock: the lock of the process that trains or writes the report.
    """

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self.config = folder / "config.json"
        self.results = folder / "results.json"
        self.data = folder / "history"
        self.facts = self.data / "facts.json"
        self.vocabulary = self.data / "vocabulary.model"
        self.pieces = self.data / "pieces"
        self.tokens = self.data / "tokens"
        self.quarantine = folder / "quarantine.jsonl"
        self.checkpoints = folder / "checkpoints"
        self.metrics = folder / "metrics.jsonl"
        self.tensorboard = folder / "tensorboard"
        self.execution = folder / "execution.json"
        self.model = folder / "model"
        self.constants = folder / "constants.json"
        self.record = folder / "run.json"
        self.lists = folder / "lists"
        self.keywords = folder / "keywords"
        self.attention = folder / "attention"
        self.trial = folder / "trial.json"
        self.replicas = folder / "replicas"
        self.baselines = folder / "baselines"
        self.trials = folder / "trials"
        self.updates = folder / "updates"
        self.updates_log = folder / "updates.jsonl"
        self.updates_lock = folder / "updates.lock"
        self.report = folder / "report.html"
        self.lock = folder / "run.lock"

    def seed(self, seed: int, first: int) -> RunLayout:
        """Return the layout of the folder of `seed` in a run whose first seed is `first`."""
        return self if seed == first else RunLayout(self.replicas / str(seed))

    def baseline(self, name: str) -> RunLayout:
        """Return the layout of the folder of a baseline."""
        return RunLayout(self.baselines / name)

    def run(self) -> RunLayout:
        """The run that a baseline's folder belongs to; for any other folder, the same layout."""
        parent = self.folder.resolve().parent
        return RunLayout(parent.parent) if parent.name == self.baselines.name else self

    def models(self) -> list[RunLayout]:
        """The folders of all seeds that are there, of the run and of its baselines."""
        roots = [self, *map(RunLayout, sorted(self.baselines.glob("*")))]
        return [one for root in roots for one in (root, *map(RunLayout, sorted(root.replicas.glob("*"))))]

    def list_file(self, way: str) -> pathlib.Path:
        """Return the file of the test metrics by list for one way of evaluating: ranking, prequential or frozen."""
        return self.lists / f"{way}.npz"

    def has_finished_model(self) -> bool:
        """True if one seed of the run or of a baseline is finished."""
        return any(self.folder.rglob(self.record.name))

    def is_settled(self) -> bool:
        """True once a seed is finished or a trial has begun: from then on the settings of training must not change."""
        return self.has_finished_model() or self.trials.exists()

    def has_checkpoint(self) -> bool:
        """True if the run, a baseline or a trial has a training checkpoint."""
        return any(self.folder.glob(f"**/{self.checkpoints.name}/*"))

    def top_level(self) -> list[pathlib.Path]:
        """All files and folders directly in the directory that commands write or remove."""
        return [path for name, path in vars(self).items() if name != "folder" and path.parent == self.folder]

    def made_before_training(self) -> list[pathlib.Path]:
        """Return the files that a run writes before it trains, in the order in which a failed start removes them.

        The configuration is last: files that remain after a crash then still belong to this run.
        """
        folders = (self.facts, self.data, self.checkpoints, self.replicas, self.baselines)
        return [*folders, self.execution, self.metrics, self.config]


def require_own_files(workdir: pathlib.Path) -> None:
    """Check that no link in a run directory leads out of it, because commands write and remove files there.

    Raises:
      UserError: a link leads out of the directory.
    """
    root, tops = workdir.resolve(), RunLayout(workdir).top_level()
    below = (
        pathlib.Path(folder, name)
        for top in tops
        for folder, *names in os.walk(top)
        for name in itertools.chain(*names)
    )
    for path in itertools.chain(tops, below):
        if path.is_symlink() and not pathlib.Path(os.path.realpath(path)).is_relative_to(root):
            raise UserError(f"{path} is a link that leads out of the run directory, which has to hold its files itself")


def results_of(workdir: pathlib.Path) -> dict[str, Any]:
    """Return the contents of the `results.json` of a finished run.

    Raises:
      UserError: it is missing, damaged or of another version, or a link leads out of the directory.
    """
    require_own_files(workdir)
    path = RunLayout(workdir).results
    schema = read_json(path, ("schema",))["schema"]
    if type(schema) is not int or schema < 1:  # True is an int
        raise UserError(f"{path}: damaged; its schema is {schema!r}, and should be a whole number from 1 to {SCHEMA}")
    if schema != SCHEMA:
        maker, remedy = ("a newer", "update the package") if schema > SCHEMA else ("an older", "train it again")
        raise UserError(
            f"{path} is of schema {schema}, and this version reads {SCHEMA}: {maker} drex_jax made the run; {remedy}"
        )
    results = read_json(path, RESULT_KEYS)
    if not isinstance(results["seeds"], list) or not all(type(seed) is int for seed in results["seeds"]):
        raise UserError(f"{path}: damaged; its seeds are {results['seeds']!r}")  # they name folders
    return results
