"""What a command does before its work: logging, and the other processes of its run."""

from __future__ import annotations

import logging

from drex_jax.training.settings import Settings


def set_up_logging() -> None:
    """Send the messages of this package to standard error."""
    logging.basicConfig(format="%(message)s")
    logging.getLogger("drex_jax").setLevel(logging.INFO)
    logging.getLogger("absl").setLevel(logging.CRITICAL)  # Orbax logs each error's traceback before it raises the error


def join_processes(settings: Settings) -> None:
    """Join the processes of a run, if its settings ask for several; only the first one logs progress.

    Raises:
      UserError: they cannot be joined.
    """
    from drex_jax.devices import processes  # imports JAX: a mistake in the flags is answered at once

    processes.connect(settings.devices.distributed)
    if not processes.is_main_process():
        logging.getLogger("drex_jax").setLevel(logging.WARNING)
