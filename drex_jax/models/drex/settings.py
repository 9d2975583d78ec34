"""Settings of DReX: `model` and `schedule`."""

from __future__ import annotations

import dataclasses

from drex_jax.common.settings import NAMED, SWITCH, number, one_of, optional, setting, share, whole


@dataclasses.dataclass(frozen=True)
class DReXSettings:
    """`model`: sizes, parts and losses of DReX."""

    state_size: int = setting(16, whole(1), "entries of a state")
    feature_size: int = setting(16, whole(1), "features of an interaction")
    head: str = setting("dot", one_of("dot", "mlp"), "how two states are scored: inner product, or DReX-MLP")
    hidden_size: int = setting(64, whole(1), "hidden units of the mlp head")
    partner: bool = setting(True, SWITCH, "each side's update reads the other side's state")
    rating_modality: bool = setting(True, SWITCH, "interactions bring their rating")
    time_modality: bool = setting(True, SWITCH, "interactions bring the time since the last ones")
    vector_modalities: bool = setting(True, SWITCH, "interactions bring the data's numeric vectors")
    offsets: bool = setting(False, SWITCH, "users and items of train start from a learned offset of their own")
    offset_dropout: float = setting(0.5, share(), "share of offsets that a training step leaves out")
    residual: bool = setting(True, SWITCH, "predict what the running bias leaves over; its terms feed the head")
    dropout: float = setting(0.5, number(0.0, below=1.0), "dropout of features and heads")
    products: str = setting(
        "float32", one_of("float32", "bfloat16"), "factors of the recurrence's products; sums stay float32"
    )
    rating_weight: float = setting(1.0, number(0.0), "weight of the squared error of ratings")
    ranking_weight: float = setting(1.0, number(0.0), "weight of the ranking loss")
    ranking_loss: str = setting("sampled_softmax", one_of("sampled_softmax", "bpr"), "which ranking loss")
    negatives: int = setting(32, whole(1), "negative items of an interaction")


@dataclasses.dataclass(frozen=True)
class ScheduleSettings:
    """`schedule`: how the recurrence is scheduled on a device."""

    width: int = setting(0, whole(0), "interactions a step; 0: the cheapest for the stream on this kind of device")
    costs: str | None = setting(
        None, optional(NAMED), "step costs that tools/profile.py --write_costs wrote; None: those of the package"
    )
    implementation: str = setting(
        "auto", one_of("auto", "sequential", "autodiff", "blocked"), "implementation of the recurrence"
    )
