"""The only file that knows devices."""

from __future__ import annotations

from typing import Any

import jax

from drex_jax.errors import UserError


def open_devices(mapping: str) -> list[Any]:
    """The devices of this run.

    Raises:
      UserError: a mapping that is not there yet.
    """
    if mapping == "pmap":
        raise UserError("devices.mapping=pmap is not available in this version; use shard_map or none")
    devices = jax.devices()
    return devices[:1] if mapping == "none" else devices
