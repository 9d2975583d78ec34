"""Rejected rows: counted and listed, so that none is dropped silently and none stops a good file."""

from __future__ import annotations

import collections
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import orjson

from drex_jax.common.errors import UserError
from drex_jax.common.spelling import shown

MAX_LISTED = 10_000_000  # rows: a list is longer than the file whose every second byte ends a bad row
TORN = "the file ends early"


class Tear(NamedTuple):
    """The place where a file ends early.

    Attributes:
      file: the file.
      line: the first line that could not be read, from 1.
      why: the damage.
    """

    file: Path
    line: int
    why: str


class Quarantine:
    """Counts rejected rows by reason, and lists each as a record of file, line, reason and value (if that helps).

    The list is a file with a line of JSON for each record, a list in memory, or neither. The file is overwritten; an
    empty one says that nothing was rejected. At most `MAX_LISTED` rows are listed, and a notice says if there are more;
    all are counted. Use it as a context manager, which closes the file.

    Attributes:
      path: the file, or None.
      listed: the records in memory, or None.
      by_reason: how many rows were rejected for each reason.
      notices: sentences for the user.
      torn: where a file ended early, the first if there are several; None if none did.
    """

    def __init__(self, path: str | Path | None = None, in_memory: bool = False):
        """Begin to list rejected rows.

        Args:
          path: the file for the list, or None.
          in_memory: keep the list in `listed`.

        Raises:
          UserError: the file cannot be written.
        """
        self.path = None if path is None else Path(path)
        self.listed: list[dict[str, Any]] | None = [] if in_memory else None
        self.by_reason: collections.Counter[str] = collections.Counter()
        self.notices: list[str] = []
        self.torn: Tear | None = None
        self._file, self._count = None, 0
        if self.path is not None:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._file = self.path.open("wb")
            except OSError as error:
                raise UserError(f"{self.path}: cannot write the rejected rows here ({error.strerror})") from error

    def __enter__(self) -> Quarantine:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: object, trace: TracebackType | None) -> None:
        if self._file is not None:
            self._file.close()

    def reject(self, file: str | Path, line: int, reason: str, value: object = None) -> None:
        """Record one rejected row.

        Args:
          file: the file that it is in.
          line: its line, from 1; in a Parquet file its row.
          reason: why, in words that are the same for every row with this fault.
          value: the value found, or None if it does not help.
        """
        self.record(file, line, reason, None if value is None else shown(value))

    def record(self, file: str | Path, line: int, reason: str, found: str | None) -> None:
        """Record one rejected row, as `reject` does; `found` is the value as `shown` returns it."""
        self.by_reason[reason] += 1
        if self._count == MAX_LISTED or (self._file is None and self.listed is None):
            return
        self._count += 1
        if self._count == MAX_LISTED:
            self.notices.append(f"{self.path or 'the list'} lists no more than the first {MAX_LISTED:,} rejected rows")
        record: dict[str, Any] = {"file": str(file), "line": line, "reason": reason}
        if found is not None:
            record["value"] = found
        if self.listed is not None:
            self.listed.append(record)
        if self._file is not None:
            self._file.write(orjson.dumps(record) + b"\n")

    def tear(self, file: str | Path, line: int, why: str) -> None:
        """Record that a file ends early at `line`: one rejected row, and a notice."""
        self.torn = self.torn or Tear(Path(file), line, why)
        self.reject(file, line, TORN, why)
        self.notices.append(
            f"{file} ends early, at line {line:,} ({why}): the {line - 1:,} whole lines before it were read"
        )

    @property
    def rejected(self) -> int:
        """The number of rows rejected so far."""
        return sum(self.by_reason.values())

    def reasons(self, most: int = 3) -> str:
        """Return the most frequent reasons with their counts, as "a (12), b (3)"."""
        return ", ".join(f"{reason} ({count:,})" for reason, count in self.ranked()[:most])

    def ranked(self) -> list[tuple[str, int]]:
        """Return pairs (reason, count), the most frequent first, equal counts in alphabetical order."""
        return sorted(self.by_reason.items(), key=lambda pair: (-pair[1], pair[0]))

    def summary(self) -> tuple[str, ...]:
        """Return lines to print: the notices, then each reason with its count; empty if nothing was rejected."""
        lines = list(self.notices)
        if self.by_reason:
            where = "" if self.path is None else f", listed in {self.path}"
            lines.append(f"{self.rejected:,} rows rejected{where}:")
            lines += [f"  {count:,} x {reason}" for reason, count in self.ranked()]
        return tuple(lines)
