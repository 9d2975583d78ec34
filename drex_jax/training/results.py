"""The contents of `results.json`."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Mapping, Sequence
from typing import Any

from drex_jax.common.version import __version__
from drex_jax.devices import processes
from drex_jax.devices.mesh import Devices
from drex_jax.evaluation import evaluator, leaks
from drex_jax.evaluation.evaluator import EvaluationOptions
from drex_jax.runs.dataset import Dataset
from drex_jax.runs.layout import SCHEMA
from drex_jax.training.settings import Settings, sha256

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "sentencepiece")


def collect(
    *,
    settings: Settings,
    dataset: Dataset,
    devices: Devices,
    records: Sequence[Mapping[str, Any]],
    baselines: Mapping[str, Any],
    checks: Sequence[leaks.Check],
    options: EvaluationOptions,
    seconds: float,
) -> dict[str, Any]:
    """Collect everything that a finished run says of itself.

    Args:
      settings: of the run.
      dataset: its data.
      devices: what it ran on.
      records: what `run.json` holds, of each seed.
      baselines: the entry of each baseline, by name.
      checks: the leak checks.
      options: how the run was evaluated.
      seconds: time that training and evaluation took.
    """
    interactions, facts, split = dataset.interactions, dataset.facts, dataset.split
    return {
        "schema": SCHEMA,
        "model": settings.model.name,
        "dataset": {
            "name": interactions.name,
            "sha256": facts["sha256"],
            "users": interactions.num_users,
            "items": interactions.num_items,
            "interactions": len(interactions),
            **{name: facts[name] for name in ("rows_read", "duplicates", "rejected", "noise_floor")},
        },
        "config": {"sha256": sha256(settings)},
        "split": {"kind": split.kind, "sizes": split.sizes, "boundaries": split.boundaries},
        "protocol": settings.protocol,
        "definitions": evaluator.definitions(options),
        "seeds": [record["seed"] for record in records],
        **over_seeds(records),
        "baselines": dict(baselines),
        "schedule": records[0]["schedule"],
        "leaks": [sentence for check in checks for sentence in leaks.sentences(check)],
        "notices": facts["notices"],
        "timing": {
            **records[0]["timing"],
            "preparation_seconds": facts["seconds"],
            "total_seconds": seconds,
        },
        "environment": {
            "devices": len(devices),
            "processes": processes.count(),
            "mapping": devices.mapping,
            "device_kind": devices.kind,
            "python": platform.python_version(),
            "versions": {"drex_jax": __version__} | {name: importlib.metadata.version(name) for name in PACKAGES},
        },
    }


def over_seeds(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the selection of the first and of every seed, the means over seeds, and each seed's figures."""
    per_seed = [record["test"] for record in records]
    return {
        "selection": records[0]["selection"],
        "selections": [record["selection"] for record in records],
        "test": evaluator.mean_over_seeds(per_seed),
        "per_seed": per_seed,
    }
