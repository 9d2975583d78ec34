"""Settings that every model shares: training, evaluation, devices, search."""

from __future__ import annotations

import dataclasses
import re

from drex_jax.common.settings import SWITCH, Rule, number, one_of, optional, setting, whole
from drex_jax.metrics.names import RANKING_METRICS
from drex_jax.metrics.rating import ERROR_METRICS

_METRIC = re.compile(rf"{'|'.join(ERROR_METRICS)}|(rated_items/)?({'|'.join(RANKING_METRICS)})@[1-9][0-9]*")
_DIMENSION = re.compile(r"[a-z_]+(\.[a-z0-9_]+)*=[^=,]+(,[^=,]+)*")

METRIC = Rule(
    lambda value: _METRIC.fullmatch(value) is not None,
    f"{' '.join(ERROR_METRICS)}, or one of {' '.join(RANKING_METRICS)} with a cutoff, such as ndcg@10",
)
CUTOFFS = Rule(
    lambda value: (
        len(value) > 0
        and all(isinstance(cutoff, int) and not isinstance(cutoff, bool) and 1 <= cutoff < 2**31 for cutoff in value)
        and list(value) == sorted(set(value))
    ),
    "different whole numbers of 1 or more in ascending order, such as (5, 10, 20)",
)
SPACE = Rule(
    lambda value: all(isinstance(line, str) and _DIMENSION.fullmatch(line) for line in value),
    "lines such as 'ranker.layers=1,2,3' or 'ranker.l2=1e-6..1e-2'",
)


@dataclasses.dataclass(frozen=True)
class TrainSettings:
    """`train`: how the parameters are learned."""

    epochs: int = setting(25, whole(1), "passes over the train interactions, at most")
    bptt_windows: int = setting(8, whole(1), "windows of the train stream, one update each; 1: full history")
    learning_rate: float = setting(3e-3, number(above=0.0), "peak of the learning rate")
    warmup_steps: int = setting(10, whole(0), "updates until the learning rate reaches its peak")
    decay: str = setting("cosine", one_of("cosine", "none"), "of the learning rate: cosine to a twentieth, or none")
    weight_decay: float = setting(0.1, number(0.0), "AdamW's decay of weight matrices")
    clip_norm: float = setting(1.0, number(0.0), "bound of the gradient's global norm; 0: no bound")
    patience: int = setting(8, whole(1), "epochs without a better validation after which training stops")
    selection: str = setting("mse", METRIC, "validation metric that chooses the epoch")
    checkpoint_seconds: float = setting(30.0, number(0.0), "a checkpoint after so many seconds, and at every stop")
    checkpoint_steps: int = setting(0, whole(0), "a checkpoint after so many updates as well; 0: by time alone")
    tensorboard: bool = setting(False, SWITCH, "write TensorBoard events (extra `tensorboard`)")


@dataclasses.dataclass(frozen=True)
class EvaluationSettings:
    """`evaluate`: which metrics are computed, and in which blocks."""

    cutoffs: tuple[int, ...] = setting((5, 10, 20), CUTOFFS, "the K of ranking metrics")
    threshold: float | None = setting(
        None, optional(number()), "a rating at least this high is relevant; None: 0.75 of the rating range"
    )
    block: int = setting(256, whole(1), "lists that are scored at once")
    ranking: bool = setting(True, SWITCH, "rank the whole catalogue")


@dataclasses.dataclass(frozen=True)
class DeviceSettings:
    """`devices`: what the run uses of the machine."""

    mapping: str = setting(
        "shard_map", one_of("shard_map", "pmap", "none"), "shard_map or pmap; none: the first device alone"
    )
    count: int = setting(0, whole(0), "use so many devices; 0: all there are")
    recurrence: str = setting(
        "auto",
        one_of("auto", "split", "replicated"),
        "split: each step's lanes are sharded over devices; replicated: every device computes all; auto: by cost",
    )
    replicas: str = setting(
        "auto",
        one_of("auto", "together", "one_by_one"),
        "together: seeds train as one program; auto: together on accelerators",
    )
    distributed: bool = setting(False, SWITCH, "many processes (`jax.distributed`), each with the same command")


@dataclasses.dataclass(frozen=True)
class TuneSettings:
    """`tune`: what `drex tune` searches, on validation."""

    space: tuple[str, ...] = setting((), SPACE, "lines FIELD=VALUE,VALUE,... or FIELD=LOW..HIGH (log-uniform)")
    search: str = setting(
        "random", one_of("random", "grid", "tpe"), "how trials are drawn; tpe learns from the trials before"
    )
    trials: int = setting(20, whole(1), "number of trials")
