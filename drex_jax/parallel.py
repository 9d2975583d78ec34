"""The only file that knows devices."""

from __future__ import annotations

import os
import pathlib
from typing import Any

import jax


def open_device(cache: str | None = None) -> Any:
    """The device of this run (the first), with compiled programs kept on disk between runs.

    Args:
      cache: the folder for compiled programs; None: `drex_jax` in the user's cache folder.
    """
    folder = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache", "drex_jax")
    if jax.config.values["jax_compilation_cache_dir"] is None:
        jax.config.update("jax_compilation_cache_dir", cache or str(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    return jax.devices()[0]
