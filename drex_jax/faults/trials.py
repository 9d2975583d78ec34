"""Faults, each with what a run promises of it: a trial says what was lost, nothing, or that the fault came too late."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import pathlib
import random
import resource
import shutil
import signal
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from drex_jax import checkpoint
from drex_jax.checkpoint import Checkpoints
from drex_jax.faults.lab import Lab, Prepare, command, signalled, watch, what_is_left
from drex_jax.finished_run import open_run
from drex_jax.report import page

OF_FINISHED = {"update", "report"}  # faults of runs that are finished, which need no undisturbed training
NOBODY = 65534  # a user who may write nothing of ours
TRIALS = {  # of the full suite
    "kill": 10,
    "save": 10,
    "stop": 5,
    "full": 6,
    "damage": 150,
    "update": 20,
    "report": 5,
    "two": 3,
    "clock": 3,
    "readonly": 2,
}
PROMISES = {
    "kill": ("SIGKILL in training", "the last committed step loads; the end is bitwise the same"),
    "save": ("SIGKILL during an asynchronous save", "the last committed step loads; the end is bitwise the same"),
    "stop": ("SIGTERM or SIGINT at any point", "exit 75; the same command ends bitwise the same"),
    "full": ("a full disk (RLIMIT_FSIZE)", "exit 2 in one line; old checkpoints intact; then bitwise the same"),
    "damage": ("newest checkpoint truncated, flipped, emptied", "said in one line; the step before is used"),
    "update": ("SIGKILL in `update`", "the run is as before or as after, by SHA-256; again: as after"),
    "report": ("SIGKILL in report writing", "the report is the old one or whole; again: whole"),
    "two": ("two processes on one run directory", "the second exits 2 in one line; the first is not disturbed"),
    "clock": ("the clock jumps by years", "the end is bitwise the same"),
    "readonly": ("a read-only run directory", "exit 2 in one line; nothing is changed"),
}


def killed(lab: Lab, part: str, numbers: tuple[signal.Signals, ...], status: int) -> str | None:
    """A signal at a random point of training, and the same command again. None: it came too late."""
    workdir = lab.place()
    at = lab.draw.randint(1, lab.events[bool(part)])
    prepare = signalled(workdir, at, part, lab.draw.choice(numbers), lab.draw.choice((0.0, lab.draw.random() * 0.02)))
    ended = lab.run(lab.train(workdir), prepare)
    if ended.status == 0:
        return None
    if ended.status != status or (status > 0 and not ended.told("stopped by")):
        return f"ended with {ended.status}: {ended.err[-600:]}"
    return lab.resumed(workdir)


def full(lab: Lab) -> str | None:
    """No file may grow beyond a random size, from a random step on."""
    workdir = lab.place()
    sizes = [each.stat().st_size for each in lab.base.rglob("*") if each.is_file()]
    room, at = lab.draw.randint(1, max(sizes)), lab.draw.randint(1, lab.events[0])

    def seen(count: int) -> None:
        if count == at:
            resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))

    ended = lab.run(lab.train(workdir), lambda: watch(workdir, "", seen))
    if ended.status == 0:
        return None
    if ended.status != 2 or not ended.told("cannot write"):
        return f"room for {room} bytes from touch {at} on: ended with {ended.status}: {ended.err[-1500:]}"
    return lab.resumed(workdir)


def damaged(lab: Lab, trials: int) -> list[str | None]:
    """Damages the newest checkpoint; all trials in one process."""
    workdir, log = lab.place(), lab.folder / "damaged"
    half = signalled(workdir, lab.events[0] // 2, "", signal.SIGTERM, 0.0)
    lab.require(lab.run(lab.train(workdir), half), 75)
    clean = workdir / "checkpoints"
    seed = lab.draw.random()

    def each(like: Any) -> str | None:
        copy = lab.place() / "checkpoints"
        shutil.copytree(clean, copy)
        newest, before = (str(step) for step in sorted(map(int, os.listdir(copy)))[:-3:-1])
        how = draw.choice(list(DAMAGES))
        file = draw.choice([path for path in (copy / newest).rglob("*") if path.is_file() and path.stat().st_size])
        DAMAGES[how](file, draw, copy / newest)
        said.clear()
        with Checkpoints(copy) as checkpoints:
            step, arrays, _ = checkpoints.restore(like) or (0, None, None)
        digest = checkpoint._digest(checkpoint._values(checkpoint._without_empty(arrays)))
        shutil.rmtree(copy.parent)
        what = f"{how} {file.relative_to(copy)}: step {step}, {said}"
        if lab.saved.get(step) != digest:
            return f"{what}: another state"
        if str(step) == newest:
            return "" if not said else f"{what}: skipped nothing and said so"  # the file is not needed
        return "" if str(step) == before and len(said) == 1 and f"checkpoint {newest}" in said[0] else what

    said: list[str] = []
    draw = random.Random(seed)

    def prepare() -> None:
        restore = Checkpoints.restore

        def many(self: Checkpoints, like: Any) -> Any:
            Checkpoints.restore = restore
            logging.getLogger().addFilter(lambda record: bool(said.append(record.getMessage())))
            log.write_text(json.dumps([each(like) for _ in range(trials)]))
            os._exit(0)

        Checkpoints.restore = many

    lab.require(lab.run(lab.train(workdir), prepare), 0)
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
    """A finished run of popularity: as it was before, and after, and how often its directory is touched."""

    run: pathlib.Path
    old: str
    new: str
    touches: dict[str, int]


def finished(lab: Lab) -> Finished:
    """Makes it, with one update and a report."""
    run, after = lab.place(), lab.place()
    lab.keep.append(run)
    counted = multiprocessing.Value("i", 0)
    lab.require(lab.run(lab.train(run, "popularity")), 0)
    lab.require(lab.run(command(f"--workdir={run}", "--mode=update", f"--interactions={lab.folder / 'old.jsonl'}")), 0)
    lab.require(lab.run(command(f"--workdir={run}", "--mode=report")), 0)
    old, touches = digest_of(lab, run), {}
    shutil.copytree(run, after)
    for mode, extra in (("report", ()), ("update", (f"--interactions={lab.folder / 'new.jsonl'}",))):
        counted.value = 0
        count: Prepare = lambda: watch(after, "", lambda number: setattr(counted, "value", number))  # noqa: E731
        lab.require(lab.run(command(f"--workdir={after}", f"--mode={mode}", *extra), count), 0)
        touches[mode] = counted.value
    return Finished(run, old, digest_of(lab, after), touches)


def digest_of(lab: Lab, run: pathlib.Path) -> str:
    """The digest of everything that updates move in a run, as it is loaded."""
    log = lab.folder / "digest"

    def work() -> int:
        opened = open_run(run)
        values = {"user": opened.carry.user, "item": opened.carry.item, "time": opened.journal.since_table().timestamp}
        found = checkpoint._digest(checkpoint._values(values))
        log.write_text(f"{len(opened.batches)} {found}")
        return 0

    lab.require(lab.run(work), 0)
    return log.read_text()


def interrupted(lab: Lab, base: Finished | None, mode: str) -> str | None:
    """SIGKILL at a random point of `update` or `report`, and the same command again. None: it came too late."""
    assert base is not None
    run = lab.place()
    shutil.copytree(base.run, run)
    extra = (f"--interactions={lab.folder / 'new.jsonl'}",) if mode == "update" else ()
    work = command(f"--workdir={run}", f"--mode={mode}", *extra)
    at, delay = lab.draw.randint(1, base.touches[mode]), lab.draw.choice((0.0, lab.draw.random() * 0.005))
    ended = lab.run(work, signalled(run, at, "", signal.SIGKILL, delay))
    if ended.status != -signal.SIGKILL:
        return None
    report = (run / page.REPORT).read_text()
    if mode == "report" and not report.rstrip().endswith("</html>"):
        return "the report is cut"
    if (found := digest_of(lab, run)) not in (base.old, base.new):
        return f"neither the old run nor the new one: {found}"
    lab.require(lab.run(work), 0)
    expected = base.new if mode == "update" else base.old
    return "" if digest_of(lab, run) == expected else "again: another run"


def two(lab: Lab) -> str | None:
    """A second process while the first one trains."""
    workdir, at = lab.place(), lab.draw.randint(5, lab.events[0])
    reached = multiprocessing.Event()
    first = lab.start(lab.train(workdir), lambda: watch(workdir, "", lambda n: reached.set() if n == at else None))
    while not reached.wait(0.05) and os.waitid(os.P_PID, first[0], os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        pass
    second = lab.run(lab.train(workdir))
    ended = lab.wait(first)
    if second.status == 0:
        return None  # the first had ended
    if second.status != 2 or not second.told("in use"):
        return f"the second ended with {second.status}: {second.err[-600:]}"
    lab.require(ended, 0)
    return "" if what_is_left(workdir) == lab.end else "the first was disturbed"


def clock(lab: Lab) -> str | None:
    """The clock jumps by years, both ways, at every look at it."""
    workdir = lab.place()
    draw, now = random.Random(lab.draw.random()), time.time

    def prepare() -> None:
        time.time = lambda: now() + draw.uniform(-3e8, 3e8)

    at = lab.draw.randint(1, lab.events[0])

    def stopped() -> None:
        prepare()
        signalled(workdir, at, "", signal.SIGKILL, 0.0)()

    lab.run(lab.train(workdir), stopped)
    lab.require(lab.run(lab.train(workdir), prepare), 0)
    return "" if what_is_left(workdir) == lab.end else "the end is another one"


def readonly(lab: Lab) -> str | None:
    """A run directory in which nothing can be written, begun or finished."""
    workdir = lab.place()
    shutil.copytree(lab.base, workdir)
    begun = lab.draw.random() < 0.5
    if begun:
        for name in ("results.json", "run.json"):
            (workdir / name).unlink()
    before = {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()}
    for each in (workdir, *workdir.rglob("*")):
        each.chmod(0o555 if each.is_dir() else 0o444)
    ended = lab.run(lab.train(workdir), lambda: os.getuid() or os.setresuid(NOBODY, NOBODY, NOBODY))
    if ended.status != 2 or not ended.told("can be written to"):
        return f"ended with {ended.status}: {ended.err[-900:]}"
    return "" if before == {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()} else "changed"


def suite(lab: Lab, name: str, trials: int) -> tuple[int, list[str]]:
    """Injects a fault `trials` times. Returns how often it came in time, and what was lost."""
    if name == "damage":
        found = damaged(lab, trials)
    else:
        base = finished(lab) if name in OF_FINISHED else None
        each: dict[str, Callable[[], str | None]] = {
            "kill": lambda: killed(lab, "", (signal.SIGKILL,), -signal.SIGKILL),
            "save": lambda: killed(lab, "checkpoints", (signal.SIGKILL,), -signal.SIGKILL),
            "stop": lambda: killed(lab, "", (signal.SIGTERM, signal.SIGINT), 75),
            "update": lambda: interrupted(lab, base, name),
            "report": lambda: interrupted(lab, base, name),
            **{one.__name__: lambda one=one: one(lab) for one in (full, two, clock, readonly)},
        }
        found = []
        while len([one for one in found if one is not None]) < trials and len(found) < 3 * trials:
            try:
                found.append(each[name]())
            except RuntimeError as error:  # a process that should have ended well
                found.append(str(error))
            lab.clear()
    made = [one for one in found if one is not None]
    return len(made), [one for one in made if one]
