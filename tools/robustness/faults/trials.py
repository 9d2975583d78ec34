"""Define the faults, and the promise that each of them tests.

A trial returns a description of what was lost, "" if nothing was lost, and None if the fault came too late.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import multiprocessing
import os
import pathlib
import random
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Generator
from typing import Any, NamedTuple

from drex_jax.runs.checkpoint import Checkpoints, digest_of
from drex_jax.runs.layout import RunLayout
from drex_jax.serving.finished_run import open_run
from tools.robustness.faults.lab import (
    Ended,
    Lab,
    Prepare,
    Undisturbed,
    command,
    other_end,
    signalled,
    watch,
)

NOBODY = 65534  # uid of a user without write access to our files
CHUNK = 15  # number of trials of `damage` in one process, on one model
TRIALS = {  # number of trials in the full suite
    "kill": 20,
    "save": 20,
    "stop": 10,
    "full": 10,
    "tmpfs": 5,
    "damage": 150,
    "update": 30,
    "report": 10,
    "two": 5,
    "clock": 5,
    "rights": 4,
    "readonly": 4,
}
PROMISES = {
    "kill": ("SIGKILL in training", "the last committed step loads; the end is bitwise the same"),
    "save": ("SIGKILL during an asynchronous save", "the last committed step loads; the end is bitwise the same"),
    "stop": ("SIGTERM or SIGINT at any point", "exit 75; the same command ends bitwise the same"),
    "full": ("a full disk (RLIMIT_FSIZE)", "exit 2 in one line; old checkpoints intact; then bitwise the same"),
    "tmpfs": ("a full disk (a small tmpfs)", "exit 2 in one line; old checkpoints intact; then bitwise the same"),
    "damage": ("newest checkpoint truncated, flipped, emptied", "said in one line; the step before is used"),
    "update": ("SIGKILL in `update`", "the run is as before or as after, by SHA-256; again: as after"),
    "report": ("SIGKILL in report writing", "the report is the old one or whole; again: whole"),
    "two": ("two processes on one run directory", "the second exits 2 in one line; the first is not disturbed"),
    "clock": ("the clock jumps by years at every look, and SIGKILL", "the end is bitwise the same"),
    "rights": ("a user without the right to write", "exit 2 in one line; nothing is changed"),
    "readonly": ("a read-only file system", "exit 2 in one line; nothing is changed"),
}


class MountsRefusedError(Exception):
    """Raised when mounts are not allowed here, so that these trials are impossible."""


@contextlib.contextmanager
def mounted(folder: pathlib.Path, *arguments: str) -> Generator[None]:
    """Mount a file system over a folder, for the duration of the block.

    Raises:
      MountsRefusedError: the mount is not allowed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        mount(*arguments, str(folder))
    except (OSError, subprocess.CalledProcessError):
        raise MountsRefusedError from None
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)  # noqa: S607


def mount(*arguments: str) -> None:
    """Run `mount`. Raises CalledProcessError or OSError if it is not allowed."""
    subprocess.run(["mount", *arguments], check=True, capture_output=True)  # noqa: S607


def killed(lab: Lab, part: str, numbers: tuple[signal.Signals, ...], status: int) -> str | None:
    """Send a signal at a random point of training, and run the same command again."""
    alone, workdir = lab.next(), lab.place()
    at = lab.draw.randint(1, alone.touches[part])
    prepare = signalled(workdir, at, part, lab.draw.choice(numbers), lab.draw.choice((0.0, lab.draw.random() * 0.02)))
    ended = lab.run(lab.train(workdir, alone.model), prepare)
    if ended.status == 0:
        return None
    if ended.status != status or (status > 0 and not ended.told("stopped by")):
        return f"{alone.model} ended with {ended.status}: {ended.err[-900:]}"
    return lab.resumed(workdir, alone)


def full(lab: Lab) -> str | None:
    """Limit the size of files from a random touch on, and run the same command again."""
    alone, workdir = lab.next(), lab.place()
    sizes = [each.stat().st_size for each in alone.folder.rglob("*") if each.is_file()]
    room, at = lab.draw.randint(1, max(sizes)), lab.draw.randint(1, alone.touches[""])

    def seen(count: int) -> None:
        if count == at:
            resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))

    ended = lab.run(lab.train(workdir, alone.model), lambda: watch(workdir, "", seen))
    return _without_room(lab, alone, workdir, ended, f"room for {room} bytes from touch {at} on")


def tmpfs(lab: Lab) -> str | None:
    """Train on a file system with fewer pages than the run needs, then again with enough pages."""
    alone, workdir = lab.next(), lab.place()
    pages = sum(-(-each.stat().st_size // 4096) for each in alone.folder.rglob("*") if each.is_file())
    room = lab.draw.randint(1, pages) * 4096
    with mounted(workdir, "-t", "tmpfs", "-o", f"size={room}", "none"):
        ended = lab.run(lab.train(workdir, alone.model))
        mount("-o", "remount,size=1g", str(workdir))
        return _without_room(lab, alone, workdir, ended, f"a tmpfs of {room} bytes")


def _without_room(lab: Lab, alone: Undisturbed, workdir: pathlib.Path, ended: Ended, what: str) -> str | None:
    if ended.status == 0:
        return None
    if ended.status != 2 or not ended.told("cannot write"):
        return f"{alone.model}, {what}: ended with {ended.status}: {ended.err[-1500:]}"
    lost = lab.resumed(workdir, alone)
    return lost and f"{alone.model}, {what}: {lost}"


def damaged(lab: Lab, trials: int) -> list[str | None]:
    """Damage the newest checkpoint of a model in `trials` ways, and restore; all trials run in one process."""
    alone, workdir, log = lab.next(), lab.place(), lab.folder / "damaged"
    shutil.copytree(alone.folder, workdir)
    for done in [*workdir.rglob("run.json"), *workdir.rglob("results.json")]:
        done.unlink()  # so that the run resumes from its checkpoints
    draw = random.Random(lab.draw.random())
    clean = draw.choice([folder for folder in workdir.rglob("checkpoints") if any(folder.iterdir())])
    place = str(clean.relative_to(workdir))

    def each(like: Any) -> str | None:
        copy = lab.place() / "checkpoints"
        shutil.copytree(clean, copy)
        newest, before = (str(step) for step in sorted(map(int, os.listdir(copy)))[:-3:-1])
        how = draw.choice(list(DAMAGES))
        file = draw.choice([path for path in (copy / newest).rglob("*") if path.is_file() and path.stat().st_size])
        DAMAGES[how](file, draw, copy / newest)
        said.clear()
        what = f"{alone.model}, {how} {file.relative_to(copy)}"
        try:
            with Checkpoints(copy) as checkpoints:
                step, arrays, _ = checkpoints.restore(like) or (0, None, None)
        except Exception as error:
            return f"{what}: {error!r}"
        shutil.rmtree(copy.parent)
        what += f": step {step}, {said}"
        if alone.saved.get((place, step)) != digest_of(arrays):
            return f"{what}: another state"
        if str(step) == newest:
            return "" if not said else f"{what}: skipped nothing and said so"  # the damaged file is not needed
        return "" if str(step) == before and len(said) == 1 and f"checkpoint {newest}" in said[0] else what

    said: list[str] = []

    def prepare() -> None:
        restore = Checkpoints.restore

        def many(self: Checkpoints, like: Any) -> Any:
            if self.folder != clean:
                return restore(self, like)
            Checkpoints.restore = restore
            logging.getLogger(Checkpoints.__module__).addFilter(lambda record: bool(said.append(record.getMessage())))
            log.write_text(json.dumps([each(like) for _ in range(trials)]))
            os._exit(0)

        Checkpoints.restore = many

    log.unlink(missing_ok=True)
    lab.require(lab.run(lab.train(workdir, alone.model), prepare), 0)
    return json.loads(log.read_text())


def _flip(file: pathlib.Path, draw: random.Random, step: pathlib.Path) -> None:
    content = bytearray(file.read_bytes())
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    file.write_bytes(content)


DAMAGES: dict[str, Callable[[pathlib.Path, random.Random, pathlib.Path], object]] = {
    "flip": _flip,
    "truncate": lambda file, draw, step: os.truncate(file, draw.randrange(file.stat().st_size)),
    "remove": lambda file, draw, step: file.unlink(),
    "empty folder": lambda file, draw, step: (shutil.rmtree(step), step.mkdir()),
    "no metadata": lambda file, draw, step: draw.choice([*step.rglob("*METADATA"), *step.rglob("metadata")]).unlink(),
}


class Finished(NamedTuple):
    """A finished run of popularity: its digest before and after an update, and the touches of its directory by mode."""

    run: pathlib.Path
    old: str
    new: str
    touches: dict[str, int]


def finished(lab: Lab) -> Finished:
    """Make a finished run of popularity, with one update and a report."""
    run, after = lab.place(), lab.place()
    lab.keep.append(run)
    counted = multiprocessing.Value("i", 0)
    lab.require(lab.run(lab.train(run, "popularity")), 0)
    lab.require(lab.run(command(f"--workdir={run}", "--mode=update", f"--interactions={lab.folder / 'old.jsonl'}")), 0)
    lab.require(lab.run(command(f"--workdir={run}", "--mode=report")), 0)
    old, touches = state_of(lab, run), {}
    shutil.copytree(run, after)
    for mode, extra in (("report", ()), ("update", (f"--interactions={lab.folder / 'new.jsonl'}",))):
        counted.value = 0
        count: Prepare = lambda: watch(after, "", lambda number: setattr(counted, "value", number))  # noqa: E731
        lab.require(lab.run(command(f"--workdir={after}", f"--mode={mode}", *extra), count), 0)
        touches[mode] = counted.value
    return Finished(run, old, state_of(lab, after), touches)


def state_of(lab: Lab, run: pathlib.Path) -> str:
    """Return the digest of everything that an update changes in a run, as a command loads it."""
    log = lab.folder / "digest"

    def work() -> int:
        opened = open_run(run)
        values = {"user": opened.states.user, "item": opened.states.item, "time": opened.log.since_table().timestamp}
        log.write_text(f"{len(opened.batches)} {digest_of(values)}")
        return 0

    lab.require(lab.run(work), 0)
    return log.read_text()


def interrupted(lab: Lab, base: Finished, mode: str) -> str | None:
    """Send SIGKILL at a random point of `update` or `report`, and run the same command again."""
    run = lab.place()
    shutil.copytree(base.run, run)
    extra = (f"--interactions={lab.folder / 'new.jsonl'}",) if mode == "update" else ()
    work = command(f"--workdir={run}", f"--mode={mode}", *extra)
    at, delay = lab.draw.randint(1, base.touches[mode]), lab.draw.choice((0.0, lab.draw.random() * 0.005))
    ended = lab.run(work, signalled(run, at, "", signal.SIGKILL, delay))
    if ended.status != -signal.SIGKILL:
        return None
    report = RunLayout(run).report.read_text()
    if mode == "report" and not report.rstrip().endswith("</html>"):
        return "the report is cut"
    if (found := state_of(lab, run)) not in (base.old, base.new):
        return f"neither the old run nor the new one: {found}"
    lab.require(lab.run(work), 0)
    expected = base.new if mode == "update" else base.old
    return "" if state_of(lab, run) == expected else "again: another run"


def two(lab: Lab) -> str | None:
    """Start a second process while the first one trains."""
    alone, workdir = lab.next(), lab.place()
    at = lab.draw.randint(5, alone.touches[""])
    work, reached = lab.train(workdir, alone.model), multiprocessing.Event()
    first = lab.start(work, lambda: watch(workdir, "", lambda n: reached.set() if n == at else None))
    while not reached.wait(0.05) and os.waitid(os.P_PID, first[0], os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        pass
    second = lab.run(work)
    ended = lab.wait(first)
    if second.status == 0:
        return None  # the first had already ended
    if second.status != 2 or not second.told("in use"):
        return f"the second ended with {second.status}: {second.err[-600:]}"
    lab.require(ended, 0)
    return other_end(workdir, alone)


def clock(lab: Lab) -> str | None:
    """Make the wall clock jump by years, back or forth, at every reading; also kill the process."""
    alone, workdir = lab.next(), lab.place()
    draw, now = random.Random(lab.draw.random()), time.time

    def jumping() -> None:
        time.time = lambda: now() + draw.uniform(-3e8, 3e8)
        time.time_ns = lambda: int(time.time() * 1e9)

    at = lab.draw.randint(1, alone.touches[""])

    def stopped() -> None:
        jumping()
        signalled(workdir, at, "", signal.SIGKILL, 0.0)()

    work = lab.train(workdir, alone.model)
    lab.run(work, stopped)
    lab.require(lab.run(work, jumping), 0)
    return other_end(workdir, alone)


def rights(lab: Lab) -> str | None:
    """Train in a run directory that the user may not write to."""
    alone, workdir = _copied(lab)
    for each in (workdir, *workdir.rglob("*")):
        each.chmod(0o555 if each.is_dir() else 0o444)
    return _unwritable(lab, alone, workdir, lambda: os.getuid() or os.setresuid(NOBODY, NOBODY, NOBODY))


def readonly(lab: Lab) -> str | None:
    """Train in a run directory on a file system that is mounted read-only."""
    alone, workdir = _copied(lab)
    with mounted(workdir, "--bind", str(workdir)):
        mount("-o", "remount,bind,ro", str(workdir))
        return _unwritable(lab, alone, workdir, lambda: None)


def _copied(lab: Lab) -> tuple[Undisturbed, pathlib.Path]:
    """Copy a run; half of the copies lack their results."""
    alone, workdir = lab.next(), lab.place()
    shutil.copytree(alone.folder, workdir)
    if lab.draw.random() < 0.5:
        for name in ("results.json", "run.json"):
            (workdir / name).unlink()
    return alone, workdir


def _unwritable(lab: Lab, alone: Undisturbed, workdir: pathlib.Path, prepare: Prepare) -> str:
    before = {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()}
    ended = lab.run(lab.train(workdir, alone.model), prepare)
    if ended.status != 2 or not ended.told("can be written to"):
        return f"ended with {ended.status}: {ended.err[-900:]}"
    return "" if before == {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()} else "changed"


def suite(lab: Lab, name: str, trials: int) -> tuple[int, list[str]]:
    """Inject a fault `trials` times. Return how often it came in time, and what was lost.

    Raises:
      MountsRefusedError: the fault needs a mount, which is not allowed here.
    """
    if name == "damage":
        found = []
        while len(found) < trials:
            found += damaged(lab, min(CHUNK, trials - len(found)))
            lab.clear()
        return len(found), [one for one in found if one]
    if name in ("update", "report"):
        inject = functools.partial(interrupted, lab, finished(lab), name)
    else:
        inject = functools.partial(INJECTIONS[name], lab)
    made, lost = 0, []
    for _ in range(3 * trials):
        try:
            found = inject()
        except RuntimeError as error:  # a process that should have succeeded
            found = str(error)
        lab.clear()
        made += found is not None
        if found:
            lost.append(found)
        if made == trials:
            break
    return made, lost


INJECTIONS: dict[str, Callable[[Lab], str | None]] = {
    "kill": functools.partial(killed, part="", numbers=(signal.SIGKILL,), status=-signal.SIGKILL),
    "save": functools.partial(killed, part="checkpoints", numbers=(signal.SIGKILL,), status=-signal.SIGKILL),
    "stop": functools.partial(killed, part="", numbers=(signal.SIGTERM, signal.SIGINT), status=75),
    **{one.__name__: one for one in (full, tmpfs, two, clock, rights, readonly)},
}
