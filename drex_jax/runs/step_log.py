"""The log of training steps, `metrics.jsonl`: one line for each step, in order, also after restarts."""

from __future__ import annotations

import importlib
import json
import logging
import os
import pathlib
from typing import Any

import orjson

from drex_jax.common.errors import UserError
from drex_jax.common.files import write_text
from drex_jax.devices import processes
from drex_jax.runs.layout import RunLayout

LOGGER = logging.getLogger(__name__)


class MetricsLog:
    """Appends to `metrics.jsonl`, and to TensorBoard if asked. A context manager: leaving it closes the files."""

    def __init__(self, path: pathlib.Path, step: int, *, tensorboard: bool = False):
        """Open the log, and drop the lines after `step`, which will be logged again. Only the first process logs.

        Args:
          path: the file.
          step: the last step of the checkpoint that training continues from.
          tensorboard: true also writes files for TensorBoard.

        Raises:
          UserError: `path` is not a file, or the package `tensorboardX` is not installed.
        """
        if not processes.is_main_process():
            nowhere = pathlib.Path(os.devnull)
            self._board = None
            self._file = nowhere.open("a")
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        kept: dict[int, bytes] = {}
        if path.exists() and not path.is_file():
            raise UserError(f"{path}: is no file; remove it, the run logs its steps there")
        if path.exists():
            for line in path.read_bytes().splitlines(keepends=True):
                try:
                    if line.endswith(b"\n") and 0 < (logged := orjson.loads(line)["step"]) <= step:
                        kept.setdefault(logged, line)
                except (orjson.JSONDecodeError, KeyError, TypeError):
                    continue  # incomplete after a crash, or damaged
        if len(kept) < step:
            LOGGER.warning("%s: the lines of %d of %d steps are damaged or gone", path, step - len(kept), step)
        self._board = _tensorboard(RunLayout(path.parent).tensorboard, step) if tensorboard else None
        write_text(path, b"".join(kept[number] for number in sorted(kept)).decode())
        self._file = path.open("a")

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write(self, last: int, epoch: int, losses: list[dict[str, float]], validation: dict[str, float]) -> None:
        """Log the losses of consecutive steps up to `last`, and the validation metrics after the last one."""
        for step, values in enumerate(losses, last - len(losses) + 1):
            line: dict[str, Any] = {"step": step, "epoch": epoch, **values}
            if validation and step == last:
                line["validation"] = validation
            self._file.write(json.dumps(line) + "\n")
            if self._board is not None:
                for name, value in [*values.items(), *(line.get("validation") or {}).items()]:
                    self._board.add_scalar(name, value, step)
        self._file.flush()

    def close(self) -> None:
        """Close the files."""
        self._file.close()
        if self._board is not None:
            self._board.close()


def _tensorboard(folder: pathlib.Path, step: int) -> Any:
    """Return a writer for TensorBoard that hides what was written after `step`."""
    try:
        board = importlib.import_module("tensorboardX")
    except ImportError:
        raise UserError(
            "train.tensorboard=true needs the package tensorboardX: pip install -e '.[tensorboard]'"
        ) from None
    return board.SummaryWriter(str(folder), purge_step=step + 1)
