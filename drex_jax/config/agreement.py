"""Which settings may differ between the commands of one run."""

from __future__ import annotations

import hashlib
import json
import pathlib
from typing import Any

from drex_jax.common.errors import UserError

MAY_CHANGE = (  # while a run trains; `train.epochs` only where the learning rate does not decay
    "train.epochs",
    "train.checkpoint_seconds",
    "train.checkpoint_steps",
    "train.tensorboard",
)
IGNORED = (  # they do not change what a run computes
    "devices.",  # except for rounding
    "tune.",  # read by searches alone
    "data.cache_dir",
)

Fields = dict[str, Any]


def differences(stored: Fields, given: Fields) -> list[str]:
    """One `field: stored value, now given value` for every field in which two configurations differ.

    Fields in `IGNORED` may differ: a run may go on on other devices.

    Args:
      stored: every field by its dotted name.
      given: likewise.
    """
    names = sorted(name for name in stored | given if not name.startswith(IGNORED))
    return [
        f"{name}: {stored.get(name)!r}, now {given.get(name)!r}"
        for name in names
        if stored.get(name) != given.get(name)
    ]


def sha256(fields: Fields) -> str:
    """The fingerprint of everything that decides what a run computes: equal settings on equal data have equal results.

    Left out are `IGNORED`; what only says when a run saves and what it shows; and where the data are (results.json
    has their own digest).
    """
    aside = {*MAY_CHANGE, "data.path", "data.tfds_dir"} - {"train.epochs"}
    kept = {name: value for name, value in fields.items() if not name.startswith(IGNORED) and name not in aside}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def require_agreement(stored: Fields, given: Fields, workdir: pathlib.Path, *, goes_on: bool = False) -> None:
    """Refuses a run directory that was made with another configuration.

    Args:
      stored: the fields it was made with.
      given: the fields asked for now.
      workdir: the directory.
      goes_on: training continues, no model is finished and no trial has begun: fields in `MAY_CHANGE` may differ.

    Raises:
      UserError: other fields differ; the message shows each with both values.
    """
    may = MAY_CHANGE if goes_on else ()
    if "train.epochs" in may and given["train.decay"] != "none":  # a decay runs over all epochs
        may = tuple(name for name in may if name != "train.epochs")
    changed = [line for line in differences(stored, given) if line.partition(":")[0] not in may]
    if changed:
        allowed = f" (until the first model is finished these may change: {' '.join(may)})" if may else ""
        raise UserError(
            f"{workdir} holds a run with another configuration ({'; '.join(changed)}); "
            f"give another --workdir, or the configuration it was made with{allowed}"
        )
