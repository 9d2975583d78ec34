"""From settings to a finished run directory, in the order in which a run happens."""

from __future__ import annotations

import dataclasses
import itertools
import logging
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

from drex_jax.common.cache import Cache
from drex_jax.common.files import read_json, write_text
from drex_jax.config.groups import TrainSettings
from drex_jax.config.tree import to_json
from drex_jax.devices import processes
from drex_jax.evaluation import leaks
from drex_jax.evaluation.evaluator import Evaluator
from drex_jax.explain.profiles import write_profiles
from drex_jax.metrics.names import lower_is_better
from drex_jax.models.protocol import Stream
from drex_jax.models.registry import entry_of
from drex_jax.models.source import Context
from drex_jax.runs import checkpoint
from drex_jax.runs.cleanup import cleanup_on_user_error
from drex_jax.runs.dataset import Dataset, open_dataset, read_into
from drex_jax.runs.layout import RUN_KEYS, SCHEMA, RunLayout, require_own_files, results_of
from drex_jax.runs.lists import write_lists
from drex_jax.runs.lock import sole_writer
from drex_jax.runs.trained import load_trained
from drex_jax.training import loop, registry, results, search
from drex_jax.training.optimizer import Pretrained
from drex_jax.training.settings import Settings, check_agreement, read_settings

LOGGER = logging.getLogger(__name__)

Record = dict[str, Any]  # what `run.json` holds of one seed


def train(settings: Settings, workdir: pathlib.Path) -> dict[str, Any]:
    """Train the model and its baselines, evaluate them, and write the run directory.

    Continues an interrupted run; returns the results of a finished one.

    Args:
      settings: checked settings.
      workdir: the run directory; one that exists must have the same settings.

    Returns:
      The contents of `results.json`.

    Raises:
      UserError: a mistake in the data or the settings, or another process trains in the directory.
      Stopped: SIGTERM or SIGINT came; everything is saved.
    """
    check_agreement(settings, workdir)
    if processes.exists_on_main_process(RunLayout(workdir).results):
        return results_of(workdir)
    with sole_writer(workdir):
        check_agreement(settings, workdir)  # another command may have begun the run meanwhile
        with cleanup_on_user_error(workdir):
            return _train(settings, workdir)


def _train(settings: Settings, workdir: pathlib.Path) -> dict[str, Any]:
    context = registry.context(settings)
    experiment = Experiment(settings, prepare_run(settings, workdir, context.cache), context, RunLayout(workdir))
    begun = time.monotonic()
    seeds = list(range(settings.seed, settings.seed + settings.replicas))
    records = experiment.train_seeds(settings.model.name, experiment.layout, seeds)
    baselines = {name: experiment.baseline(name, records) for name in settings.baselines}
    dataset = experiment.dataset
    found = results.collect(
        settings=settings,
        dataset=dataset,
        devices=context.devices,
        records=records,
        baselines={name: entry for name, entry in baselines.items() if entry is not None},
        checks=leaks.checks(settings.protocol, settings.data.k_core, dataset, workdir),
        options=registry.evaluation_options(settings, dataset),
        seconds=time.monotonic() - begun,
    )
    processes.write_json(experiment.layout.results, found)
    return results_of(workdir)


def prepare_run(settings: Settings, workdir: pathlib.Path, cache: Cache) -> Dataset:
    """Write the settings and the data into the run directory, once, and open the data.

    Raises:
      UserError: the data cannot be read, split or encoded as the settings ask.
    """
    if processes.is_main_process():
        with cleanup_on_user_error(workdir):
            write_text(RunLayout(workdir).config, to_json(settings))
            read_into(settings, workdir, cache)
    processes.await_file(RunLayout(workdir).facts)
    return open_dataset(settings, workdir)


def evaluate(workdir: pathlib.Path) -> dict[str, Any]:
    """Compute the test metrics of a finished run again, from its directory alone, and return its results.

    Raises:
      UserError: the run is not finished, or its directory is damaged.
    """
    stored = results_of(workdir)
    settings, _, stream, evaluator = reopen(workdir)
    records = []
    for seed in stored["seeds"]:
        params, selection = load_trained(stream, RunLayout(workdir).seed(seed, settings.seed).folder)
        test = evaluator.evaluate_test(params, selection).metrics
        records.append({"selection": dataclasses.asdict(selection), "test": test})
    return stored | results.over_seeds(records)


def reopen(workdir: pathlib.Path) -> tuple[Settings, Dataset, Stream, Evaluator]:
    """Rebuild the settings, data, stream (of the first seed) and evaluator of a run from its directory alone.

    Raises:
      UserError: the directory is damaged.
    """
    settings = read_settings(RunLayout(workdir).config)
    context = registry.context(settings)
    dataset = open_dataset(settings, workdir)
    stream = registry.build(settings.model.name, as_begun(settings, workdir), dataset, settings.seed, context)
    return settings, dataset, stream, registry.build_evaluator(stream, settings, dataset, context)


def check_leaks(workdir: pathlib.Path) -> list[leaks.Check]:
    """Run the leak checks of a run directory, finished or not.

    Raises:
      UserError: it holds no run, or none that has read its data, a file of it is damaged, or a link leads out of it.
    """
    require_own_files(workdir)
    settings = read_settings(RunLayout(workdir).config)
    return leaks.checks(settings.protocol, settings.data.k_core, open_dataset(settings, workdir), workdir)


@dataclasses.dataclass(frozen=True)
class Experiment:
    """What all models of one run share.

    Attributes:
      settings: the settings of the run.
      dataset: its data.
      context: devices, step costs and cache.
      layout: its directory.
    """

    settings: Settings
    dataset: Dataset
    context: Context
    layout: RunLayout

    def train_seeds(self, name: str, layout: RunLayout, seeds: Sequence[int], **constants: float) -> list[Record]:
        """Train a model on some seeds, select, and only then evaluate on test. Finished seeds are read back.

        Args:
          name: name of the model.
          layout: its directory: the run's, or a baseline's.
          seeds: the seeds; the first one's files are in the directory itself.
          constants: what validation chose for the model.

        Returns:
          The record of each seed.
        """
        folders = {seed: layout.seed(seed, self.settings.seed) for seed in seeds}
        done = {seed: processes.exists_on_main_process(folder.record) for seed, folder in folders.items()}
        if not all(done.values()):
            built = self._build(name, layout, seeds, constants)
            fitted: dict[int, loop.Fitted] = {}
            for group in [list(seeds)] if built.together else [[seed] for seed in seeds]:
                if not all(done[seed] for seed in group):
                    LOGGER.info("%s, seed %s: training", name, " ".join(map(str, group)))
                    of_group = built.fit({seed: folders[seed].folder for seed in group})
                    fitted |= zip(group, of_group, strict=True)
            for seed, of_seed in fitted.items():  # the test is opened only when nothing is left to be selected
                self._finish(built, folders[seed], seed, of_seed)
        return [read_json(folder.record, RUN_KEYS) for folder in folders.values()]

    def baseline(self, name: str, records: Sequence[Record]) -> dict[str, Any] | None:
        """Train and evaluate a baseline on the seeds of the run.

        Args:
          name: name of the baseline.
          records: the seeds of the run's own model.

        Returns:
          Its entry of the results; None if the data lack what it needs.
        """
        if not registry.applicable(name, self.dataset):
            LOGGER.warning("baseline %s needs what no train interaction has, ratings or texts: left out", name)
            return None
        entry, events = entry_of(name), self.dataset.events
        seeds = [record["seed"] for record in records]
        if entry.ablation_of == self.settings.model.name and events.tokens is None and not events.vectors:
            return {"model": name, "same_as": records[0]["model"], "seeds": seeds, **results.over_seeds(records)}
        seeds = seeds if entry.trained else [self.settings.seed]
        layout = self.layout.baseline(name)
        constants = self._chosen_constants(name, layout)
        per_seed = self.train_seeds(name, layout, seeds, **constants)
        found = {"model": name, "seeds": seeds, "constants": constants, **results.over_seeds(per_seed)}
        processes.write_json(layout.results, {"schema": SCHEMA, **found})
        return found

    def fit_trial(self, name: str, folder: pathlib.Path, **constants: float) -> loop.Fitted:
        """Train a model on the first seed, to be compared on validation; the test part is not there.

        Continues what is in `folder`.

        Raises:
          UserError: as of `loop.fit`.
          Stopped: SIGTERM or SIGINT came; everything is saved.
        """
        without_test = dataclasses.replace(self, dataset=self.dataset.without_test())
        built = without_test._build(name, RunLayout(folder), [self.settings.seed], constants)
        (fitted,) = built.fit({self.settings.seed: folder})
        return fitted

    def _chosen_constants(self, name: str, layout: RunLayout) -> dict[str, float]:
        """Return a baseline's constants with the best validation on the first seed; empty if it has no constants."""
        penalty = entry_of(name).penalty
        if not penalty:
            return {}
        candidates = [dict(zip(penalty, values, strict=True)) for values in itertools.product(*penalty.values())]
        _, best = search.search_trials(
            layout.trials,
            len(candidates),
            search.in_order(candidates),
            lambda folder, constants: self.fit_trial(name, folder, **constants),
            lower_is_better=lower_is_better(self.settings.train.selection),
        )
        return dict(best.constants)

    def _build(self, name: str, layout: RunLayout, seeds: Sequence[int], constants: Mapping[str, float]) -> _Built:
        """Build a model ready to train, as the run began; a new run records how."""
        begun = processes.exists_on_main_process(layout.execution)
        settings = as_begun(self.settings, layout.folder)
        started = time.monotonic()
        stream = registry.build(name, settings, self.dataset, seeds[0], self.context, **constants)
        evaluator = registry.build_evaluator(stream, settings, self.dataset, self.context)
        seconds = time.monotonic() - started
        processes.wait()  # schedules are cached: processes that miss the cache take minutes
        together = processes.is_main_process() and _together(settings, stream, self.context, len(seeds))
        (together,) = processes.agree(together)
        if not begun:
            processes.write_json(layout.execution, {"width": stream.width, "together": together})
        return _Built(
            name=name,
            stream=stream,
            evaluator=evaluator,
            options=dataclasses.replace(settings.train, **entry_of(name).training),
            constants=dict(constants),
            num_train=self.dataset.sizes[0],
            context=self.context,
            together=together,
            seconds=seconds,
        )

    def _finish(self, built: _Built, layout: RunLayout, seed: int, fitted: loop.Fitted) -> None:
        """Evaluate a trained model on test, and write what remains of one seed."""
        started = time.monotonic()
        tested = built.evaluator.evaluate_test(fitted.params, fitted.selection)
        checkpoint.save_model(layout.model, {"params": fitted.params, "states": tested.states})
        processes.write_json(layout.constants, built.stream.model.constants())
        if processes.is_main_process():
            for way, arrays in tested.lists.items():
                write_lists(layout.list_file(way), arrays)
        if built.name == self.settings.model.name:
            write_profiles(built.stream, fitted.params, self.dataset, layout.folder)
        timing = {"build_seconds": built.seconds, "test_seconds": time.monotonic() - started}
        record = {
            "model": built.name,
            "seed": seed,
            "constants": built.constants,
            "selection": dataclasses.asdict(fitted.selection),
            "test": tested.metrics,
            "timing": fitted.timing | timing,
            "schedule": built.stream.schedule(),
        }
        processes.write_json(layout.record, record)  # the last file: the seed is finished once it is there


@dataclasses.dataclass(frozen=True)
class _Built:
    """A model of an experiment, ready to train.

    Attributes:
      name: name of the model.
      stream, evaluator: its batches, and its evaluation.
      options: how it is trained.
      constants: what validation chose for it.
      num_train: number of train interactions.
      context: devices, step costs and cache.
      together: the seeds train as one program.
      seconds: time that the building took.
    """

    name: str
    stream: Stream
    evaluator: Evaluator
    options: TrainSettings
    constants: dict[str, float]
    num_train: int
    context: Context
    together: bool
    seconds: float

    def fit(self, folders: Mapping[int, pathlib.Path]) -> list[loop.Fitted]:
        """Train the seeds of some folders; see `loop.fit`."""
        given = self.stream.pretrained()
        start = None if given is None else Pretrained(*given)
        devices = self.context.devices
        return loop.fit(self.stream, self.evaluator, self.options, folders, self.num_train, devices, start)


def _together(settings: Settings, stream: Stream, context: Context, replicas: int) -> bool:
    """True if seeds train as one program: where the device waits for steps and not for arithmetic, and they fit."""
    if settings.devices.replicas != "auto" or replicas == 1:
        return settings.devices.replicas == "together" and replicas > 1
    memory = context.devices.memory()
    return context.devices.platform != "cpu" and (memory is None or 2 * replicas * stream.step_bytes() < memory)


def as_begun(settings: Settings, folder: pathlib.Path) -> Settings:
    """Return the settings with the lane width and device mapping that the run began with: they never change."""
    path = RunLayout(folder).execution
    if not path.exists():
        return settings
    begun = read_json(path, ("width", "together"))
    replicas = "together" if begun["together"] else "one_by_one"
    return dataclasses.replace(
        settings,
        schedule=dataclasses.replace(settings.schedule, width=begun["width"]),
        devices=dataclasses.replace(settings.devices, replicas=replicas),
    )
