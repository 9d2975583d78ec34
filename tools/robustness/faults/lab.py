"""Run commands on small runs in forked processes, disturb them by faults, and check what they leave."""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import pathlib
import random
import shutil
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax

from drex_jax import main
from drex_jax.config.tree import to_json
from drex_jax.runs.checkpoint import DIGEST, Checkpoints, digest_of
from drex_jax.training.settings import settings_of
from tools.robustness.faults import small

TOUCH = ("open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.link", "os.truncate", "shutil.rmtree")
PARTS = ("", "checkpoints")  # parts of a run directory in which touches are counted
Prepare = Callable[[], object]


class Ended(NamedTuple):
    """The end of a process: its exit status (negative for a signal) and its stderr."""

    status: int
    err: str

    def told(self, *words: str) -> bool:
        """Return True if stderr has exactly one line of the command, with these words, and no traceback."""
        own = [line for line in self.err.splitlines() if line.startswith("drex_jax: ")]
        return len(own) == 1 and all(word in own[0] for word in words) and "Traceback" not in self.err


class Undisturbed(NamedTuple):
    """An undisturbed run of a model, the reference for disturbed ones.

    Attributes:
      model: the model's name.
      folder: the run directory.
      saved: digest of each saved checkpoint, by (path of the checkpoints in the run directory, step).
      touches: number of touches of files in each of `PARTS`.
    """

    model: str
    folder: pathlib.Path
    saved: dict[tuple[str, int], str]
    touches: dict[str, int]


class Lab:
    """The folder of all trials, with their runs, their data and the reference runs.

    Attributes:
      draw: the generator of random numbers.
      keep: run directories that `clear` does not remove.
    """

    def __init__(self, folder: pathlib.Path, seed: int, models: Sequence[str]):
        self.folder, self.draw = folder.resolve(), random.Random(seed)
        self.keep: list[pathlib.Path] = []
        self._numbers, self._turns = itertools.count(), itertools.cycle(models)
        self._undisturbed: dict[str, Undisturbed] = {}
        os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_llvm_disable_expensive_passes=true"
        jax.config.update("jax_platforms", "cpu")
        jax.config.update("jax_compilation_cache_dir", str(folder / "programs"))  # shared by all trials
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
        small.write_ranking_data(folder / "data")
        for name in ("popularity", *models):
            settings: Any = small.settings(name, folder / "data")
            settings.data.cache_dir = str(folder / "cache")
            (folder / f"{name}.json").write_text(to_json(settings_of(settings)))
            (folder / f"{name}.py").write_text(
                "import pathlib\nfrom drex_jax.config.tree import read_json_into\n"
                "from drex_jax.training.settings import Settings, base\n\n\ndef get_config():\n"
                "    return read_json_into(base(), Settings, pathlib.Path(__file__).with_suffix('.json'))\n"
            )
        for name in ("old", "new"):
            rows = [{"user": f"{name}{n}", "item": f"item{n}", "timestamp": 2e9 + n} for n in range(40)]
            (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def place(self) -> pathlib.Path:
        """Return the path of a new run directory."""
        return self.folder / "runs" / str(next(self._numbers))

    def clear(self) -> None:
        """Remove the run directories of trials that have ended."""
        for each in (self.folder / "runs").iterdir():
            if each not in self.keep:
                shutil.rmtree(each)

    def start(self, work: Callable[[], int], prepare: Prepare = lambda: None) -> tuple[int, int]:
        """Fork a process that runs `prepare` and `work`; `wait` takes the result. JAX must have no thread yet."""
        sys.stdout.flush()
        here, there = os.pipe()  # a pipe, because limits on file sizes would apply to a file
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # JAX warns about forks, but it has no thread yet
            pid = os.fork()
        if pid:
            os.close(there)
            return pid, here
        status = 1
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            os.dup2(there, 2)
            os.close(there)
            prepare()
            status = work()
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)

    def wait(self, started: tuple[int, int]) -> Ended:
        """Wait for a process and return how it ended."""
        with os.fdopen(started[1], errors="replace") as stderr:
            err = stderr.read()
        _, status = os.waitpid(started[0], 0)
        return Ended(os.waitstatus_to_exitcode(status), err)

    def run(self, work: Callable[[], int], prepare: Prepare = lambda: None) -> Ended:
        """Start a process and wait for it."""
        return self.wait(self.start(work, prepare))

    def train(self, workdir: pathlib.Path, model: str) -> Callable[[], int]:
        """Return a function that runs the command that trains."""
        return command(f"--config={self.folder / model}.py", f"--workdir={workdir}")

    def next(self) -> Undisturbed:
        """Return the undisturbed run of the next model in turn."""
        model = next(self._turns)
        if model not in self._undisturbed:
            self._undisturbed[model] = self._leave_alone(model)
        return self._undisturbed[model]

    def _leave_alone(self, model: str) -> Undisturbed:
        workdir, log = self.place(), self.folder / "saved"
        log.unlink(missing_ok=True)
        touches = {part: multiprocessing.Value("i", 0) for part in PARTS}

        def prepare() -> None:
            for part, counted in touches.items():
                watch(workdir, part, lambda _, counted=counted: setattr(counted, "value", counted.value + 1))
            save = Checkpoints.save

            def noted(self: Checkpoints, step: int, arrays: Any, facts: Any) -> None:
                save(self, step, arrays, facts)
                note(log, self, step, step, arrays)

            Checkpoints.save = noted

        self.require(self.run(self.train(workdir, model), prepare), 0)
        self.keep.append(workdir)
        saved = {(str(there.relative_to(workdir)), step): digest for there, _, step, digest in noted_in(log)}
        return Undisturbed(model, workdir, saved, {part: counted.value for part, counted in touches.items()})

    def require(self, ended: Ended, status: int) -> None:
        """Raise RuntimeError unless a process ended with this exit status."""
        if ended.status != status:
            raise RuntimeError(f"exit status {ended.status} and not {status}: {ended.err[-2000:]}")

    def resumed(self, workdir: pathlib.Path, alone: Undisturbed) -> str:
        """Run the command again. Return what was lost, or an empty string."""
        log = self.folder / "restored"
        log.unlink(missing_ok=True)

        def prepare() -> None:
            restore = Checkpoints.restore

            def noted(self: Checkpoints, like: Any) -> Any:
                newest = max((int(each.name) for each in self.folder.iterdir() if each.name.isdigit()), default=0)
                found = restore(self, like)
                step, arrays = found[:2] if found is not None else (0, {})
                note(log, self, newest, step, arrays)
                return found

            Checkpoints.restore = noted

        ended = self.run(self.train(workdir, alone.model), prepare)
        if ended.status != 0:
            return f"the same command ended with {ended.status}: {ended.err[-600:]}"
        for folder, newest, step, digest in noted_in(log):
            place = str(folder.relative_to(workdir))
            if step != newest:
                return f"{place}: went on from {step}, though {newest} was committed: {ended.err[-600:]}"
            if step and alone.saved.get((place, step), digest) != digest:  # only a stop saves other steps
                return f"{place}: step {step} was never saved so"
        return other_end(workdir, alone)


def command(*arguments: str) -> Callable[[], int]:
    """Return a function that runs a command of the package."""
    return lambda: main.run(["main", *arguments])


def note(log: pathlib.Path, checkpoints: Checkpoints, newest: int, step: int, arrays: Any) -> None:
    """Append a line to a file: checkpoint folder, newest step, step that was saved or restored, and its digest."""
    with log.open("a") as file:
        file.write(json.dumps([str(checkpoints.folder), newest, step, digest_of(arrays)]) + "\n")


def noted_in(log: pathlib.Path) -> list[tuple[pathlib.Path, int, int, str]]:
    """Return the lines that `note` wrote."""
    lines = log.read_text().splitlines() if log.exists() else []
    return [(pathlib.Path(folder), *rest) for folder, *rest in map(json.loads, lines)]


def watch(workdir: pathlib.Path, part: str, seen: Callable[[int], object]) -> None:
    """Call `seen` with 1, 2, ... whenever a file of the directory is touched whose path contains `part`."""
    numbers, folder = itertools.count(1), str(workdir)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in TOUCH and arguments and folder in (path := str(arguments[0])) and part in path:
            seen(next(numbers))

    sys.addaudithook(hook)


def signalled(workdir: pathlib.Path, at: int, part: str, number: signal.Signals, delay: float) -> Prepare:
    """Return a preparation that sends the process a signal, `delay` seconds after touch number `at`."""

    def seen(count: int) -> None:
        if count == at and delay:
            threading.Timer(delay, os.kill, (os.getpid(), number)).start()
        elif count == at:
            os.kill(os.getpid(), number)

    return lambda: watch(workdir, part, seen)


def other_end(workdir: pathlib.Path, alone: Undisturbed) -> str:
    """Return the differences of a finished run from the undisturbed one; an empty string if there are none."""
    found, expected = what_is_left(workdir), what_is_left(alone.folder)
    return " ".join(f"{name} ends otherwise" for name in found | expected if found.get(name) != expected.get(name))


def what_is_left(workdir: pathlib.Path) -> dict[str, Any]:
    """Return a finished run's last checkpoints (as digests), its logs, and its results without times."""
    left: dict[str, Any] = {}
    for folder in workdir.rglob("checkpoints"):
        newest = max(int(each.name) for each in folder.iterdir() if each.name.isdigit())
        content = json.loads((folder / str(newest) / "facts" / "metadata").read_text())
        facts = content["facts"] | {"seconds": None}
        left[str(folder.relative_to(workdir))] = newest, content[DIGEST]["arrays"], facts
    for log in workdir.rglob("metrics.jsonl"):
        left[str(log.relative_to(workdir))] = log.read_bytes()
    results = json.loads((workdir / "results.json").read_text())
    return left | {"results.json": results | {"timing": None}}
