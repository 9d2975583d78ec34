"""The parameters that validation chose for one seed, read back and checked."""

from __future__ import annotations

import pathlib

import jax

from drex_jax.common.errors import UserError
from drex_jax.common.files import read_json
from drex_jax.models.protocol import Model, Params
from drex_jax.runs import checkpoint
from drex_jax.runs.layout import MODEL, RUN, RUN_KEYS
from drex_jax.runs.selection import Selection


def load_trained(model: Model, folder: pathlib.Path) -> tuple[Params, Selection]:
    """The parameters that validation chose for the seed whose folder it is, and the record of that.

    Raises:
      UserError: they are missing or damaged, or not of each other.
    """
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    carry = jax.eval_shape(model.start, shapes)
    params = checkpoint.load_model(folder / MODEL, {"params": shapes, "carry": carry})["params"]
    stored = read_json(folder / RUN, RUN_KEYS)["selection"]
    try:
        selection = Selection.of(params, stored["metric"], stored["value"], stored["epoch"])
    except (TypeError, KeyError):
        raise UserError(f"{folder / RUN}: damaged; its selection should have a metric, a value and an epoch") from None
    if stored.get("params_sha256", selection.params_sha256) != selection.params_sha256:  # older runs do not have it
        raise UserError(f"{folder / MODEL}: these are not the parameters that {folder / RUN} says validation chose")
    return params, selection
