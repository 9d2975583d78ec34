"""Measure seconds and memory of an epoch of ranking models, ours and PyTorch's side by side.

    python -m tools.benchmarks.ranking_speed [--data=FOLDER ...] [--models=...] [--scaling] [--json=FILE]

Every implementation runs in its own process. Their epochs alternate, one at a time, so that a slow moment of the
machine affects all of them; the first epoch of each is not counted. The columns:

* `seconds`, `lowest`, `highest`: the median, the fastest and the slowest epoch.
* `x ours`: the median divided by ours.
* `peak MB`: peak memory of the process, including start and reading; `base MB`: with the framework, before the data.
* `begin s`: the part of our epoch before its first update, in which the graphs are built.

`ours` trains with the program of `drex_jax.main`, and with PyTorch's constants: batches of 2,048, and only FREEDOM
samples edges. tools/benchmarks/ranking_peer.py describes PyTorch's side, which uses one thread a core or a single
thread, whichever is faster in a trial. `evaluate` ranks all items for every test user and computes the metrics of
MMRec's protocol (tools/benchmarks/evaluation.py; there PyTorch's process loads JAX as well: see its `base MB`).

Without --data, --scaling or --electronics, the sets baby and tiktok of the folder in DREX_JAX_DATA are used.
Exit status: 0 success; 1 an implementation failed, as its row says; 2 a user error, reported in one line.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import os
import pathlib
import platform
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from drex_jax.cli.exit_status import exit_code
from drex_jax.cli.flags import Parser, at_least

# Import light modules only: a worker's peak memory includes what this process holds when it starts the worker.
from drex_jax.common.cores import available_cores
from drex_jax.common.errors import UserError
from drex_jax.common.tables import format_table
from tools.benchmarks import ranking_data, ranking_peer
from tools.benchmarks.ranking_race import OURS, BrokenError, Row, Worker, race

IMPLEMENTATIONS = (OURS, *ranking_peer.LAYOUTS)
MODELS = ("crane", "crane_released", "crane_released_axis_fixed", "lightgcn", "freedom", "vbpr", "bpr")
TASKS = ("train", "evaluate")
ITEMS = (1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 64_000)
DATA_SETS = ("baby", "tiktok")  # folders of DREX_JAX_DATA
ELECTRONICS = (192_403, 63_001, 1_689_188)  # users, items and interactions of the Amazon 2014 5-core set


def run(arguments: Sequence[str]) -> int:
    """Run the command and return its exit status."""
    return exit_code(lambda: _obey(arguments))


def _obey(arguments: Sequence[str]) -> int:
    try:
        return _measure(parse(arguments))
    except BrokenError as broken:
        raise UserError(f"the data could not be prepared: {broken}") from None


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Return the parsed flags, with the defaults filled in.

    Raises:
      UserError: an unknown flag, a wrong value, or no data set.
    """
    parser = Parser("python -m tools.benchmarks.ranking_speed", __doc__)
    flag = parser.add_argument
    flag("--data", action="append", type=pathlib.Path, metavar="FOLDER", help="of a data set in MMRec's layout; repeat")
    flag(
        "--models",
        type=_some_of(MODELS),
        help=f"some of {' '.join(MODELS)}, with commas; PyTorch has lightgcn, freedom",
    )
    flag("--implementations", type=_some_of(IMPLEMENTATIONS), help=f"some of {' '.join(IMPLEMENTATIONS)}; default: all")
    flag("--tasks", type=_some_of(TASKS), default=list(TASKS), help="train or evaluate alone; default: both")
    flag("--layers", type=at_least(1), default=2, help="products with the graph; default %(default)s")
    flag("--repeats", type=at_least(1), default=5, help="counted epochs of each; default %(default)s")
    flag("--scaling", action="store_true", help="ours on made-up sets of growing size instead; one epoch each")
    flag("--items", type=_list_of_numbers, default=list(ITEMS), help="of --scaling; default 1000,2000,4000 to 64000")
    flag("--electronics", action="store_true", help="ours on a made-up set of that size instead; one epoch each")
    flag(
        "--widths",
        type=_list_of_numbers,
        default=list(ranking_data.WIDTHS),
        help="feature columns of made-up modalities, with commas; default "
        + ",".join(str(width) for width in ranking_data.WIDTHS),
    )
    flag("--updates", type=at_least(1), help="seconds of an update of ours, over about the first so many of an epoch")
    flag("--json", type=pathlib.Path, metavar="FILE", help="writes everything as JSON as well")
    options = parser.parse_args(arguments)
    made_up = options.scaling or options.electronics
    if options.data is None:
        options.data = [] if made_up else _data_sets()
    for folder in options.data:
        if not folder.exists():
            raise UserError(f"--data={folder} does not exist; it should be a folder in MMRec's layout")
    if options.updates and not made_up:
        raise UserError("--updates goes with --scaling or --electronics: beside PyTorch whole epochs are timed")
    if len(options.widths) != len(ranking_data.MODALITIES):
        raise UserError(f"--widths needs {len(ranking_data.MODALITIES)} numbers, such as 4096,384")
    if options.json is not None and not options.json.absolute().parent.is_dir():
        raise UserError(f"--json={options.json}: the folder {options.json.parent} does not exist")
    return options


def _data_sets() -> list[pathlib.Path]:
    root = os.environ.get("DREX_JAX_DATA")
    found = [pathlib.Path(root, name) for name in DATA_SETS if pathlib.Path(root, name).is_dir()] if root else []
    if not found:
        raise UserError(
            "no data set: give --data=FOLDER, or set DREX_JAX_DATA to the folder that holds baby and tiktok"
        )
    return found


def _measure(options: argparse.Namespace) -> int:
    load = os.getloadavg()[0]
    rows: list[Row] = []
    notes: list[str] = []
    scaling: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        workdirs = (pathlib.Path(folder, str(number)) for number in range(1 << 30))
        for source in options.data:
            facts = _prepare(workdirs, notes, source=str(source.absolute()), widths=options.widths)
            rows += _side_by_side(facts, options, options.models or ranking_peer.MODELS)
        for items in options.items if options.scaling else ():
            facts = _prepare(workdirs, notes, size=(3 * items, items, 27 * items), widths=options.widths)
            scaling += _one_by_one(facts, options)
        if options.electronics:
            rows += _one_by_one(_prepare(workdirs, notes, size=ELECTRONICS, widths=options.widths), options)
    slopes = _slopes(scaling)
    frameworks = sorted({row.facts["framework"] for row in (*rows, *scaling) if row.facts})
    device = f"{_processor()}, {available_cores()} cores, load {load:.1f} at the start; {', '.join(frameworks)}"
    print(device)
    for line in notes:
        print(line)
    if options.updates:
        print(f"training: seconds of an update, over about the first {options.updates} of an epoch")
    for part in (rows, scaling):
        if part:
            print(f"\n{text(part)}")
    if slopes:
        print("\nslopes of log over log of items (own memory: the peak above the framework's alone)")
        for model, found in slopes.items():
            print(f"{model}: seconds {found['seconds']:.2f}, own memory {found['own_bytes']:.2f}")
    if options.json:
        from tools.benchmarks import table

        chosen = {name: getattr(options, name) for name in ("layers", "repeats", "updates")}
        documents = {"rows": [_document(row) for row in rows], "scaling": [_document(row) for row in scaling]}
        table.write_json(options.json, {"device": device, "notes": notes, **chosen, **documents, "slopes": slopes})
    return int(any(row.failed for row in (*rows, *scaling)))


def _prepare(workdirs: Iterable[pathlib.Path], notes: list[str], **data: Any) -> dict[str, Any]:
    """Read or make a data set in another process, so that this one stays small. Return facts about it."""
    workdir = str(next(iter(workdirs)))
    worker = Worker(task="prepare", workdir=workdir, **data)
    facts: dict[str, Any] = {**worker.facts, "workdir": workdir}
    worker.close()
    widths = " + ".join(f"{name} {width}" for name, width in facts["modalities"].items())
    random = ", RANDOM FEATURES" if facts["random_features"] else ""
    notes.append(
        f"{facts['data']}: {facts['users']:,} users, {facts['items']:,} items, {facts['interactions']:,} interactions "
        f"({facts['train']:,} train), features {widths or 'none'}{random}"
    )
    print(notes[-1], file=sys.stderr)
    return facts


def _side_by_side(facts: dict[str, Any], options: argparse.Namespace, models: Sequence[str]) -> list[Row]:
    """Measure every implementation of every model, and of the evaluation, on one data set."""
    torch = importlib.util.find_spec("torch") is not None
    chosen = options.implementations or (IMPLEMENTATIONS if torch else (OURS,))
    rows: list[Row] = []
    if "train" in options.tasks:
        for model in models:
            those = [name for name in chosen if name == OURS or model in ranking_peer.MODELS]
            rows += _rows(facts, options, "train", model, those, options.repeats, None)
    if "evaluate" in options.tasks:
        those = [OURS] * (OURS in chosen) + ["dense"] * any(name != OURS for name in chosen)
        rows += _rows(facts, options, "evaluate", "", those, options.repeats, None)
    return rows


def _one_by_one(facts: dict[str, Any], options: argparse.Namespace) -> list[Row]:
    """Measure one epoch of each model, after one chunk of updates; only one process runs at a time."""
    rows: list[Row] = []
    for model in options.models or ("crane", "lightgcn", "freedom"):
        for name in options.implementations or (OURS,):
            if name == OURS or model in ranking_peer.MODELS:
                rows += _rows(facts, options, "train", model, [name], 1, 1)
    return rows


def _rows(
    facts: dict[str, Any],
    options: argparse.Namespace,
    task: str,
    model: str,
    implementations: Sequence[str],
    repeats: int,
    warm_up: int | None,
) -> list[Row]:
    job = {"task": task, "workdir": facts["workdir"], "layers": options.layers} | ({"model": model} if model else {})

    def row(implementation: str) -> Row:
        return Row(facts["data"], facts["items"], task, model, implementation)

    updates = options.updates if implementations == [OURS] else None
    found = race([job | {"implementation": name} for name in implementations], row, repeats, warm_up, updates)
    for each in found:
        print(
            f"{each.data} {task} {model} {each.implementation}: {each.failed or f'{each.median:.3f} s'}",
            file=sys.stderr,
        )
    return found


def _slopes(rows: Sequence[Row]) -> dict[str, dict[str, float]]:
    """Return {model: slopes of seconds and own memory of ours over the number of items}, on logarithmic scales."""
    slopes = {}
    for model in dict.fromkeys(row.model for row in rows):
        mine = [row for row in rows if row.model == model and row.implementation == OURS and row.seconds]
        items = np.log([row.items for row in mine])
        if len(set(items)) > 1:
            values = {"seconds": [row.median for row in mine], "own_bytes": [max(row.own_bytes, 1) for row in mine]}
            slopes[model] = {name: float(np.polyfit(items, np.log(each), 1)[0]) for name, each in values.items()}
    return slopes


def _document(row: Row) -> dict[str, Any]:
    seconds = {"median": row.median, "lowest": min(row.seconds), "highest": max(row.seconds)} if row.seconds else None
    return {**dataclasses.asdict(row), "seconds": seconds, "each": row.seconds}


HEADINGS = (
    *("data", "task", "model", "implementation", "framework", "items", "threads"),
    *("seconds", "lowest", "highest", "x ours", "peak MB", "base MB", "start s", "begin s"),
)
WORDS = 5  # number of columns with words; the others have numbers


def text(rows: Sequence[Row]) -> str:
    """Format an aligned table, one line for each row; a failed row says why it failed."""
    cells = [[*HEADINGS, ""], *(_cells(row) for row in rows)]
    return "\n".join(format_table(cells, right=range(WORDS, len(HEADINGS))))


def _cells(row: Row) -> list[str]:
    facts = row.facts
    cells = [row.data, row.task, row.model or "-", row.implementation, facts.get("framework", "-"), f"{row.items:,}"]
    if not row.seconds:
        return [*cells, *["-"] * (len(HEADINGS) - len(cells)), row.failed]
    return [
        *cells,
        str(facts["threads"]),
        *(f"{seconds:,.3f}" for seconds in (row.median, min(row.seconds), max(row.seconds))),
        "-" if row.ratio is None else f"{row.ratio:.2f}",
        *(f"{facts[name] / 1e6:,.0f}" for name in ("peak_bytes", "base_bytes")),
        f"{facts['start_seconds']:.1f}",
        "-" if facts.get("begin_seconds") is None else f"{facts['begin_seconds']:.2f}",
        row.failed,
    ]


def _processor() -> str:
    """Return the processor's name, as the system reports it."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _list_of_numbers(value: str) -> list[int]:
    return [at_least(1)(part) for part in value.split(",")]


def _some_of(names: Sequence[str]) -> Callable[[str], list[str]]:
    def read(value: str) -> list[str]:
        chosen = value.split(",")
        for name in chosen:
            if name not in names:
                raise argparse.ArgumentTypeError(f"{name!r} is none of {' '.join(names)}")
        return list(dict.fromkeys(chosen))

    return read


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
