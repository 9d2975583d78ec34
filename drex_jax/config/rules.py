"""Every configuration field's accepted values, in one place, checked once before anything runs."""

from __future__ import annotations

import dataclasses
import difflib
import math
import pathlib
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ml_collections import ConfigDict

from drex_jax.common.errors import UserError
from drex_jax.config import defaults as config_lib
from drex_jax.config.defaults import RANKER_FIELDS, RANKERS, Config, from_json
from drex_jax.metrics.names import RANKING_METRICS

BASELINES = ("global_mean", "bias", "running_bias", "popularity", "matrix_factorisation", "narre", "drex_ratings")
ERROR_METRICS = ("mse", "rmse", "mae")
_METRIC = re.compile(rf"{'|'.join(ERROR_METRICS)}|(rated_items/)?({'|'.join(RANKING_METRICS)})@[1-9][0-9]*")
_DIMENSION = re.compile(r"[a-z_]+(\.[a-z0-9_]+)*=[^=,]+(,[^=,]+)*")


@dataclasses.dataclass(frozen=True)
class Rule:
    """What one field accepts.

    Attributes:
      accepts: whether a value is right.
      wants: the end of the sentence "it must be ...".
    """

    accepts: Callable[[Any], bool]
    wants: str


def whole(least: int, most: int = 2**31 - 1) -> Rule:
    """A whole number within bounds, both included."""
    wants = (
        f"a whole number from {least} to {most}"
        if most < 2**31 - 1
        else f"a whole number, {least} or more and below 2^31"
    )
    return Rule(lambda value: isinstance(value, int) and least <= value <= most, wants)


def number(least: float = -math.inf, below: float = math.inf, *, above: float = -math.inf) -> Rule:
    """A finite number that is >= least, > above and < below."""
    bounds = [f"{least:g} or more"] if least > -math.inf else []
    bounds += [f"above {above:g}"] if above > -math.inf else []
    bounds += [f"below {below:g}"] if below < math.inf else []
    wants = "a finite number" + (", " + " and ".join(bounds) if bounds else "")
    return Rule(lambda value: math.isfinite(value) and least <= value < below and value > above, wants)


def share() -> Rule:
    """A share of a whole: from 0 to 1, both included."""
    return Rule(lambda value: 0.0 <= value <= 1.0, "a share from 0 to 1")


def one_of(*values: str) -> Rule:
    """One of a few words."""
    return Rule(lambda value: value in values, ("one of " if len(values) > 1 else "") + " ".join(values))


def optional(rule: Rule) -> Rule:
    """What `rule` accepts, or None."""
    return Rule(lambda value: value is None or rule.accepts(value), f"{rule.wants}, or left out")


SWITCH = Rule(lambda value: isinstance(value, bool), "true or false")
WORDS = Rule(lambda value: isinstance(value, str), "a string")
NAMED = Rule(lambda value: isinstance(value, str) and bool(value.strip()), "a string that is not empty")
CUTOFFS = Rule(
    lambda value: (
        len(value) > 0
        and all(isinstance(cutoff, int) and not isinstance(cutoff, bool) and 1 <= cutoff < 2**31 for cutoff in value)
        and list(value) == sorted(set(value))
    ),
    "different whole numbers of 1 or more in ascending order, such as (5, 10, 20)",
)
SOME_BASELINES = Rule(
    lambda value: set(value) <= set(BASELINES) and len(set(value)) == len(value),
    f"different names among {' '.join(BASELINES)}",
)
MODALITIES = Rule(
    lambda value: (
        all(isinstance(name, str) and name.isidentifier() for name in value) and len(set(value)) == len(value)
    ),
    "different names of modalities, such as ('image', 'text')",
)
SPACE = Rule(
    lambda value: all(isinstance(line, str) and _DIMENSION.fullmatch(line) for line in value),
    "lines such as 'ranker.layers=1,2,3' or 'ranker.l2=1e-6..1e-2'",
)

RULES: dict[str, Rule] = {
    "seed": whole(0),
    "replicas": whole(1),
    "protocol": one_of("strict", "mmrec"),
    "data.name": WORDS,
    "data.format": one_of("synthetic", "amazon", "yelp", "movielens", "table", "mmrec"),
    "data.path": optional(NAMED),
    "data.tfds_dir": optional(NAMED),
    "data.cache_dir": optional(NAMED),
    "data.max_interactions": optional(whole(1)),
    "data.max_bad_share": share(),
    "data.max_ids": whole(1),
    "data.k_core": whole(0),
    "data.rating_min": optional(number(-1e6, 1e6)),  # what float32 can tell apart and square
    "data.rating_max": optional(number(-1e6, 1e6)),
    "data.columns.user": NAMED,
    "data.columns.item": NAMED,
    "data.columns.rating": WORDS,
    "data.columns.timestamp": WORDS,
    "data.columns.text": WORDS,
    "data.columns.split": WORDS,
    "data.item_features": MODALITIES,
    "data.time_format": WORDS,
    **{f"data.missing.{modality}": share() for modality in ("rating", "text", "time", "vectors")},
    "data.synthetic.num_interactions": whole(10),
    "data.synthetic.num_users": whole(1),
    "data.synthetic.num_items": whole(1),
    "data.synthetic.missing_text": share(),
    "data.synthetic.missing_rating": share(),
    "data.synthetic.noise": number(0.0),
    "data.synthetic.seed": whole(0),
    "split.kind": one_of("global_time", "leave_last_out", "random", "given"),
    "split.validation": number(above=0.0, below=1.0),
    "split.test": number(above=0.0, below=1.0),
    "text.enabled": SWITCH,
    "text.encoder": one_of("subwords", "bert"),
    "text.shuffled": SWITCH,
    "text.vocabulary_size": whole(16),
    "text.max_tokens": whole(1, 65536),
    "text.width": whole(1),
    "text.dropout": number(0.0, below=1.0),
    "text.bert.folder": optional(NAMED),
    "text.bert.pooling": one_of("mean", "cls", "attention"),
    "text.bert.finetune": SWITCH,
    "text.bert.learning_rate": number(above=0.0),
    "text.bert.dtype": one_of("float32", "bfloat16"),
    "model.name": one_of("drex", "narre", *RANKERS),
    "model.state_size": whole(1),
    "model.feature_size": whole(1),
    "model.head": one_of("dot", "mlp"),
    "model.hidden_size": whole(1),
    "model.partner": SWITCH,
    "model.rating_modality": SWITCH,
    "model.time_modality": SWITCH,
    "model.vector_modalities": SWITCH,
    "model.offsets": SWITCH,
    "model.offset_dropout": share(),
    "model.residual": SWITCH,
    "model.products": one_of("float32", "bfloat16"),
    "model.dropout": number(0.0, below=1.0),
    "model.rating_weight": number(0.0),
    "model.ranking_weight": number(0.0),
    "model.ranking_loss": one_of("sampled_softmax", "bpr"),
    "model.negatives": whole(1),
    "ranker.size": whole(1),
    "ranker.batch_size": whole(1),
    "ranker.l2": number(0.0),
    "ranker.layers": whole(0),
    "ranker.neighbours": whole(1),
    "ranker.edge_dropout": number(0.0, below=1.0),
    "ranker.feature_weight": number(0.0),
    "ranker.first_modality": share(),
    "crane.rounds": whole(0, 3),
    "crane.user_profiles": SWITCH,
    "crane.leave_one_out": SWITCH,
    "crane.semantic_graph": SWITCH,
    "crane.graph_epochs": whole(0),
    "crane.contrastive_weight": number(0.0),
    "crane.anchors": whole(1),
    "crane.temperature": number(above=0.0),
    "narre.size": whole(1),
    "narre.reviews": whole(1),
    "narre.batch_size": whole(1),
    "narre.l2": number(0.0),
    "narre.dropout": number(0.0, below=1.0),
    "tune.space": SPACE,
    "tune.search": one_of("random", "grid"),
    "tune.trials": whole(1),
    "train.epochs": whole(1),
    "train.bptt_windows": whole(1),
    "train.learning_rate": number(above=0.0),
    "train.warmup_steps": whole(0),
    "train.weight_decay": number(0.0),
    "train.decay": one_of("cosine", "none"),
    "train.clip_norm": number(0.0),
    "train.patience": whole(1),
    "train.selection": Rule(
        lambda value: _METRIC.fullmatch(value) is not None,
        f"{' '.join(ERROR_METRICS)}, or one of {' '.join(RANKING_METRICS)} with a cutoff, such as ndcg@10",
    ),
    "train.checkpoint_seconds": number(0.0),
    "train.checkpoint_steps": whole(0),
    "train.tensorboard": SWITCH,
    "schedule.width": whole(0),
    "schedule.costs": optional(NAMED),
    "schedule.implementation": one_of("auto", "sequential", "autodiff", "blocked"),
    "evaluate.cutoffs": CUTOFFS,
    "evaluate.threshold": optional(number()),
    "evaluate.block": whole(1),
    "evaluate.ranking": SWITCH,
    "baselines": SOME_BASELINES,
    "devices.mapping": one_of("shard_map", "pmap", "none"),
    "devices.count": whole(0),
    "devices.recurrence": one_of("auto", "split", "replicated"),
    "devices.replicas": one_of("auto", "together", "one_by_one"),
    "devices.distributed": SWITCH,
}


def check(config: ConfigDict) -> None:
    """Checks every field by itself and the few that must agree with one another.

    Raises:
      UserError: one line that names the first wrong field, its value and what would be right.
    """
    fields = config_lib.flatten(config)
    for name, value in fields.items():
        if name in ("data.columns.time", "data.columns.event"):  # modalities of the model's own
            raise UserError(f"{name} cannot name a vector modality; the column of times is data.columns.timestamp")
        if name.startswith("data.columns."):
            _require(name, value, WORDS)
        elif name not in RULES:
            raise UserError(f"unknown configuration field {name}; {suggestion(name, RULES)}")
    for name, rule in RULES.items():
        if name not in fields:
            raise UserError(
                f"the configuration has no field {name}: start from drex_jax.config.defaults.base() and change values"
            )
        _require(name, fields[name], rule)
    _check_together(fields)


def read_config(path: pathlib.Path) -> Config:
    """The configuration of a run, checked, from its `config.json`.

    `data.cache_dir` is not taken over: programs that were compiled lie there and are run, and a run directory need not
    be trusted.

    Raises:
      UserError: the file is missing or damaged, or a field has a wrong value.
    """
    config = from_json(path)
    config.data.cache_dir = None
    try:
        check(config)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    return config


def suggestion(name: str, fields: Iterable[str]) -> str:
    """A hint at the field among `fields` that the unknown dotted name may have meant."""
    by_last = {field: field.rsplit(".", 1)[-1] for field in fields}
    last = name.rsplit(".", 1)[-1]
    similar = difflib.get_close_matches(last, by_last.values(), 2, 0.75)
    close = difflib.get_close_matches(name, by_last, 1, 0.7) or [
        field for field in by_last if by_last[field] in similar
    ]
    return f"did you mean {' or '.join(close)}?" if close else "drex_jax/config/defaults.py lists the fields there are"


def _require(name: str, value: Any, rule: Rule) -> None:
    try:
        right = rule.accepts(value)
    except TypeError:
        right = False
    if not right:
        raise UserError(f"{name} is {value!r}; it must be {rule.wants}")


def _check_together(fields: Mapping[str, Any]) -> None:
    implementation = fields["schedule.implementation"]
    if fields["devices.recurrence"] == "split" and implementation not in ("auto", "blocked"):
        raise UserError(f"devices.recurrence=split needs schedule.implementation=blocked, not {implementation}")
    source, path, prepared = fields["data.format"], fields["data.path"], fields["data.tfds_dir"]
    if prepared is not None and source not in ("amazon", "yelp", "table"):
        raise UserError(f"data.tfds_dir is {prepared!r}; only data.format=amazon|yelp|table has it, not {source}")
    if source != "synthetic" and path is None and prepared is None:
        raise UserError(f"data.path is not set; data.format={source} needs a file, or the folder that holds one")
    if fields["text.enabled"] and fields["text.encoder"] == "bert":
        _check_bert(fields)
    validation, test = fields["split.validation"], fields["split.test"]
    if validation + test >= 1.0:
        raise UserError(
            f"split.validation {validation} and split.test {test} leave nothing to train on; their sum must be below 1"
        )
    lowest, highest = fields["data.rating_min"], fields["data.rating_max"]
    if source == "table" and (lowest is None) != (highest is None):
        raise UserError("data.format=table needs both data.rating_min and data.rating_max, or neither")
    if lowest is not None and highest is not None and lowest >= highest:
        raise UserError(f"data.rating_min {lowest} must be below data.rating_max {highest}")
    if fields["model.rating_weight"] + fields["model.ranking_weight"] == 0.0:
        raise UserError("model.rating_weight and model.ranking_weight are both 0; one must be above 0")
    _check_effects(fields)
    selection, cutoffs = fields["train.selection"], fields["evaluate.cutoffs"]
    cutoff = selection.partition("@")[2]
    judges_ratings = not cutoff or selection.startswith("rated_items/")
    if judges_ratings and not _predicts_ratings(fields):
        raise UserError(
            f"train.selection is {selection!r}, and {fields['model.name']} predicts no ratings here; it must be one of "
            f"{' '.join(RANKING_METRICS)} with a cutoff, such as ndcg@{cutoffs[0]}"
        )
    if cutoff and not selection.startswith("rated_items/") and not fields["evaluate.ranking"]:
        raise UserError(f"train.selection is {selection!r}, which needs evaluate.ranking=true")
    if cutoff and int(cutoff) not in cutoffs:
        raise UserError(f"train.selection is {selection!r}; its cutoff must be one of evaluate.cutoffs, {cutoffs}")


def _check_bert(fields: Mapping[str, Any]) -> None:
    if fields["text.bert.folder"] is None:
        raise UserError("text.bert.folder is not set; text.encoder=bert needs a Hugging Face folder of model type bert")
    if fields["text.max_tokens"] < 2:
        raise UserError("text.max_tokens is 1; with text.encoder=bert it must be 2 or more: [CLS] and [SEP] count")
    pooled = fields["text.bert.pooling"] != "attention"
    if pooled and fields["text.bert.finetune"]:
        raise UserError("text.bert.finetune=true needs text.bert.pooling=attention, whose gradient it learns from")
    if fields["model.name"] != "drex" or (pooled and not fields["model.vector_modalities"]):
        raise UserError("text.encoder=bert needs model.name=drex with model.vector_modalities=true, which read it")
    if fields["devices.distributed"]:
        raise UserError("text.encoder=bert encodes in one process: it does not go with devices.distributed=true")


def _check_effects(fields: Mapping[str, Any]) -> None:
    """Refuses what is set for another model than the one that is trained."""
    model = fields["model.name"]
    read = {f"ranker.{name}" for name in RANKER_FIELDS.get(model, ())}
    defaults = config_lib.flatten(config_lib.base())
    for name, value in fields.items():
        group = name.partition(".")[0]
        if name in read or group == model or value == defaults.get(name):
            continue
        unread = {"narre": "narre" not in fields["baselines"], "model": not _trains_drex(fields)}
        if group in ("ranker", "crane") or (name != "model.name" and unread.get(group)):
            own = " ".join(sorted(read)) or f"no field of {group}"
            raise UserError(f"{name} = {value!r} has no effect on {model}, which reads {own}; leave it as it is")


def _predicts_ratings(fields: Mapping[str, Any]) -> bool:
    """Whether validation can judge ratings; a model that is not trained (popularity) has no choice to make."""
    model = fields["model.name"]
    return not RANKER_FIELDS[model] if model in RANKERS else fields["model.rating_weight"] > 0.0


def _trains_drex(fields: Mapping[str, Any]) -> bool:
    return fields["model.name"] == "drex" or "drex_ratings" in fields["baselines"]
