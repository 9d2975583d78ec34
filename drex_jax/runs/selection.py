"""The record of the parameters that validation selected."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np

from drex_jax.common.digest import sha256_of
from drex_jax.models.protocol import Params


@dataclasses.dataclass(frozen=True)
class Selection:
    """The frozen record of the parameters that validation selected. Test metrics are computed only with it.

    Attributes:
      metric: name of the metric.
      value: its value on validation, prequential or by full ranking.
      epoch: epoch of the selected parameters, counted from 1; 0 for a closed-form model.
      params_sha256: fingerprint of the selected parameters; empty in files of older versions.
    """

    metric: str
    value: float
    epoch: int
    params_sha256: str = ""

    @classmethod
    def of(cls, params: Params, metric: str, value: float, epoch: int) -> Selection:
        """Return the record of these parameters."""
        return cls(metric, value, epoch, digest(params))


def digest(params: Params) -> str:
    """Return the SHA-256 of the parameters' values."""
    return sha256_of(map(np.asarray, jax.tree.leaves(params)))
