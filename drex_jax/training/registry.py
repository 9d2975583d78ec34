"""Models by name: what a configuration and a data set make of them."""

from __future__ import annotations

import dataclasses
import logging
import pathlib
from collections.abc import Callable
from functools import partial

import numpy as np

from drex_jax.common.cache import ROOM, Cache, Store
from drex_jax.common.errors import UserError
from drex_jax.config.defaults import RANKERS
from drex_jax.data.events import Events
from drex_jax.devices import mesh
from drex_jax.devices.mesh import Devices
from drex_jax.evaluation.evaluator import EvaluationOptions, Evaluator
from drex_jax.models import running_bias
from drex_jax.models.baselines.bias import Bias, GlobalMean, RunningBias
from drex_jax.models.baselines.crane_released import Released
from drex_jax.models.baselines.factors import BPR
from drex_jax.models.baselines.freedom import FREEDOM
from drex_jax.models.baselines.lightgcn import LightGCN
from drex_jax.models.baselines.matrix_factorisation import FactorOptions, MatrixFactorisation
from drex_jax.models.baselines.narre import NARRE, NarreOptions
from drex_jax.models.baselines.popularity import Popularity
from drex_jax.models.baselines.vbpr import VBPR
from drex_jax.models.crane.model import Crane
from drex_jax.models.drex import recurrence, step_costs
from drex_jax.models.drex.core import DReXOptions
from drex_jax.models.drex.model import DReX
from drex_jax.models.drex.network import NetworkOptions
from drex_jax.models.drex.schedule import cheapest_width
from drex_jax.models.drex.step_costs import Costs
from drex_jax.models.drex.window import Packing, window_streams
from drex_jax.models.pairwise import Pairwise, RankerOptions
from drex_jax.models.protocol import Model
from drex_jax.runs.dataset import Dataset
from drex_jax.text.bert.pieces import WordPieces
from drex_jax.text.encoder import TextEncoder
from drex_jax.training.settings import Settings

LOGGER = logging.getLogger(__name__)
NEEDS_RATINGS = ("global_mean", "bias", "running_bias", "matrix_factorisation", "narre")
NEEDS_TEXTS = ("narre",)
RELEVANT_SHARE = 0.75  # of the rating range, where no threshold is given: 4 of 1 to 5


@dataclasses.dataclass(frozen=True)
class Context:
    """What models are built for.

    Attributes:
      devices: what they run on.
      costs: of the recurrence there.
      cache: keeps schedules between runs.
    """

    devices: Devices
    costs: Costs
    cache: Cache


def context(config: Settings) -> Context:
    """The machine that a configuration asks for.

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


def build(name: str, config: Settings, dataset: Dataset, seed: int, context: Context, **constants: float) -> Model:
    """The model `name` over a data set; `constants` are those it was tuned to (`matrix_factorisation`: `l2`).

    Raises:
      UserError: the data lack what the model learns from.
    """
    return BUILDERS[name](config, dataset, seed, context, **constants)


def build_evaluator(model: Model, config: Settings, dataset: Dataset, context: Context) -> Evaluator:
    """The evaluation of a model over a data set."""
    devices = context.devices
    return Evaluator(
        model, dataset.events, dataset.sizes, evaluation_options(config, dataset), len(devices), devices.compile
    )


def applicable(name: str, dataset: Dataset) -> bool:
    """Whether a baseline has what it needs: most need train ratings, some train texts."""
    return not _lacking(name, dataset)


def _lacking(name: str, dataset: Dataset) -> str:
    """What a model needs of train that the data have not: ratings or texts, or an empty string."""
    train = dataset.events[: dataset.sizes[0]]
    if name in NEEDS_RATINGS and not train.has_rating.any():
        return "ratings"
    if name in NEEDS_TEXTS and (train.tokens is None or not train.tokens.lengths.any()):
        return "texts"
    return ""


def evaluation_options(config: Settings, dataset: Dataset) -> EvaluationOptions:
    """How a run is evaluated."""
    low, high = dataset.interactions.rating_range or (0.0, 1.0)
    threshold = config.evaluate.threshold
    return EvaluationOptions(
        cutoffs=tuple(config.evaluate.cutoffs),
        threshold=low + RELEVANT_SHARE * (high - low) if threshold is None else threshold,
        rating_range=dataset.interactions.rating_range,
        mask=config.protocol,
        block=config.evaluate.block,
        ranking=config.evaluate.ranking,
        prequential=config.model.name not in RANKERS,
    )


def _bias_arguments(dataset: Dataset) -> tuple:
    """What both kinds of bias are fitted on: train and validation."""
    train, validation, _ = dataset.sizes
    events = dataset.events
    seen = slice(0, train + validation)
    scale = dataset.interactions.rating_range or (0.0, 0.0)
    columns = events.user[seen], events.item[seen], events.rating[seen]
    return *columns, train, events.num_users, events.num_items, scale


def _drex(config: Settings, dataset: Dataset, seed: int, context: Context) -> DReX:
    model, events, train = config.model, dataset.events, dataset.sizes[0]
    ratings = events.rating[:train][events.has_rating[:train]]
    has_ratings = len(ratings) > 0
    if not has_ratings and not model.ranking_weight:
        raise UserError(
            "no train interaction has a rating, so there is nothing to predict: set model.ranking_weight above 0"
        )
    network = NetworkOptions(
        state_size=model.state_size,
        feature_size=model.feature_size,
        head=model.head,
        hidden_size=model.hidden_size,
        partner=model.partner,
        rating_modality=model.rating_modality and has_ratings,
        time_modality=model.time_modality,
        vector_modalities=tuple(sorted(events.vectors)) if model.vector_modalities else (),
        offsets=model.offsets,
        residual=model.residual and has_ratings,
        dropout=model.dropout,
        rating=bool(model.rating_weight) and has_ratings,
        ranking=model.ranking_weight > 0,
        vocabulary_size=0 if dataset.vocabulary is None else len(dataset.vocabulary),
        text_width=config.text.width,
        text_dropout=config.text.dropout,
        bert=dataset.vocabulary.learns if isinstance(dataset.vocabulary, WordPieces) else None,
        bert_dtype=config.text.bert.dtype,
        token_width=0 if events.tokens is None or events.tokens.features is None else events.tokens.features.shape[1],
    )
    bias = (
        running_bias.fit_running_bias(*_bias_arguments(dataset))
        if has_ratings
        else running_bias.RunningBias(0.0, 1.0, 1.0)
    )
    packing = _packing(config, dataset, context)
    options = DReXOptions(
        network=network,
        bias=bias,
        rating_mean=float(ratings.mean(dtype=np.float64)) if has_ratings else 0.0,
        rating_deviation=max(float(ratings.std(dtype=np.float64)), 1e-3) if has_ratings else 1.0,
        rating_weight=model.rating_weight if has_ratings else 0.0,
        ranking_weight=model.ranking_weight,
        ranking_loss=model.ranking_loss,
        negatives=model.negatives,
        offset_dropout=model.offset_dropout,
        bptt_windows=config.train.bptt_windows,
        implementation=_implementation(config),
        products=config.model.products,
        packing=packing,
        seed=seed,
    )
    return DReX(options, events, dataset.sizes, context.devices.compile)


def _packing(config: Settings, dataset: Dataset, context: Context) -> Packing:
    """How windows are packed: the width, and whether the devices share its lanes."""
    devices, width = len(context.devices), config.schedule.width
    if not width:
        train = dataset.events[: dataset.sizes[0]]
        streams = window_streams(train.user, train.item, config.train.bptt_windows)
        width = cheapest_width(streams, context.costs.step)
    wanted, can = config.devices.recurrence, _implementation(config) is recurrence.Implementation.BLOCKED
    pays = wanted == "auto" and can and context.costs.split_pays(width, devices)
    split = devices > 1 and (wanted == "split" or pays)
    how = "split over the devices" if split else "on every device" if devices > 1 else "on the device"
    LOGGER.info("recurrence: %s, %d lanes a step %s", _implementation(config).value, width, how)
    return Packing(width, devices, split, context.cache)


def _implementation(config: Settings) -> recurrence.Implementation:
    return recurrence.Implementation(config.schedule.implementation).resolve()


def _global_mean(config: Settings, dataset: Dataset, seed: int, context: Context) -> GlobalMean:
    mean = float(np.nanmean(dataset.events.rating[: dataset.sizes[0]], dtype=np.float64))
    return GlobalMean(mean, dataset.events, dataset.sizes)


def _bias(config: Settings, dataset: Dataset, seed: int, context: Context) -> Bias:
    return Bias(running_bias.fit_static_bias(*_bias_arguments(dataset)), dataset.events, dataset.sizes)


def _running_bias(config: Settings, dataset: Dataset, seed: int, context: Context) -> RunningBias:
    return RunningBias(running_bias.fit_running_bias(*_bias_arguments(dataset)), dataset.events, dataset.sizes)


def _popularity(config: Settings, dataset: Dataset, seed: int, context: Context) -> Popularity:
    return Popularity(dataset.events, dataset.sizes)


def _matrix_factorisation(
    config: Settings, dataset: Dataset, seed: int, context: Context, l2: float
) -> MatrixFactorisation:
    mean = float(np.nanmean(dataset.events.rating[: dataset.sizes[0]], dtype=np.float64))
    options = FactorOptions(mean=mean, l2=l2, seed=seed)
    return MatrixFactorisation(options, dataset.events, dataset.sizes, len(context.devices))


def _narre(config: Settings, dataset: Dataset, seed: int, context: Context) -> NARRE:
    lacking = _lacking("narre", dataset)
    if lacking:
        raise UserError(
            f"narre learns ratings from reviews, and no train interaction has {lacking}: give it data with both and "
            "text.enabled=true, or train another model"
        )
    given, vocabulary, ratings = (
        dataclasses.asdict(config.narre),
        dataset.vocabulary,
        dataset.events.rating[: dataset.sizes[0]],
    )
    assert vocabulary is not None  # there are texts
    encoder = TextEncoder(len(vocabulary), config.text.width, given.pop("size"), config.text.dropout)
    options = NarreOptions(mean=float(np.nanmean(ratings, dtype=np.float64)), encoder=encoder, seed=seed, **given)
    return NARRE(options, dataset.events, dataset.sizes, len(context.devices))


def pairwise(
    name: str, config: Settings, events: Events, sizes: tuple[int, int, int], seed: int, devices: int = 1
) -> Pairwise:
    """The ranker `name`, one of `PAIRWISE`, over events of which `sizes` are train, validation and test.

    Raises:
      UserError: the data lack what the model learns from.
    """
    options = RankerOptions(**dataclasses.asdict(config.ranker), seed=seed)
    if name == "crane":
        return Crane(options, config.crane, events, sizes, devices)
    return PAIRWISE[name](options, events, sizes, devices)


def _pairwise(name: str) -> Callable[..., Pairwise]:
    """The builder of a ranker."""

    def ranker(config: Settings, dataset: Dataset, seed: int, context: Context) -> Pairwise:
        return pairwise(name, config, dataset.events, dataset.sizes, seed, len(context.devices))

    return ranker


PAIRWISE: dict[str, Callable[..., Pairwise]] = {
    "crane": Crane,
    "bpr": BPR,
    "lightgcn": LightGCN,
    "vbpr": VBPR,
    "freedom": FREEDOM,
    "crane_released": Released,
    "crane_released_axis_fixed": partial(Released, axis_fixed=True),
}
BUILDERS: dict[str, Callable[..., Model]] = {
    "drex": _drex,
    "global_mean": _global_mean,
    "bias": _bias,
    "running_bias": _running_bias,
    "popularity": _popularity,
    "matrix_factorisation": _matrix_factorisation,
    "narre": _narre,
    **{name: _pairwise(name) for name in PAIRWISE},
    "drex_ratings": lambda config, dataset, seed, context: _drex(config, dataset.ratings_only(), seed, context),
}
