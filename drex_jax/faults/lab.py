"""Processes to injure: commands on small runs, forked where everything is imported, and what they must leave."""

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
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from drex_jax import checkpoint, config, main
from drex_jax.checkpoint import Checkpoints

STEPS = 12
TOUCH = ("open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.link", "os.truncate", "shutil.rmtree")
Prepare = Callable[[], object]


class Ended(NamedTuple):
    """How a process ended: its exit status, negative by a signal, and what it said on stderr."""

    status: int
    err: str

    def told(self, *words: str) -> bool:
        """Whether it said one line of the command's own, with these words, and no traceback."""
        own = [line for line in self.err.splitlines() if line.startswith("drex_jax: ")]
        return len(own) == 1 and all(word in own[0] for word in words) and "Traceback" not in self.err


class Lab:
    """Where trials are made.

    Attributes:
      draw: random numbers.
      saved: of an undisturbed run: the digest saved at each step.
      end: what it left.
      keep: run directories that `clear` leaves.
      events: how often it touched its directory, and its checkpoints.
    """

    def __init__(self, folder: pathlib.Path, seed: int):
        self.folder, self.draw = folder, random.Random(seed)
        self.keep: list[pathlib.Path] = []
        self._numbers = itertools.count()
        jax.config.update("jax_platforms", "cpu")
        jax.config.update("jax_compilation_cache_dir", str(folder / "programs"))  # for all trials
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
        for name in ("drex", "popularity"):
            self._experiment(name)
        for name in ("old", "new"):
            rows = [{"user": f"{name}{n}", "item": f"item{n}", "timestamp": 2e9 + n} for n in range(40)]
            (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def _experiment(self, name: str) -> None:
        settings: Any = config.base()
        settings.data.synthetic.update(num_interactions=300, num_users=20, num_items=15, seed=1)
        settings.data.cache_dir = str(self.folder / "cache")
        settings.text.enabled = False
        settings.baselines = ()
        settings.devices.update(count=1, mapping="none")
        settings.evaluate.cutoffs = (5,)
        settings.train.update(epochs=4, patience=4, bptt_windows=3, checkpoint_steps=1)
        settings.model.name = name
        if name == "drex":
            settings.evaluate.ranking = False
            settings.model.update(state_size=4, feature_size=4, negatives=3)
        else:
            settings.train.selection = "ndcg@5"
        (self.folder / f"{name}.json").write_text(config.to_json(settings))
        text = (
            "import pathlib\nfrom drex_jax.config import from_json\n\n\ndef get_config():\n"
            f"    return from_json(pathlib.Path({str(self.folder / name)!r} + '.json'))\n"
        )
        (self.folder / f"{name}.py").write_text(text)

    def place(self) -> pathlib.Path:
        """A run directory that is not yet there."""
        return self.folder / "runs" / str(next(self._numbers))

    def clear(self) -> None:
        """Removes the run directories of trials that have ended."""
        for each in (self.folder / "runs").iterdir():
            if each not in self.keep:
                shutil.rmtree(each)

    def start(self, work: Callable[[], int], prepare: Prepare = lambda: None) -> tuple[int, int]:
        """A process that does `work`, forked before JAX has begun; `wait` for it."""
        sys.stdout.flush()
        here, there = os.pipe()  # a file would be subject to limits on files
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # JAX warns of forks: it has no thread yet
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
        """How a process ends."""
        with os.fdopen(started[1], errors="replace") as stderr:
            err = stderr.read()
        _, status = os.waitpid(started[0], 0)
        return Ended(os.waitstatus_to_exitcode(status), err)

    def run(self, work: Callable[[], int], prepare: Prepare = lambda: None) -> Ended:
        """The same, waited for."""
        return self.wait(self.start(work, prepare))

    def train(self, workdir: pathlib.Path, name: str = "drex") -> Callable[[], int]:
        """The command that trains."""
        return command(f"--config={self.folder / name}.py", f"--workdir={workdir}")

    def undisturbed(self) -> None:
        """Makes what disturbed runs are held against."""
        workdir, log = self.place(), self.folder / "saved"
        events = [multiprocessing.Value("i", 0) for _ in range(2)]

        def prepare() -> None:
            for counted, part in zip(events, ("", "checkpoints"), strict=True):
                watch(workdir, part, lambda _, counted=counted: setattr(counted, "value", counted.value + 1))
            save = Checkpoints.save

            def noted(self: Checkpoints, step: int, arrays: Any, facts: Any) -> None:
                save(self, step, arrays, facts)
                note(log, step, arrays)

            Checkpoints.save = noted

        self.require(self.run(self.train(workdir)), 0)  # compiles
        shutil.rmtree(workdir)
        self.require(self.run(self.train(workdir), prepare), 0)
        self.saved = dict(json.loads(line) for line in log.read_text().splitlines())
        self.events = [counted.value for counted in events]
        self.end, self.base = what_is_left(workdir), workdir
        self.keep.append(workdir)
        assert len(self.saved) == STEPS

    def require(self, ended: Ended, status: int) -> None:
        """Raises RuntimeError where a process ended otherwise."""
        if ended.status != status:
            raise RuntimeError(f"exit status {ended.status} and not {status}: {ended.err[-2000:]}")

    def resumed(self, workdir: pathlib.Path) -> str:
        """Gives the command again; what is lost, or nothing."""
        log = self.folder / "restored"
        log.unlink(missing_ok=True)
        there = sorted(int(each.name) for each in workdir.glob("checkpoints/*") if each.name.isdigit())

        def prepare() -> None:
            restore = Checkpoints.restore

            def noted(self: Checkpoints, like: Any) -> Any:
                found = restore(self, like)
                if found is not None:
                    note(log, found[0], found[1])
                return found

            Checkpoints.restore = noted

        finished = (workdir / "run.json").exists()
        ended = self.run(self.train(workdir), prepare)
        if ended.status != 0:
            return f"the same command ended with {ended.status}: {ended.err[-600:]}"
        restored = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
        if not finished and [step for step, _ in restored] != there[-1:]:
            return f"committed steps {there}, went on from {restored}: {ended.err[-600:]}"
        if any(self.saved.get(step) != digest for step, digest in restored):
            return f"what was restored was never saved: {restored}"
        return "" if what_is_left(workdir) == self.end else "the end is another one"


def command(*arguments: str) -> Callable[[], int]:
    """A command of the package."""
    return lambda: main.run(["main", *arguments])


def note(log: pathlib.Path, step: int, arrays: Any) -> None:
    """Adds a step and the digest of its arrays to a file."""
    digest = checkpoint._digest(checkpoint._values(checkpoint._without_empty(arrays)))
    with log.open("a") as file:
        file.write(json.dumps([step, digest]) + "\n")


def watch(workdir: pathlib.Path, part: str, seen: Callable[[int], object]) -> None:
    """Calls `seen` with a number, from 1, whenever a file of the directory is touched whose path contains `part`."""
    numbers, folder = itertools.count(1), str(workdir.resolve())

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in TOUCH and arguments and folder in (path := str(arguments[0])) and part in path:
            seen(next(numbers))

    sys.addaudithook(hook)


def signalled(workdir: pathlib.Path, at: int, part: str, number: signal.Signals, delay: float) -> Prepare:
    """A process that gets a signal so long after the touch number `at`."""

    def seen(count: int) -> None:
        if count == at and delay:
            threading.Timer(delay, os.kill, (os.getpid(), number)).start()
        elif count == at:
            os.kill(os.getpid(), number)

    return lambda: watch(workdir, part, seen)


def what_is_left(workdir: pathlib.Path) -> Any:
    """Of a finished run: the digest of its last checkpoint, its log and its test figures."""
    facts = json.loads((workdir / "checkpoints" / str(STEPS) / "facts" / "metadata").read_text())
    results = json.loads((workdir / "results.json").read_text())
    kept = {name: results[name] for name in ("test", "per_seed", "selection", "split", "dataset", "leaks")}
    return facts["sha256"]["arrays"], (workdir / "metrics.jsonl").read_bytes(), kept
