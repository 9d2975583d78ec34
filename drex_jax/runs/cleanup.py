"""The clean-up of a run directory after a start that failed before training."""

from __future__ import annotations

import contextlib
import pathlib
import shutil
from collections.abc import Generator

from drex_jax.common.errors import UserError
from drex_jax.devices import processes
from drex_jax.runs.layout import RunLayout


@contextlib.contextmanager
def cleanup_on_user_error(workdir: pathlib.Path) -> Generator[None]:
    """If the first command of a run fails on a user error before it trains, remove the files that it made.

    The corrected command can then use the same directory. Files that were there before stay, and so does the list of
    rejected rows (`quarantine.jsonl`).
    """
    layout = RunLayout(workdir)
    is_first = processes.is_main_process() and not layout.config.exists()
    made = [path for path in layout.made_before_training() if not path.exists()]
    try:
        yield
    except UserError:
        if is_first and not layout.has_finished_model() and not layout.has_checkpoint():
            for path in made:
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
        raise
