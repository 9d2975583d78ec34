"""Import PyTorch, which is not a dependency: only the tools that compare with it use it."""

from __future__ import annotations

import importlib
from typing import Any

from drex_jax.common.errors import UserError


def load() -> Any:
    """Import and return the module torch.

    Raises:
      UserError: PyTorch is not installed.
    """
    try:
        return importlib.import_module("torch")
    except ImportError:
        raise UserError("a comparison with PyTorch needs it, and it is not installed: pip install torch") from None
