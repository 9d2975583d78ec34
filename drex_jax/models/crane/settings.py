"""Settings of CRANE: `crane`."""

from __future__ import annotations

import dataclasses

from drex_jax.common.settings import SWITCH, number, setting, whole


@dataclasses.dataclass(frozen=True)
class CraneSettings:
    """`crane`: settings that only CRANE reads."""

    rounds: int = setting(2, whole(0, 3), "rounds of cross-modal attention; 0: projections alone")
    user_profiles: bool = setting(True, SWITCH, "users have content: what they liked, refined as items are")
    leave_one_out: bool = setting(True, SWITCH, "in training a profile leaves out the very item that is scored")
    semantic_graph: bool = setting(True, SWITCH, "propagate content over the item-item graph")
    graph_epochs: int = setting(
        1, whole(0), "rebuild that graph every n epochs, on refined content; 0: once, on the features"
    )
    contrastive_weight: float = setting(0.005, number(0.0), "weight of the contrastive loss")
    anchors: int = setting(512, whole(1), "users, and items, of a batch in the contrastive loss")
    temperature: float = setting(0.2, number(above=0.0), "of the contrastive loss")
