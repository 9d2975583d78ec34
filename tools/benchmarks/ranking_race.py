"""Run implementations side by side, each in its own process; their epochs alternate, one at a time."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

# Import light modules only: a worker's peak memory includes what this process holds when it starts the worker.
from drex_jax.common.errors import UserError

OURS = "ours"
PAUSE = 0.3  # seconds before an epoch: idle threads of the previous process still spin for a while


class BrokenError(Exception):
    """Raised when a worker ends without an answer; the message says how."""


@dataclasses.dataclass
class Row:
    """The result of one implementation of one task.

    Attributes:
      data: the data set's name.
      items: number of items of the data set.
      task: `train` or `evaluate`.
      model: name of the model that is trained; empty for `evaluate`.
      implementation: `ours`, or a layout of the peer (`evaluate`: `dense`).
      seconds: seconds of each counted epoch or evaluation, or seconds an update where only a part of an epoch is run.
      ratio: the median divided by the median of ours; None where ours was not measured.
      failed: how the implementation failed; empty if it did not.
      facts: facts that the worker reports: `framework threads device base_bytes start_seconds`, its peak memory
        `peak_bytes`, and `begin_seconds`, the time of our last epoch before its first update.
    """

    data: str
    items: int
    task: str
    model: str
    implementation: str
    seconds: list[float] = dataclasses.field(default_factory=list)
    ratio: float | None = None
    failed: str = ""
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def median(self) -> float:
        """Return the median of the seconds; NaN if there are none."""
        return float(np.median(self.seconds)) if self.seconds else float("nan")

    @property
    def own_bytes(self) -> int:
        """Return the peak memory above that of the framework alone, in bytes; 0 if the worker failed."""
        return self.facts.get("peak_bytes", 0) - self.facts.get("base_bytes", 0)


class Worker:
    """A process of `tools.benchmarks.ranking_worker`, ready to run.

    Raises:
      UserError: the worker answers that its job is a mistake.
      BrokenError: the process ended.
    """

    def __init__(self, **job: Any) -> None:
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed in `close`)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tools.benchmarks.ranking_worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        try:
            self.facts = self._ask(job)
        except BaseException:
            self.close()
            raise

    def run(self, updates: int | None = None) -> float:
        """Return the seconds of an epoch or evaluation; for ours with `updates`, the seconds an update."""
        answer = self._ask(updates)
        self.facts["peak_bytes"] = answer["peak_bytes"]
        self.facts["begin_seconds"] = answer.get("begin_seconds")
        if updates is None or "updates" not in answer:
            return answer["seconds"]
        return (answer["seconds"] - answer["begin_seconds"]) / answer["updates"]

    def close(self) -> None:
        """End the process."""
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
        self._process.kill()
        self._process.wait()
        self._errors.close()

    def _ask(self, question: Any) -> dict[str, Any]:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        try:
            print(json.dumps(question), file=stdin, flush=True)
            line = stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            status = self._process.wait()
            self._errors.seek(0)
            last = self._errors.read().strip().rpartition("\n")[2]
            raise BrokenError(f"ended by signal {-status}" if status < 0 else last or f"ended with status {status}")
        answer = json.loads(line)
        if "error" in answer:
            raise UserError(answer["error"])
        return answer


def race(
    jobs: Sequence[dict[str, Any]],
    row: Callable[..., Row],
    repeats: int,
    warm_up: int | None = None,
    updates: int | None = None,
) -> list[Row]:
    """Run jobs side by side; their epochs alternate, one at a time.

    Args:
      jobs: the job of each worker.
      row: makes an empty row for an implementation.
      repeats: number of counted epochs of each worker.
      warm_up: number of updates before the counted epochs; None: a whole epoch.
      updates: number of updates of an epoch that are run and counted; None: all.

    Raises:
      UserError: a job is a mistake.
    """
    rows = [row(implementation=job["implementation"]) for job in jobs]
    workers: dict[int, Worker] = {}

    def attempt(number: int, action: Callable[[], object]) -> None:
        try:
            action()
        except BrokenError as broken:
            rows[number].failed = str(broken)
            if number in workers:
                workers.pop(number).close()

    def start(number: int) -> None:
        workers[number] = Worker(**jobs[number])
        rows[number].facts = workers[number].facts
        workers[number].run(warm_up)

    def epoch(number: int) -> None:
        time.sleep(PAUSE)
        rows[number].seconds.append(workers[number].run(updates))

    try:
        for number in range(len(jobs)):
            attempt(number, lambda number=number: start(number))
        for _ in range(repeats):
            for number in list(workers):
                attempt(number, lambda number=number: epoch(number))
    finally:
        for worker in workers.values():
            worker.close()
    ours = next((each.median for each in rows if each.implementation == OURS and not each.failed), None)
    for each in rows:
        each.ratio = each.median / ours if ours and each.seconds else None
    return rows
