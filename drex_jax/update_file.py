"""A file of new interactions for a finished run, in the run's own format or with columns of our names."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import tempfile
from typing import Any, NamedTuple

from drex_jax.config import Config
from drex_jax.data.interactions import Interactions
from drex_jax.data.loading import DataOptions, load
from drex_jax.data.readers import files, table
from drex_jax.errors import UserError
from drex_jax.incoming import Expected
from drex_jax.options import data_options

EXPECTED = (
    "new interactions: a file in the run's own format, or a CSV, TSV, JSON lines or Parquet file with the columns "
)
OWN = ("amazon", "yelp", "movielens")


class UpdateFile(NamedTuple):
    """What a file holds.

    Attributes:
      interactions: in the order of time.
      lines: of the report: what was read.
      rejected: rows that are no interactions: `file`, `line`, `reason`, and `value` where it helps.
    """

    interactions: Interactions
    lines: tuple[str, ...]
    rejected: list[dict[str, Any]]


def read(path: pathlib.Path, settings: Config, run: Interactions) -> UpdateFile:
    """Reads a file; no bad row stops it.

    A file with the columns `user` and `item` is read by our names (`user item rating timestamp text` and those of
    vectors, what there is of them); any other as the run's raw data were.

    Args:
      path: the file.
      settings: the run's.
      run: its interactions.

    Raises:
      UserError: no file, one of another format, or one without a good row.
    """
    columns = (*(name for name in table.KNOWN if name != "split"), *Expected.by(run).widths)
    expected = f"{EXPECTED}{' '.join(columns)}"
    path = files.find(path, (), expected)
    options, there = data_options(settings), table.columns_of(path)
    ours = {name: name for name in columns if name in there}
    if {"user", "item"} <= ours.keys():
        surplus = [name for name in there if name not in ours]
        lines = (f"columns not read: {' '.join(surplus)}",) if surplus else ()
        options = _table(options, ours, run, "")
    elif options.format == "table":
        theirs = {name: column for name, column in options.columns.items() if column in there and name != "split"}
        lines, options = (), _table(options, theirs, run, options.time_format)
    elif options.format in OWN:
        lines = ()
    else:
        raise UserError(f"{path}: its columns are {ascii(' '.join(there))[1:-1][:200]}; expected {expected}")
    low, high = run.rating_range or (None, None)
    options = dataclasses.replace(
        options,
        path=str(path),
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
            interactions, report = load(options, listed)
        except UserError as error:
            raise UserError(str(error).replace(f"; each is listed in {listed}", "")) from None
        rejected = [json.loads(line) for line in listed.read_text().splitlines()]
    return UpdateFile(interactions, (report.lines[0], *lines), rejected)


def _table(options: DataOptions, columns: dict[str, str], run: Interactions, time_format: str) -> DataOptions:
    """Options to read a table of these columns.

    Raises:
      UserError: it has no times, and the run's data have.
    """
    if "timestamp" not in columns and len(run) and run.timestamp.min() < run.timestamp.max():
        raise UserError("the file has no column timestamp: an update must say when each interaction happened")
    kept = {name: column for name, column in columns.items() if name != "rating" or run.rating_range is not None}
    return dataclasses.replace(options, format="table", columns=kept, time_format=time_format)
