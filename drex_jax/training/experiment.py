"""From a configuration to a finished run directory, in the order a run happens."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import itertools
import logging
import pathlib
import platform
import time
from typing import Any

from drex_jax.common.cache import Cache
from drex_jax.common.errors import UserError
from drex_jax.common.files import read_json, write_text
from drex_jax.common.version import __version__
from drex_jax.config.groups import TrainSettings
from drex_jax.config.tree import to_json
from drex_jax.devices import processes
from drex_jax.evaluation import evaluator as evaluation
from drex_jax.evaluation import leaks
from drex_jax.explain.profiles import write_profiles
from drex_jax.metrics.names import lower_is_better
from drex_jax.models.protocol import Stream
from drex_jax.models.registry import entry_of
from drex_jax.models.source import Context
from drex_jax.runs import checkpoint
from drex_jax.runs.cleanup import cleanup_on_user_error
from drex_jax.runs.dataset import Dataset, open_dataset, read_into
from drex_jax.runs.layout import (
    RUN_KEYS,
    SCHEMA,
    RunLayout,
    require_own_files,
    results_of,
)
from drex_jax.runs.lists import write_lists
from drex_jax.runs.lock import sole_writer
from drex_jax.runs.trained import load_trained
from drex_jax.training import loop, registry, search
from drex_jax.training.optimizer import Pretrained
from drex_jax.training.settings import Settings, read_settings, require_agreement, sha256

LOGGER = logging.getLogger(__name__)
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "sentencepiece")


def train(config: Settings, workdir: pathlib.Path) -> dict[str, Any]:
    """Trains the configured model and its baselines, evaluates them, and writes the run directory.

    Continues an interrupted run; returns the results of a finished one.

    Args:
      config: resolved and checked.
      workdir: the run directory; one that exists must be of the same configuration.

    Returns:
      What is in `results.json`.

    Raises:
      UserError: a mistake in the data or the configuration, or another process trains there.
      Stopped: SIGTERM or SIGINT; everything is saved.
    """
    check_agreement(config, workdir)
    if processes.exists_on_main_process(RunLayout(workdir).results):
        return results_of(workdir)
    with sole_writer(workdir):
        check_agreement(config, workdir)  # somebody may have begun it meanwhile
        with cleanup_on_user_error(workdir):
            return _train(config, workdir)


def _train(config: Settings, workdir: pathlib.Path) -> dict[str, Any]:
    context = registry.context(config)
    dataset = begin(config, workdir, context.cache)
    seeds = list(range(config.seed, config.seed + config.replicas))
    begun = time.monotonic()
    name = config.model.name
    runs = _runs(name, config, dataset, context, workdir, seeds)
    baselines = {name: _baseline(name, config, dataset, context, workdir, runs) for name in config.baselines}
    first, checks = runs[0], leaks.checks(config.protocol, config.data.k_core, dataset, workdir)
    results = {
        "schema": SCHEMA,
        "model": config.model.name,
        "dataset": {
            "name": dataset.interactions.name,
            "sha256": dataset.facts["sha256"],
            "users": dataset.interactions.num_users,
            "items": dataset.interactions.num_items,
            "interactions": len(dataset.interactions),
            **{name: dataset.facts[name] for name in ("rows_read", "duplicates", "rejected", "noise_floor")},
        },
        "config": {"sha256": sha256(config)},
        "split": {
            "kind": dataset.split.kind,
            "sizes": dataset.split.sizes,
            "boundaries": dataset.split.boundaries,
        },
        "protocol": config.protocol,
        "definitions": evaluation.definitions(registry.evaluation_options(config, dataset)),
        "seeds": seeds,
        **_summary(runs),
        "baselines": {name: baseline for name, baseline in baselines.items() if baseline is not None},
        "schedule": first["schedule"],
        "leaks": [sentence for check in checks for sentence in leaks.sentences(check)],
        "notices": dataset.facts["notices"],
        "timing": {
            **first["timing"],
            "preparation_seconds": dataset.facts["seconds"],
            "total_seconds": time.monotonic() - begun,
        },
        "environment": {
            "devices": len(context.devices),
            "processes": processes.count(),
            "mapping": context.devices.mapping,
            "device_kind": context.devices.kind,
            "python": platform.python_version(),
            "versions": {"drex_jax": __version__} | {name: importlib.metadata.version(name) for name in PACKAGES},
        },
    }
    processes.write_json(RunLayout(workdir).results, results)
    return results_of(workdir)


def begin(config: Settings, workdir: pathlib.Path, cache: Cache) -> Dataset:
    """Writes the configuration and the data into the run directory, once, and opens the data.

    Raises:
      UserError: the data cannot be read, split or encoded as the configuration asks.
    """
    if processes.is_main_process():
        with cleanup_on_user_error(workdir):
            write_text(RunLayout(workdir).config, to_json(config))
            read_into(config, workdir, cache)
    processes.await_file(RunLayout(workdir).facts)
    return open_dataset(config, workdir)


def evaluate(workdir: pathlib.Path) -> dict[str, Any]:
    """Computes the test metrics of a finished run again, from what its directory holds, and returns its results.

    Raises:
      UserError: the run is not finished, or its directory is damaged.
    """
    results = results_of(workdir)
    config, _, stream, evaluator = reopen(workdir)
    runs = []
    for seed in results["seeds"]:
        params, selection = load_trained(stream, RunLayout(workdir).seed(seed, config.seed).folder)
        test = evaluator.evaluate_test(params, selection).metrics
        runs.append({"selection": dataclasses.asdict(selection), "test": test})
    return results | _summary(runs)


def reopen(workdir: pathlib.Path) -> tuple[Settings, Dataset, Stream, evaluation.Evaluator]:
    """A run's settings, data, stream (of the first seed) and evaluation, from what its directory holds.

    Raises:
      UserError: the directory is damaged.
    """
    config = read_settings(RunLayout(workdir).config)
    context = registry.context(config)
    dataset = open_dataset(config, workdir)
    stream = registry.build(config.model.name, _settled(config, workdir), dataset, config.seed, context)
    return config, dataset, stream, registry.build_evaluator(stream, config, dataset, context)


def check_leaks(workdir: pathlib.Path) -> list[leaks.Check]:
    """The leak checks of a run directory, finished or not.

    Raises:
      UserError: it holds no run, or none that has read its data, a file of it is damaged, or a link leads out of it.
    """
    require_own_files(workdir)
    settings = read_settings(RunLayout(workdir).config)
    return leaks.checks(settings.protocol, settings.data.k_core, open_dataset(settings, workdir), workdir)


def check_agreement(config: Settings, workdir: pathlib.Path) -> None:
    """Refuses to continue a run under a configuration it was not made with.

    Raises:
      UserError: the fields that differ, or a directory with parts of a run and no configuration.
    """
    require_own_files(workdir)
    layout = RunLayout(workdir)
    left = [path for path in (layout.results, layout.record, layout.facts, layout.checkpoints) if path.exists()]
    if left and not layout.config.exists():
        raise UserError(
            f"{workdir} holds {left[0].relative_to(workdir)} but no {layout.config.name} to say of which run; "
            "give another --workdir"
        )
    if layout.config.exists():
        require_agreement(read_settings(layout.config), config, workdir, goes_on=True)


def _runs(
    name: str,
    config: Settings,
    dataset: Dataset,
    context: Context,
    root: pathlib.Path,
    seeds: list[int],
    **constants: float,
) -> list[dict[str, Any]]:
    """One model on some seeds: train, select, and only then evaluate on test. What is finished is read back."""
    layout = RunLayout(root)
    folders = {seed: layout.seed(seed, config.seed) for seed in seeds}
    done = {seed: processes.exists_on_main_process(folder.record) for seed, folder in folders.items()}
    if not all(done.values()):
        begun = processes.exists_on_main_process(layout.execution)
        config = _settled(config, root)
        started = time.monotonic()
        stream = registry.build(name, config, dataset, seeds[0], context, **constants)
        evaluator = registry.build_evaluator(stream, config, dataset, context)
        build_seconds = time.monotonic() - started
        processes.wait()  # a schedule takes one of them minutes, and who has kept it nothing
        (together,) = processes.agree(processes.is_main_process() and _together(config, stream, context, len(seeds)))
        if not begun:
            processes.write_json(layout.execution, {"width": stream.width, "together": together})
        fitted: dict[int, loop.Fitted] = {}
        for group in [seeds] if together else [[seed] for seed in seeds]:
            if all(done[seed] for seed in group):
                continue
            LOGGER.info("%s, seed %s: training", name, " ".join(map(str, group)))
            own = {seed: folders[seed].folder for seed in group}
            how = _fit_options(name, config)
            given = stream.pretrained()
            start = None if given is None else Pretrained(*given)
            of_group = loop.fit(stream, evaluator, how, own, dataset.sizes[0], context.devices, start)
            fitted |= zip(group, of_group, strict=True)
        for seed, result in fitted.items():  # only when nothing is left to be selected
            result = result._replace(timing=result.timing | {"build_seconds": build_seconds})
            _finish(name, config, dataset, stream, evaluator, folders[seed], seed, result, constants)
    return [read_json(folder.record, RUN_KEYS) for folder in folders.values()]


def _finish(
    name: str,
    config: Settings,
    dataset: Dataset,
    stream: Stream,
    evaluator: evaluation.Evaluator,
    layout: RunLayout,
    seed: int,
    fitted: loop.Fitted,
    constants: dict[str, float],
) -> None:
    """Evaluates a trained model on test and writes what remains of one seed."""
    started = time.monotonic()
    tested = evaluator.evaluate_test(fitted.params, fitted.selection)
    checkpoint.save_model(layout.model, {"params": fitted.params, "states": tested.states})
    processes.write_json(layout.constants, stream.model.constants())
    if processes.is_main_process():
        for way, arrays in tested.lists.items():
            write_lists(layout.list_file(way), arrays)
    if name == config.model.name:
        write_profiles(stream, fitted.params, dataset, layout.folder)
    record = {
        "model": name,
        "seed": seed,
        "constants": constants,
        "selection": dataclasses.asdict(fitted.selection),
        "test": tested.metrics,
        "timing": fitted.timing | {"test_seconds": time.monotonic() - started},
        "schedule": stream.schedule(),
    }
    processes.write_json(layout.record, record)  # the last file: its presence says that this seed is done


def _fit_options(name: str, config: Settings) -> TrainSettings:
    return dataclasses.replace(config.train, **entry_of(name).training)


def _together(config: Settings, stream: Stream, context: Context, replicas: int) -> bool:
    """Whether seeds train as one program: where the device waits for steps and not for arithmetic, and they fit."""
    if config.devices.replicas != "auto" or replicas == 1:
        return config.devices.replicas == "together" and replicas > 1
    memory = context.devices.memory()
    return context.devices.platform != "cpu" and (memory is None or 2 * replicas * stream.step_bytes() < memory)


def _settled(config: Settings, folder: pathlib.Path) -> Settings:
    """The configuration with the width and the way that this run was begun with: wherever it goes on, it keeps them."""
    path = RunLayout(folder).execution
    if not path.exists():
        return config
    begun = read_json(path, ("width", "together"))
    replicas = "together" if begun["together"] else "one_by_one"
    return dataclasses.replace(
        config,
        schedule=dataclasses.replace(config.schedule, width=begun["width"]),
        devices=dataclasses.replace(config.devices, replicas=replicas),
    )


def fit_trial(
    name: str, config: Settings, dataset: Dataset, context: Context, folder: pathlib.Path, **constants: float
) -> loop.Fitted:
    """Trains a model on the first seed, to be judged on validation; test is not there.

    Goes on from what is in `folder`.

    Raises:
      UserError: as `fit.fit`.
      Stopped: SIGTERM or SIGINT came; everything is saved.
    """
    layout = RunLayout(folder)
    begun = processes.exists_on_main_process(layout.execution)
    config, dataset = _settled(config, folder), dataset.without_test()
    stream = registry.build(name, config, dataset, config.seed, context, **constants)
    evaluator = registry.build_evaluator(stream, config, dataset, context)
    if not begun:
        processes.write_json(layout.execution, {"width": stream.width, "together": False})
    seed = {config.seed: folder}
    (fitted,) = loop.fit(stream, evaluator, _fit_options(name, config), seed, dataset.sizes[0], context.devices)
    return fitted


def _chosen_constants(
    name: str, config: Settings, dataset: Dataset, context: Context, folder: pathlib.Path
) -> dict[str, float]:
    """The constants of a baseline that do best on validation, on the first seed; empty where it has none."""
    penalty = entry_of(name).penalty
    if not penalty:
        return {}
    candidates = [dict(zip(penalty, values, strict=True)) for values in itertools.product(*penalty.values())]
    _, best = search.search_trials(
        RunLayout(folder).trials,
        len(candidates),
        search.in_order(candidates),
        lambda trial, constants: fit_trial(name, config, dataset, context, trial, **constants),
        lower_is_better=lower_is_better(config.train.selection),
    )
    return dict(best.constants)


def _baseline(
    name: str,
    config: Settings,
    dataset: Dataset,
    context: Context,
    workdir: pathlib.Path,
    runs: list[dict[str, Any]],
) -> dict[str, Any] | None:
    """A baseline's entry of the results; None where the data lack what it needs."""
    if not registry.applicable(name, dataset):
        LOGGER.warning("baseline %s needs what no train interaction has, ratings or texts: left out", name)
        return None
    entry = entry_of(name)
    if entry.ablation_of == config.model.name and dataset.events.tokens is None and not dataset.events.vectors:
        seeds = [run["seed"] for run in runs]
        return {
            "model": name,
            "same_as": runs[0]["model"],
            "seeds": seeds,
            **_summary(runs),
        }
    seeds = [run["seed"] for run in runs] if entry.trained else [config.seed]
    layout = RunLayout(workdir).baseline(name)
    constants = _chosen_constants(name, config, dataset, context, layout.folder)
    per_seed = _runs(name, config, dataset, context, layout.folder, seeds, **constants)
    results = {"model": name, "seeds": seeds, "constants": constants, **_summary(per_seed)}
    processes.write_json(layout.results, {"schema": SCHEMA, **results})
    return results


def _summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """What validation chose for the first seed and for each, the means over seeds, and each seed's figures."""
    per_seed = [run["test"] for run in runs]
    return {
        "selection": runs[0]["selection"],
        "selections": [run["selection"] for run in runs],
        "test": evaluation.mean_over_seeds(per_seed),
        "per_seed": per_seed,
    }
