"""Loading the parameters that validation selected for one seed."""

from __future__ import annotations

import pathlib

import jax

from drex_jax.common.errors import UserError
from drex_jax.common.files import read_json
from drex_jax.models.protocol import Model, Params
from drex_jax.runs import checkpoint
from drex_jax.runs.layout import RUN_KEYS, RunLayout
from drex_jax.runs.selection import Selection


def load_trained(model: Model, folder: pathlib.Path) -> tuple[Params, Selection]:
    """Return the parameters that validation selected for one seed, and the record of the selection.

    Args:
      model: the model.
      folder: the folder of the seed.

    Raises:
      UserError: a file is missing or damaged, or the parameters are not those of the record.
    """
    layout = RunLayout(folder)
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    carry = jax.eval_shape(model.start, shapes)
    params = checkpoint.load_model(layout.model, {"params": shapes, "carry": carry})["params"]
    stored = read_json(layout.record, RUN_KEYS)["selection"]
    try:
        selection = Selection.of(params, stored["metric"], stored["value"], stored["epoch"])
    except (TypeError, KeyError):
        raise UserError(f"{layout.record}: damaged; its selection should have a metric, a value and an epoch") from None
    if stored.get("params_sha256", selection.params_sha256) != selection.params_sha256:  # missing in older runs
        raise UserError(f"{layout.model}: these are not the parameters that {layout.record} says validation chose")
    return params, selection
