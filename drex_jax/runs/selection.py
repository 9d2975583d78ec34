"""The record of what validation chose."""

from __future__ import annotations

import dataclasses
import hashlib

import jax
import numpy as np

from drex_jax.models.protocol import Params


@dataclasses.dataclass(frozen=True)
class Selection:
    """The frozen record of what validation chose. Without one no test figure is computed.

    Attributes:
      metric: its name.
      value: on validation: prequential, or of the full ranking without `EvaluationOptions.prequential`.
      epoch: of the chosen parameters, counted from 1; 0 for a closed-form model.
      params_sha256: of the chosen parameters; empty in what older versions wrote.
    """

    metric: str
    value: float
    epoch: int
    params_sha256: str = ""

    @classmethod
    def of(cls, params: Params, metric: str, value: float, epoch: int) -> Selection:
        """The record of these parameters."""
        return cls(metric, value, epoch, digest(params))


def digest(params: Params) -> str:
    """A fingerprint of parameters."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(params):
        digest.update(np.ascontiguousarray(leaf).data)
    return digest.hexdigest()
