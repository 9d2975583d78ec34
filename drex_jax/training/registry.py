"""Builds the stream and the evaluator of a model, from its registry entry and the settings and data of a run."""

from __future__ import annotations

import logging
import pathlib

from drex_jax.common.cache import ROOM, Store
from drex_jax.common.errors import UserError
from drex_jax.devices import mesh
from drex_jax.devices.mesh import Devices
from drex_jax.evaluation.evaluator import EvaluationOptions, Evaluator
from drex_jax.models.drex import step_costs
from drex_jax.models.entry import Need
from drex_jax.models.protocol import Stream
from drex_jax.models.registry import entry_of
from drex_jax.models.source import Context, Source
from drex_jax.runs.dataset import Dataset
from drex_jax.training.settings import Settings

LOGGER = logging.getLogger(__name__)
RELEVANT_SHARE = 0.75  # of the rating range, where no threshold is given: 4 of 1 to 5


def context(config: Settings) -> Context:
    """Return the devices, step costs and cache that a run asks for.

    Raises:
      UserError: the devices cannot be had, or the table of step costs cannot be read.
    """
    devices = Devices(config.devices.mapping, config.devices.count)
    table = None if config.schedule.costs is None else pathlib.Path(config.schedule.costs)
    found = step_costs.load(devices.kind, devices.platform, config.model.state_size, table)
    LOGGER.info("%d x %s by %s; step costs: %s", len(devices), devices.kind, config.devices.mapping, found.source)
    folder = mesh.cache_folder(config.data.cache_dir)
    mesh.keep_programs(folder / "programs")
    return Context(devices, found, Store(folder / "store", ROOM).arrays)


def build(name: str, settings: Settings, dataset: Dataset, seed: int, context: Context, **constants: float) -> Stream:
    """Return the stream of a model over a data set.

    Args:
      name: the model's.
      settings: of the run.
      dataset: what it learns from.
      seed: of the random draws in batches.
      context: what it is built for.
      constants: what validation chose for it.

    Raises:
      UserError: the data lack what the model learns from.
    """
    entry, lacking = entry_of(name), _lacking(name, dataset)
    if lacking:
        raise UserError(
            f"{name} learns from {' and '.join(entry.needs)}, and no train interaction has {lacking}: give it other "
            "data (texts need text.enabled=true), or train another model"
        )
    source = Source(
        settings=settings,
        groups=entry.groups_of(settings),
        events=dataset.events,
        sizes=dataset.sizes,
        rating_range=dataset.interactions.rating_range,
        vocabulary=dataset.vocabulary,
        seed=seed,
        context=context,
        constants=constants,
    )
    return entry.load_builder()(source)


def build_evaluator(stream: Stream, settings: Settings, dataset: Dataset, context: Context) -> Evaluator:
    """Return the evaluation of a model over a data set."""
    devices, options = context.devices, evaluation_options(settings, dataset)
    return Evaluator(stream, dataset.events, dataset.sizes, options, len(devices), devices.compile)


def applicable(name: str, dataset: Dataset) -> bool:
    """Return True if the data have what a baseline needs: most need train ratings, some train texts."""
    return not _lacking(name, dataset)


def _lacking(name: str, dataset: Dataset) -> str:
    """Return what a model needs and no train interaction has: ratings, texts, or an empty string."""
    train = dataset.events[: dataset.sizes[0]]
    there = {
        Need.RATINGS: train.has_rating.any(),
        Need.TEXTS: train.tokens is not None and train.tokens.lengths.any(),
    }
    return next((str(need) for need in entry_of(name).needs if not there[need]), "")


def evaluation_options(settings: Settings, dataset: Dataset) -> EvaluationOptions:
    """Return how a run is evaluated."""
    low, high = dataset.interactions.rating_range or (0.0, 1.0)
    threshold = settings.evaluate.threshold
    return EvaluationOptions(
        cutoffs=tuple(settings.evaluate.cutoffs),
        threshold=low + RELEVANT_SHARE * (high - low) if threshold is None else threshold,
        rating_range=dataset.interactions.rating_range,
        mask=settings.protocol,
        block=settings.evaluate.block,
        ranking=settings.evaluate.ranking,
        prequential=entry_of(settings.model.name).rates,
    )
