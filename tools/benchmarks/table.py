"""Format the results of tools/profile.py as a table for people and as JSON for programs."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from drex_jax.common.errors import UserError
from drex_jax.common.files import write_text
from drex_jax.common.tables import format_table
from tools.benchmarks.peaks import Peaks
from tools.benchmarks.streams import Stream
from tools.benchmarks.timing import Rate


@dataclasses.dataclass(frozen=True)
class Case:
    """The input that every implementation gets.

    Attributes:
      stream: N interactions.
      state_size: D.
      feature_size: F.
      repeats: number of timed calls.
    """

    stream: Stream
    state_size: int
    feature_size: int
    repeats: int

    def features(self) -> np.ndarray:
        """Return features float32 [N, F], standard normal, the same at every call."""
        shape = (len(self.stream), self.feature_size)
        return np.random.default_rng(1).standard_normal(shape, np.float32)

    @property
    def forward_flops(self) -> int:
        """Return the floating-point operations that the equations require for one interaction, its projection included.

        For both cells these are x W of [F, 6D], and own and partner products of [D, 3D] each. Structural zeros, empty
        lanes and elementwise work are not counted.
        """
        return 2 * (self.feature_size * 6 * self.state_size + 12 * self.state_size**2)

    @property
    def train_flops(self) -> int:
        """Return the floating-point operations of one interaction in training: forward and backward.

        Each product is counted again for the gradient of its weights, and the products with states also for the
        gradient of the states. Features are data and have no gradient. Recomputation is not counted.
        """
        return 2 * (2 * self.feature_size * 6 * self.state_size + 3 * 12 * self.state_size**2)

    @property
    def forward_bytes(self) -> int:
        """Return the least float32 traffic of one interaction in bytes.

        It reads the features and two states, writes two states, and stores two states for the gradient.
        Training needs at least three times as much.
        """
        return 4 * (self.feature_size + 6 * self.state_size)


@dataclasses.dataclass(frozen=True)
class Row:
    """The figures of one implementation at one width; None means not measured or not applicable.

    Attributes:
      implementation: its name.
      framework: `jax` or `torch`.
      dtype: dtype of the matrix products; states are float32.
      exact: True if states and gradients are those of one-by-one replay in the same windows, up to rounding.
      bptt_windows: number of windows, between which the gradient is cut; with 1 nothing is cut.
      interactions: number of timed interactions, from the beginning of the stream.
      width: lanes a step.
      depth: longest chain of dependent interactions among the timed ones.
      bound: lower bound on the steps of any schedule of this width and these windows.
      steps: number of sequential steps.
      fill: share of lanes in use.
      forward: interactions a second, states only.
      train: interactions a second, with states, gradient and update.
      compile_seconds: compile time of both programs.
      temp_bytes: temporary memory of the training program.
    """

    implementation: str
    framework: str
    dtype: str
    exact: bool
    bptt_windows: int
    interactions: int
    width: int | None = None
    depth: int | None = None
    bound: int | None = None
    steps: int | None = None
    fill: float | None = None
    forward: Rate | None = None
    train: Rate | None = None
    compile_seconds: float | None = None
    temp_bytes: int | None = None

    def microseconds(self, rate: Rate | None) -> float | None:
        """Return the microseconds of one step at `rate`."""
        return 1e6 * self.interactions / rate.median / self.steps if rate and self.steps else None


def document(
    case: Case, device: str, peaks: Peaks, rows: Sequence[Row], parts: Mapping[str, float], peak_bytes: int
) -> dict[str, Any]:
    """Return the results as JSON values; measured rates come with their spread, [lowest, highest].

    Args:
      case: the input.
      device: the device's name.
      peaks: peaks of the device.
      rows: the measured rows.
      parts: seconds of each part of an epoch.
      peak_bytes: peak memory of the process on the host.
    """
    stream = case.stream
    return {
        "device": device,
        "stream": {
            "name": stream.name,
            "interactions": len(stream),
            "users": stream.num_users,
            "items": stream.num_items,
            "user_skew": stream.user_skew,
            "item_skew": stream.item_skew,
            "seed": stream.seed,
            "state_size": case.state_size,
            "feature_size": case.feature_size,
        },
        "peaks": peaks._asdict(),
        "rows": [_json_row(row) for row in rows],
        "parts": dict(parts),
        "peak_bytes": peak_bytes,
    }


def write_json(path: pathlib.Path, profile: dict[str, Any]) -> None:
    """Write the result of `document` as JSON.

    Raises:
      UserError: the file cannot be written.
    """
    try:
        write_text(path, json.dumps(profile, indent=2) + "\n")
    except OSError as error:
        raise UserError(f"--json={path} cannot be written: {error.strerror}") from None


def _json_row(row: Row) -> dict[str, Any]:
    def median(rate: Rate | None) -> float | None:
        return rate.median if rate else None

    def spread(rate: Rate | None) -> list[float] | None:
        return [rate.lowest, rate.highest] if rate else None

    values = dataclasses.asdict(row)
    del values["forward"], values["train"]
    return values | {
        "forward_per_second": median(row.forward),
        "train_per_second": median(row.train),
        "forward_spread": spread(row.forward),
        "train_spread": spread(row.train),
        "step_us": row.microseconds(row.forward),
        "train_step_us": row.microseconds(row.train),
    }


HEADINGS = (
    *("implementation", "framework", "dtype", "exact", "windows", "timed", "width", "depth", "bound", "steps", "fill"),
    *("forward/s", "±", "train/s", "±", "us/step", "train us/step", "compile s", "temp MB"),
    *("flops", "train flops", "bytes", "train bytes"),
)
WORDS = 3  # number of columns with words; the others have numbers


def text(case: Case, peaks: Peaks, rows: Sequence[Row]) -> str:
    """Format an aligned table, one line for each row; `-` means not measured.

    `±` is half the distance between the slowest and the fastest call. The last four columns are the least work that the
    equations require, forward and in training, as a share of the device's peaks.
    """
    cells = [list(HEADINGS), *(_text_row(case, peaks, row) for row in rows)]
    return "\n".join(format_table(cells, right=range(WORDS, len(HEADINGS))))


def comparison(rows: Sequence[Row]) -> list[str]:
    """Format a line for each other implementation: how much faster `critical_path` trains and runs forward.

    Only float32 rows count.
    """
    best: dict[tuple[str, str], Row] = {}
    for row in rows:
        key = (row.framework, row.implementation)
        if row.dtype == "float32" and row.train and row.forward:
            other = best.get(key)
            if other is None or other.train is None or row.train.median > other.train.median:
                best[key] = row
    ours = best.pop(("jax", "critical_path"), None)
    if ours is None or ours.train is None or ours.forward is None:
        return []
    lines = []
    for (framework, name), row in best.items():
        if row.train and row.forward:
            lines.append(
                f"critical_path trains {ours.train.median / row.train.median:.2f} and runs forward "
                f"{ours.forward.median / row.forward.median:.2f} times as fast as {framework} {name}"
            )
    return lines


def _text_row(case: Case, peaks: Peaks, row: Row) -> list[str]:
    def number(value: float | None, form: str = ",.0f") -> str:
        return "-" if value is None else format(value, form)

    def rate(value: Rate | None) -> list[str]:
        return [f"{value.median:,.0f}", f"{value.spread / 2:.0%}"] if value else ["-", "-"]

    def share(value: Rate | None, work: int, peak: float) -> str:
        return f"{value.median * work / peak:.1%}" if value else "-"

    return [
        row.implementation,
        row.framework,
        row.dtype,
        "yes" if row.exact else "no",
        *(number(value) for value in (row.bptt_windows, row.interactions, row.width, row.depth, row.bound, row.steps)),
        number(row.fill, ".1%"),
        *rate(row.forward),
        *rate(row.train),
        number(row.microseconds(row.forward), ",.1f"),
        number(row.microseconds(row.train), ",.1f"),
        number(row.compile_seconds, ".1f"),
        number(None if row.temp_bytes is None else row.temp_bytes / 1e6),
        share(row.forward, case.forward_flops, peaks.flops_per_second),
        share(row.train, case.train_flops, peaks.flops_per_second),
        share(row.forward, case.forward_bytes, peaks.bytes_per_second),
        share(row.train, 3 * case.forward_bytes, peaks.bytes_per_second),
    ]
