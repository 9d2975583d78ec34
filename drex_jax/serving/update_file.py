"""Reads a file of new interactions for a finished run."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any, NamedTuple

from drex_jax.common.errors import UserError
from drex_jax.data.interactions import Interactions
from drex_jax.data.load import DataSettings, load_interactions
from drex_jax.data.readers import find, table
from drex_jax.data.readers.quarantine import TORN, Quarantine
from drex_jax.serving.rows import RowSchema
from drex_jax.training.settings import Settings

EXPECTED = (
    "new interactions: a file in the run's own format, or a CSV, TSV, JSON lines or Parquet file with the columns "
)
OWN = ("amazon", "yelp", "movielens")


class UpdateFile(NamedTuple):
    """The rows of a file of new interactions: those of `interactions`, those of `rejected`, and `merged` others.

    Attributes:
      interactions: the good rows, in the order of time.
      lines: lines to print about what was read.
      merged: number of rows left out because they repeat another one of the file.
      rejected: a record for each bad row: `file`, `line`, `reason`, and `value` where it helps.
    """

    interactions: Interactions
    lines: tuple[str, ...]
    merged: int
    rejected: list[dict[str, Any]]


def read_update_file(path: pathlib.Path, settings: Settings, run: Interactions) -> UpdateFile:
    """Read a file of new interactions; bad rows are left out, but a file that is cut short or damaged is refused whole.

    A file with the columns `user` and `item` is read by the names `user item rating timestamp text` and those of the
    run's vector modalities, as far as it has them; any other file is read like the run's own data.

    Args:
      path: the file.
      settings: settings of the run.
      run: interactions of the run.

    Raises:
      UserError: the file is missing, has another format, is cut short or damaged, or has no good row.
    """
    data, lines = _settings_for(path, settings.data, run)
    widths = {name: values.shape[1] for name, values in run.vectors.items()}
    with Quarantine(in_memory=True) as quarantine:
        interactions, report = load_interactions(data, quarantine, widths=widths)
    if quarantine.torn is not None:
        file, line, why = quarantine.torn
        raise UserError(
            f"{file}: {TORN}, at line {line:,} ({why}); an update is read whole or not at all: get the file again"
        )
    return UpdateFile(interactions, (report.lines[0], *lines), report.duplicates, quarantine.listed or [])


def _settings_for(path: pathlib.Path, data: DataSettings, run: Interactions) -> tuple[DataSettings, tuple[str, ...]]:
    """Return how to read the file, and lines to print.

    Raises:
      UserError: the file is missing or has another format.
    """
    names = (*(name for name in table.KNOWN if name != "split"), *RowSchema.of(run).widths)
    expected, theirs = f"{EXPECTED}{' '.join(names)}", dict[str, str]()
    if data.format == "table":
        theirs = {name: column for name, column in data.columns.items() if column and name != "split"}
        expected += f", or {' '.join(theirs.values())} as the run's data"
    path = find.find_file(path, (), expected)
    there = table.columns_of(path)
    found = f"{path}: its columns are {ascii(' '.join(there))[1:-1][:200]}"
    ours = {name: name for name in names if name in there}
    theirs = {name: column for name, column in theirs.items() if column in there}
    lines: tuple[str, ...] = ()
    if {"user", "item"} <= ours.keys():
        surplus = [name for name in there if name not in ours]
        lines = (f"columns not read: {' '.join(surplus)}",) if surplus else ()
        data = _as_table(data, ours, run, "", f"{found}, and no column timestamp")
    elif {"user", "item"} <= theirs.keys():
        lacking = f"{found}, and no column {data.columns.get('timestamp') or 'timestamp'}"
        data = _as_table(data, theirs, run, data.time_format, lacking)
    elif data.format not in OWN:
        raise UserError(f"{found}; expected {expected}")
    low, high = run.rating_range or (None, None)
    data = dataclasses.replace(
        data,
        path=str(path),
        tfds_dir=None,
        name=run.name,
        max_interactions=None,
        max_bad_share=1.0,
        k_core=0,
        rating_min=low,
        rating_max=high,
        item_features=(),
    )
    return data, lines


def _as_table(
    data: DataSettings, columns: dict[str, str], run: Interactions, time_format: str, lacking: str
) -> DataSettings:
    """Return settings that read a table with these columns.

    Args:
      data: settings of the run.
      columns: our name of each column -> its name in the file.
      run: interactions of the run.
      time_format: format of the timestamps, as in the settings.
      lacking: beginning of the message about a file without timestamps.

    Raises:
      UserError: the file has no timestamps although the run's data have.
    """
    if "timestamp" not in columns and len(run) and run.timestamp.min() < run.timestamp.max():
        raise UserError(f"{lacking}: an update must say when each interaction happened")
    kept = {name: column for name, column in columns.items() if name != "rating" or run.rating_range is not None}
    return dataclasses.replace(data, format="table", columns=kept, time_format=time_format)
