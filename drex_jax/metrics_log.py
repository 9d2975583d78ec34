"""`metrics.jsonl`: one line a step, each step once, in order, however often the run was resumed."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import orjson


class MetricsLog:
    """Appends to `metrics.jsonl`, and to TensorBoard where asked."""

    def __init__(self, path: pathlib.Path, step: int, *, tensorboard: bool = False):
        """Drops what was logged after `step`: it will be logged again."""
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = []
        if path.exists():
            for line in path.read_bytes().splitlines(keepends=True):
                try:
                    if line.endswith(b"\n") and orjson.loads(line)["step"] <= step:
                        kept.append(line)
                except (orjson.JSONDecodeError, KeyError, TypeError):
                    break  # a line torn by a crash, and nothing useful after it
        path.write_bytes(b"".join(kept))
        self._file = path.open("a")
        self._board: Any = None
        if tensorboard:
            from tensorboardX import SummaryWriter

            self._board = SummaryWriter(str(path.parent / "tensorboard"))

    def write(self, last: int, epoch: int, losses: list[dict[str, float]], validation: dict[str, float]) -> None:
        """The losses of consecutive steps up to `last`, and the validation that followed the last of them."""
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
        """Closes the files."""
        self._file.close()
        if self._board is not None:
            self._board.close()
