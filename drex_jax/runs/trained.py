"""Loading the parameters that validation selected for one seed."""

from __future__ import annotations

import pathlib

import jax

from drex_jax.common.errors import UserError
from drex_jax.common.files import read_json
from drex_jax.models.protocol import Params, Stream
from drex_jax.runs import checkpoint
from drex_jax.runs.layout import RUN_KEYS, RunLayout
from drex_jax.runs.selection import Selection


def load_trained(stream: Stream, folder: pathlib.Path) -> tuple[Params, Selection]:
    """Return the parameters that validation selected for one seed, and the record of the selection.

    Args:
      stream: the stream of the model.
      folder: the folder of the seed.

    Raises:
      UserError: a file is missing or damaged, or the parameters are not those of the record.
    """
    layout = RunLayout(folder)
    shapes = jax.eval_shape(stream.init, jax.random.key(0))
    states = jax.eval_shape(stream.start, shapes)
    params = checkpoint.load_model(layout.model, {"params": shapes, "states": states})["params"]
    stored = read_json(layout.record, RUN_KEYS)["selection"]
    try:
        selection = Selection.of(params, stored["metric"], stored["value"], stored["epoch"])
    except (TypeError, KeyError):
        raise UserError(f"{layout.record}: damaged; its selection should have a metric, a value and an epoch") from None
    if stored.get("params_sha256", selection.params_sha256) != selection.params_sha256:  # missing in older runs
        raise UserError(f"{layout.model}: these are not the parameters that {layout.record} says validation chose")
    return params, selection
