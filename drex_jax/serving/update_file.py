"""A file of new interactions for a finished run, in the run's own format or with columns of our names."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import tempfile
from typing import Any, NamedTuple

from drex_jax.common.errors import BadRowsError, UserError
from drex_jax.data.interactions import Interactions
from drex_jax.data.load import DataSettings, load_interactions
from drex_jax.data.readers import find, table
from drex_jax.data.readers.quarantine import TORN
from drex_jax.serving.rows import Expected
from drex_jax.training.settings import Settings

EXPECTED = (
    "new interactions: a file in the run's own format, or a CSV, TSV, JSON lines or Parquet file with the columns "
)
OWN = ("amazon", "yelp", "movielens")


class UpdateFile(NamedTuple):
    """What a file holds.

    Attributes:
      interactions: in the order of time.
      lines: of the report: what was read.
      merged: rows that are the same as another of the file, and were left out for it: the rows of the file are those of
        `interactions`, `merged` and `rejected`.
      rejected: rows that are no interactions: `file`, `line`, `reason`, and `value` where it helps.
    """

    interactions: Interactions
    lines: tuple[str, ...]
    merged: int
    rejected: list[dict[str, Any]]


def read(path: pathlib.Path, settings: Settings, run: Interactions) -> UpdateFile:
    """Reads a file; no bad row stops it, but a file that is cut short or damaged is refused whole.

    A file with the columns `user` and `item` is read by our names (`user item rating timestamp text` and those of
    vectors, what there is of them); any other as the run's raw data were.

    Args:
      path: the file.
      settings: the run's.
      run: its interactions.

    Raises:
      UserError: no file, one of another format, one that is cut short, or one without a good row.
    """
    columns = (*(name for name in table.KNOWN if name != "split"), *Expected.by(run).widths)
    expected, theirs, options = f"{EXPECTED}{' '.join(columns)}", {}, settings.data
    if options.format == "table":
        theirs = {name: column for name, column in options.columns.items() if column and name != "split"}
        expected += f", or {' '.join(theirs.values())} as the run's data"
    path = find.find_file(path, (), expected)
    there = table.columns_of(path)
    found = f"{path}: its columns are {ascii(' '.join(there))[1:-1][:200]}"
    ours = {name: name for name in columns if name in there}
    theirs = {name: column for name, column in theirs.items() if column in there}
    if {"user", "item"} <= ours.keys():
        surplus = [name for name in there if name not in ours]
        lines = (f"columns not read: {' '.join(surplus)}",) if surplus else ()
        options = _table(options, ours, run, "", f"{found}, and no column timestamp")
    elif {"user", "item"} <= theirs.keys():
        lacking = f"{found}, and no column {options.columns.get('timestamp') or 'timestamp'}"
        lines, options = (), _table(options, theirs, run, options.time_format, lacking)
    elif options.format in OWN:
        lines = ()
    else:
        raise UserError(f"{found}; expected {expected}")
    low, high = run.rating_range or (None, None)
    options = dataclasses.replace(
        options,
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
    with tempfile.TemporaryDirectory() as folder:
        listed = pathlib.Path(folder, "quarantine.jsonl")
        try:
            interactions, report = load_interactions(
                options, listed, widths={name: v.shape[1] for name, v in run.vectors.items()}
            )
        except BadRowsError as error:  # the list is deleted with its folder
            raise UserError(error.reason) from None
        rejected = [json.loads(line) for line in listed.read_text().splitlines()]
    torn = next((each for each in rejected if each["reason"] == TORN), None)
    if torn is not None:
        raise UserError(
            f"{torn['file']}: {TORN}, at line {torn['line']:,} ({torn.get('value')}); an update is read whole or not "
            "at all: get the file anew"
        )
    return UpdateFile(interactions, (report.lines[0], *lines), report.duplicates, rejected)


def _table(
    options: DataSettings, columns: dict[str, str], run: Interactions, time_format: str, lacking: str
) -> DataSettings:
    """Options to read a table of these columns; `lacking` tells of a file without times.

    Raises:
      UserError: it has no times, and the run's data have.
    """
    if "timestamp" not in columns and len(run) and run.timestamp.min() < run.timestamp.max():
        raise UserError(f"{lacking}: an update must say when each interaction happened")
    kept = {name: column for name, column in columns.items() if name != "rating" or run.rating_range is not None}
    return dataclasses.replace(options, format="table", columns=kept, time_format=time_format)
