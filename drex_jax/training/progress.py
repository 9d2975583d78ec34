"""The numbers that continue a run, beside its arrays."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass
class Replica:
    """The state of the selection of one seed: its best epoch so far."""

    seed: int
    best_value: float | None = None
    best_epoch: int = 0
    finished: bool = False


@dataclasses.dataclass
class Progress:
    """All numbers that continue a run; saved as JSON beside `State`."""

    replicas: list[Replica]
    step: int = 0
    seconds: float = 0.0

    @property
    def finished(self) -> bool:
        """True once patience or the epochs have run out for every seed."""
        return all(replica.finished for replica in self.replicas)

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any]) -> Progress:
        """Rebuild the progress from `dataclasses.asdict`. Raises TypeError or KeyError for anything else."""
        values: dict[str, Any] = {**facts, "replicas": [Replica(**replica) for replica in facts["replicas"]]}
        return cls(**values)
