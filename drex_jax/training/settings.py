"""The settings of a run: every group in one tree, and the checks that concern several groups.

Experiments start from `base()` and change values; `settings_of` checks the result once. Nothing here imports JAX.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import pathlib
import sys
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from drex_jax.common.errors import UserError
from drex_jax.common.settings import Rule, one_of, setting, some_of, whole
from drex_jax.config import agreement, tree
from drex_jax.config.groups import DeviceSettings, EvaluationSettings, TrainSettings, TuneSettings
from drex_jax.data.load import PREPARED, DataSettings
from drex_jax.data.split import SplitSettings
from drex_jax.metrics.names import RANKING_METRICS
from drex_jax.models.baselines.settings import NarreSettings
from drex_jax.models.crane.settings import CraneSettings
from drex_jax.models.drex.settings import DReXSettings, ScheduleSettings
from drex_jax.models.registry import BASELINES, CONFIGURABLE, ENTRIES, RANKERS, entry_of
from drex_jax.models.settings import RankerSettings
from drex_jax.runs.layout import RunLayout, require_own_files
from drex_jax.text.settings import TextSettings

OWN = "my_package.my_file:MyModel"
TRUSTED = "DREX_JAX_OWN_MODEL"  # environment variable: the model of a run directory that may be imported
MODEL = Rule(
    lambda value: value in CONFIGURABLE or ":" in value,
    f"one of {' '.join(CONFIGURABLE)}, or a model of your own such as {OWN}",
)
MODEL_GROUPS = {field.partition(".")[0] for entry in ENTRIES.values() for field in entry.reads}


@dataclasses.dataclass(frozen=True)
class ModelSettings(DReXSettings):
    """`model`: which model is trained, and the settings of DReX."""

    name: str = setting("drex", MODEL, f"the model: {' '.join(CONFIGURABLE)} {OWN}")


@dataclasses.dataclass(frozen=True)
class Settings:
    """Everything that a run can be told. One frozen group for each part of the package."""

    seed: int = setting(0, whole(0), "first seed of the run")
    replicas: int = setting(1, whole(1), "train the seeds seed .. seed + replicas - 1, and report their mean")
    protocol: str = setting(
        "strict",
        one_of("strict", "mmrec"),
        "lists leave out what the user touched before: strict, all of it; mmrec, of train alone",
    )
    baselines: tuple[str, ...] = setting(
        ("global_mean", "bias", "running_bias", "popularity", "matrix_factorisation", "drex_ratings"),
        some_of(*BASELINES),
        "models that are trained and evaluated beside the model",
    )
    data: DataSettings = dataclasses.field(default_factory=DataSettings)
    split: SplitSettings = dataclasses.field(default_factory=SplitSettings)
    text: TextSettings = dataclasses.field(default_factory=TextSettings)
    model: ModelSettings = dataclasses.field(default_factory=ModelSettings)
    ranker: RankerSettings = dataclasses.field(default_factory=RankerSettings)
    crane: CraneSettings = dataclasses.field(default_factory=CraneSettings)
    narre: NarreSettings = dataclasses.field(default_factory=NarreSettings)
    tune: TuneSettings = dataclasses.field(default_factory=TuneSettings)
    train: TrainSettings = dataclasses.field(default_factory=TrainSettings)
    schedule: ScheduleSettings = dataclasses.field(default_factory=ScheduleSettings)
    evaluate: EvaluationSettings = dataclasses.field(default_factory=EvaluationSettings)
    devices: DeviceSettings = dataclasses.field(default_factory=DeviceSettings)


@functools.lru_cache(maxsize=16)
def settings_class(model: str) -> type[Settings]:
    """Return the settings class of a model: `Settings`, plus the group `own` of a user's own model.

    Raises:
      UserError: there is no such model.
    """
    own = entry_of(model).own_settings
    if own is None:
        return Settings
    field = ("own", own, dataclasses.field(default_factory=own))
    return dataclasses.make_dataclass("OwnSettings", [field], bases=(Settings,), frozen=True)


def base(model: str = "drex") -> ConfigDict:
    """Return a configuration with every field at its default; unknown fields are refused.

    Args:
      model: its name; "my_package.my_file:MyModel" adds the group `own` with that model's settings.

    Raises:
      UserError: there is no such model.
    """
    config: Any = tree.config_of(settings_class(model))
    config.model.name = model
    return config


def add_own(config: ConfigDict, model: str) -> None:
    """Add the group `own` of a model of the user's own to a configuration that was made without it.

    Raises:
      UserError: there is no such model.
    """
    own = entry_of(model).own_settings if ":" in model else None
    if own is not None and "own" not in config:
        with config.unlocked():
            config["own"] = tree.config_of(own)


def ranking(model: str, data: str, name: str) -> ConfigDict:
    """Return the configuration of a model that only ranks, on MMRec's layout, as in published comparisons.

    Adam at a constant rate, batches of 2,048, patience 20 on validation Recall@20, the file's own split, train items
    masked, all items candidates (`protocol=mmrec`).

    Args:
      model: its name.
      data: the folder, below the one that DREX_JAX_DATA names or else below `data/`.
      name: name of the data set, for results.

    Raises:
      UserError: there is no such model that only ranks.
    """
    if model not in RANKERS:
        raise UserError(f"{model!r} is not one of the models that only rank: {' '.join(RANKERS)}")
    config: Any = base()
    config.protocol = "mmrec"
    config.data.format = "mmrec"
    config.data.name = name
    config.data.path = str(pathlib.Path(os.environ.get("DREX_JAX_DATA", "data"), data))
    config.split.kind = "given"
    config.text.enabled = False
    config.model.name = model
    config.train.update(
        epochs=1000,
        bptt_windows=1,
        learning_rate=1e-3,
        warmup_steps=0,
        decay="none",
        weight_decay=0.0,
        clip_norm=0.0,
        patience=20,
        selection="recall@20",
    )
    config.evaluate.cutoffs = (5, 10, 20, 50)
    config.baselines = () if model == "popularity" else ("popularity",)
    config.update_from_flattened_dict(entry_of(model).settings)
    config.tune.space = entry_of(model).space
    return config


def settings_of(config: ConfigDict) -> Settings:
    """Return the checked settings of a configuration.

    Raises:
      UserError: a field is unknown or wrong, or fields contradict one another; one line names them.
    """
    settings = tree.parse(settings_class(_model_of(config)), config)
    _check_together(settings)
    return settings


def read_settings(path: pathlib.Path) -> Settings:
    """Read the checked settings of a run from its `config.json`.

    A run directory need not be trusted, so it makes nothing run: `data.cache_dir`, which holds compiled programs, is
    not taken over, and a model of the user's own is not imported unless its module is imported already, or the
    environment variable `DREX_JAX_OWN_MODEL` names the model.

    Raises:
      UserError: the file is missing or damaged, a field has a wrong value, or a model would have to be imported.
    """
    model = _model_of(tree.stored_config(path))
    if ":" in model and model.partition(":")[0] not in sys.modules and os.environ.get(TRUSTED) != model:
        raise UserError(
            f"{path}: model.name is {model!r}, code that a run directory cannot make run by itself: if you trust it, "
            f"import its module first, or set {TRUSTED}={model}"
        )
    try:
        config: Any = tree.read_json_into(base(model), settings_class(model), path)
        config.data.cache_dir = None
        return settings_of(config)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def changed(settings: Settings, fields: Mapping[str, Any]) -> Settings:
    """Return the settings with other values, checked again.

    Args:
      settings: what is changed; it stays as it is.
      fields: values by dotted name, such as `train.epochs`.

    Raises:
      UserError: as of `settings_of`.
    """
    config = tree.config_from(settings)
    config.update_from_flattened_dict(fields)
    return settings_of(config)


def sha256(settings: Settings) -> str:
    """The fingerprint of what decides what a run computes; see `drex_jax.config.agreement.sha256`."""
    return agreement.sha256(tree.flatten_settings(settings))


def require_agreement(stored: Settings, given: Settings, workdir: pathlib.Path, *, goes_on: bool = False) -> None:
    """Refuses a run directory that was made with other settings; see `drex_jax.config.agreement`.

    Raises:
      UserError: fields differ that may not.
    """
    goes_on = goes_on and not RunLayout(workdir).is_settled()
    agreement.require_agreement(tree.flatten_settings(stored), tree.flatten_settings(given), workdir, goes_on=goes_on)


def check_agreement(settings: Settings, workdir: pathlib.Path) -> None:
    """Refuse to continue a run under settings that it was not made with.

    Raises:
      UserError: fields differ, or the directory holds parts of a run and no configuration.
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
        require_agreement(read_settings(layout.config), settings, workdir, goes_on=True)


def _check_together(settings: Settings) -> None:
    data, split, text, train, evaluate = (
        settings.data,
        settings.split,
        settings.text,
        settings.train,
        settings.evaluate,
    )
    implementation = settings.schedule.implementation
    for name in ("time", "event"):  # modalities of the model's own
        if name in data.columns:
            raise UserError(
                f"data.columns.{name} cannot name a vector modality; the column of times is data.columns.timestamp"
            )
    if settings.devices.recurrence == "split" and implementation not in ("auto", "blocked"):
        raise UserError(f"devices.recurrence=split needs schedule.implementation=blocked, not {implementation}")
    if data.tfds_dir is not None and data.format not in PREPARED:
        raise UserError(
            f"data.tfds_dir is {data.tfds_dir!r}; only data.format={'|'.join(PREPARED)} has it, not {data.format}"
        )
    if data.format != "synthetic" and data.path is None and data.tfds_dir is None:
        raise UserError(f"data.path is not set; data.format={data.format} needs a file, or the folder that holds one")
    if text.enabled and text.encoder == "bert":
        _check_bert(settings)
    if split.validation + split.test >= 1.0:
        raise UserError(
            f"split.validation {split.validation} and split.test {split.test} leave nothing to train on; their sum "
            "must be below 1"
        )
    lowest, highest = data.rating_min, data.rating_max
    if data.format == "table" and (lowest is None) != (highest is None):
        raise UserError("data.format=table needs both data.rating_min and data.rating_max, or neither")
    if lowest is not None and highest is not None and lowest >= highest:
        raise UserError(f"data.rating_min {lowest} must be below data.rating_max {highest}")
    if settings.model.rating_weight + settings.model.ranking_weight == 0.0:
        raise UserError("model.rating_weight and model.ranking_weight are both 0; one must be above 0")
    _check_effects(settings)
    cutoff = train.selection.partition("@")[2]
    judges_ratings = not cutoff or train.selection.startswith("rated_items/")
    if judges_ratings and not _predicts_ratings(settings):
        raise UserError(
            f"train.selection is {train.selection!r}, and {settings.model.name} predicts no ratings here; it must be "
            f"one of {' '.join(RANKING_METRICS)} with a cutoff, such as ndcg@{evaluate.cutoffs[0]}"
        )
    if cutoff and not train.selection.startswith("rated_items/") and not evaluate.ranking:
        raise UserError(f"train.selection is {train.selection!r}, which needs evaluate.ranking=true")
    if cutoff and int(cutoff) not in evaluate.cutoffs:
        raise UserError(
            f"train.selection is {train.selection!r}; its cutoff must be one of evaluate.cutoffs, {evaluate.cutoffs}"
        )


def _check_bert(settings: Settings) -> None:
    text, bert, model = settings.text, settings.text.bert, settings.model
    if bert.folder is None:
        raise UserError("text.bert.folder is not set; text.encoder=bert needs a Hugging Face folder of model type bert")
    if text.max_tokens < 2:
        raise UserError("text.max_tokens is 1; with text.encoder=bert it must be 2 or more: [CLS] and [SEP] count")
    pooled = bert.pooling != "attention"
    if pooled and bert.finetune:
        raise UserError("text.bert.finetune=true needs text.bert.pooling=attention, whose gradient it learns from")
    reads_vectors = entry_of(model.name).reads_field("model.vector_modalities")
    if not reads_vectors or (pooled and not model.vector_modalities):
        raise UserError("text.encoder=bert needs model.name=drex with model.vector_modalities=true, which read it")
    if settings.devices.distributed:
        raise UserError("text.encoder=bert encodes in one process: it does not go with devices.distributed=true")


def _check_effects(settings: Settings) -> None:
    """Refuse settings of models other than those that are trained."""
    entries = [entry_of(name) for name in (settings.model.name, *settings.baselines)]
    for name, field in tree.fields_of(Settings).items():
        group, _, last = name.partition(".")
        if group not in MODEL_GROUPS or name == "model.name" or any(entry.reads_field(name) for entry in entries):
            continue
        value = getattr(getattr(settings, group), last)
        if value != field.default:
            own = " ".join(sorted(read for read in entries[0].reads if "." in read)) or f"no field of {group}"
            raise UserError(
                f"{name} = {value!r} has no effect on {settings.model.name}, which reads {own}; leave it as it is"
            )


def _predicts_ratings(settings: Settings) -> bool:
    """Return False if validation cannot judge ratings; a model that is not trained has nothing to select."""
    entry = entry_of(settings.model.name)
    rates = entry.rates and (not entry.reads_field("model.rating_weight") or settings.model.rating_weight > 0.0)
    return rates or not entry.trained


def _model_of(config: ConfigDict) -> str:
    """Return the model's name in an unchecked configuration if it is a user's own model; otherwise `drex`."""
    group = config.get("model")
    name = group.get("name") if isinstance(group, ConfigDict) else None
    return name if isinstance(name, str) and ":" in name else "drex"
