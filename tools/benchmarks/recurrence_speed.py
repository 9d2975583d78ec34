"""Measure how fast each implementation of the recurrence processes a stream; print one row for each width.

    python tools/profile.py [--interactions=N] [--width=W,W] [--peer=torch] [--json=FILE]

Each row has the time of a forward pass over the stream, and of a whole training step (forward, backward and an Adam
update), on random features: the median of several calls after a warm-up, with its spread. docs/performance.md explains
the output. Exit status: 0 success; 2 a user error, reported in one line.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import pathlib
import resource
import sys
from collections.abc import Callable, Generator, Sequence
from typing import TYPE_CHECKING, TypeVar

from drex_jax.cli.exit_status import exit_code
from drex_jax.cli.flags import Parser, at_least
from drex_jax.common.cores import available_cores
from drex_jax.common.errors import UserError

if TYPE_CHECKING:
    from tools.benchmarks.streams import Stream

IMPLEMENTATIONS = ("sequential", "autodiff", "t_batch", "critical_path")
DTYPES = ("float32", "bfloat16")
WITHOUT_COSTS = (  # flags that cannot be combined with --write_costs
    *("config", "feature_size", "width", "implementations", "bptt_windows"),
    *("dtype", "peer", "json", "trace", "costs"),
)

T = TypeVar("T")


def run(arguments: Sequence[str]) -> int:
    """Run the command and return its exit status."""
    return exit_code(lambda: _profile(*parse(arguments)))


def parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Return the parsed flags, and the `--config.FIELD=VALUE` among the arguments.

    Raises:
      UserError: an unknown flag or a wrong value.
    """
    parser = Parser("tools/profile.py", __doc__)
    stream = parser.add_argument_group("stream")
    stream.add_argument("--interactions", type=int, help="of a synthetic stream; default 100,000")
    stream.add_argument("--users", type=int, help="default: interactions / 10")
    stream.add_argument("--items", type=int, help="default: interactions / 20")
    stream.add_argument("--user_skew", type=float, help="Zipf exponent; default 0.5")
    stream.add_argument("--item_skew", type=float, help="default 0.8")
    stream.add_argument("--seed", type=int, help="default 0")
    stream.add_argument(
        "--config", help="the training split of experiments/NAME.py[:ARGUMENT] instead; --config.FIELD=VALUE changes it"
    )
    case = parser.add_argument_group("what is timed")
    case.add_argument("--state_size", type=at_least(1), help="default 64")
    case.add_argument("--feature_size", type=at_least(1), help="default 64")
    case.add_argument(
        "--width",
        type=_list_of(at_least(1)),
        action="extend",
        help="lanes a step: one, several with commas, or the flag again; default: the width that the table of step "
        "costs gives, its half and its double",
    )
    case.add_argument(
        "--implementations",
        type=_list_of(_one_of(IMPLEMENTATIONS)),
        action="extend",
        help=f"some of {' '.join(IMPLEMENTATIONS)}, with commas; default: all",
    )
    case.add_argument("--bptt_windows", type=at_least(1), default=1, help="windows of equal size; default %(default)s")
    case.add_argument(
        "--dtype",
        type=_list_of(_one_of(DTYPES)),
        action="extend",
        help=f"of the products: some of {' '.join(DTYPES)}, with commas; default float32",
    )
    case.add_argument("--costs", type=pathlib.Path, metavar="FILE", help="of step costs, instead of the shipped one")
    case.add_argument("--peer", choices=("torch",), help="adds PyTorch's rows on the same stream, if it is installed")
    case.add_argument("--repeats", type=at_least(1), default=5, help="timed calls; default %(default)s")
    output = parser.add_argument_group("output")
    output.add_argument("--json", type=pathlib.Path, metavar="FILE", help="writes the table as JSON as well")
    output.add_argument(
        "--trace", type=pathlib.Path, metavar="DIR", help="writes a trace of jax.profiler of one epoch of training"
    )
    output.add_argument(
        "--write_costs",
        type=pathlib.Path,
        metavar="FILE",
        help="measures what a training step costs at each width instead, and adds it to FILE for this device kind; "
        "--state_size measures one state size alone",
    )
    options, others = parser.parse_known_args(arguments)
    for argument in others:
        if not argument.startswith("--config."):
            parser.error(f"unknown argument {argument}")
    synthetic = ("interactions", "users", "items", "user_skew", "item_skew", "seed")
    given = [name for name in synthetic if getattr(options, name) is not None]
    if options.config is None and others:
        raise UserError(f"{others[0]} goes with --config=experiments/NAME.py, which is not given")
    if options.write_costs:
        for name in (*synthetic, *WITHOUT_COSTS):
            if getattr(options, name) not in (None, parser.get_default(name)):
                raise UserError(f"--{name} does not go with --write_costs, which has a stream and widths of its own")
    if options.config is not None and given:
        raise UserError(f"--{given[0]} is of a synthetic stream; it does not go with --config")
    return options, others


def _profile(options: argparse.Namespace, overrides: Sequence[str]) -> None:
    # JAX is imported here, so that a mistake in the flags is reported at once.

    from tools.benchmarks import kernels, parts, peer, table, torch_module
    from tools.benchmarks import peaks as peaks_lib

    if options.write_costs:
        _write_costs(options)
        return
    if options.peer:
        torch_module.load()
    stream = _stream(options, overrides)
    case = table.Case(stream, options.state_size or 64, options.feature_size or 64, options.repeats)
    widths, source = (options.width, "--width") if options.width else _widths(options, stream, case.state_size)
    implementations, dtypes = options.implementations or IMPLEMENTATIONS, options.dtype or DTYPES[:1]
    device = f"{_device_name()}, load {os.getloadavg()[0]:.1f}"
    print(f"device: {device}")
    print(
        f"stream: {stream.name}, {len(stream):,} interactions, {stream.num_users:,} users, {stream.num_items:,} items; "
        f"state {case.state_size}, features {case.feature_size}"
    )
    print(f"widths: {', '.join(map(str, widths))} ({source})")
    peaks = peaks_lib.measure()
    print(f"peaks: {peaks.flops_per_second / 1e9:,.0f} GFLOP/s in float32, {peaks.bytes_per_second / 1e9:,.0f} GB/s")
    rows = kernels.rows(case, implementations, widths, dtypes, options.bptt_windows)
    lines: list[str] = []
    if options.peer:
        found, lines = peer.rows(case)
        rows += found
    print(f"\n{table.text(case, peaks, rows)}\n")
    for line in (*lines, *table.comparison(rows)):
        print(line)
    where: dict[str, float] = {}
    if "critical_path" in implementations:
        where = parts.measure(case, widths[0], dtypes[0], options.bptt_windows)
        print(f"\nwhere the time goes: critical_path, width {widths[0]}, {dtypes[0]}")
        for line in parts.text(where, len(stream)):
            print(line)
    peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    print(f"\npeak memory of this process on the host: {peak_bytes / 1e9:,.2f} GB")
    if options.trace:
        compiled = kernels.Compiled(
            kernels.Program("critical_path", stream, case, widths[0], dtypes[0], options.bptt_windows)
        )
        compiled.train()
        with _traced(options.trace):
            compiled.train()
    if options.json:
        table.write_json(options.json, table.document(case, device, peaks, rows, where, peak_bytes))


def _stream(options: argparse.Namespace, overrides: Sequence[str]) -> Stream:
    from tools.benchmarks import streams

    if options.config is not None:
        return streams.from_config(options.config, overrides)
    names = ("users", "items", "user_skew", "item_skew", "seed")
    chosen = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    return streams.synthetic(100_000 if options.interactions is None else options.interactions, **chosen)


def _widths(options: argparse.Namespace, stream: Stream, state_size: int) -> tuple[list[int], str]:
    """Return the cheapest width for the device, with its half and its double, and the source of the step costs."""
    import jax

    from drex_jax.models.drex import schedule, step_costs, window

    device = jax.devices()[0]
    found = step_costs.load(device.device_kind, device.platform, state_size, options.costs)
    streams = window.window_streams(stream.user, stream.item, options.bptt_windows)
    width = schedule.cheapest_width(streams, found.step)
    return list(dict.fromkeys((width, max(width // 2, 1), 2 * width))), found.source


def _write_costs(options: argparse.Namespace) -> None:
    import jax

    from drex_jax.models.drex import step_costs
    from tools.benchmarks.step_costs import STATE_SIZES, WIDTHS, measure

    source = f"measured on {_device_name()} with jax {jax.__version__}"
    for size in (options.state_size,) if options.state_size else STATE_SIZES:
        found = measure(size, WIDTHS)
        step_costs.write(options.write_costs, jax.devices()[0].device_kind, source, {size: found})


def _device_name() -> str:
    import jax

    return f"{jax.devices()[0].device_kind} x {jax.device_count()}, {available_cores()} cores"


@contextlib.contextmanager
def _traced(folder: pathlib.Path) -> Generator[None]:
    import jax

    try:
        with jax.profiler.trace(str(folder)):
            yield
    except OSError as error:
        raise UserError(f"--trace={folder} cannot be written: {error.strerror}") from None


def _one_of(names: Sequence[str]) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in names:
            raise argparse.ArgumentTypeError(f"{text!r} is none of {' '.join(names)}")
        return text

    return read


def _list_of(read: Callable[[str], T]) -> Callable[[str], list[T]]:
    return lambda text: [read(part.strip()) for part in text.split(",")]
