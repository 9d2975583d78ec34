"""Where bad rows go: never dropped silently, never able to stop a good file."""

from __future__ import annotations

import collections
from pathlib import Path
from types import TracebackType

import orjson

from drex_jax.common.errors import UserError
from drex_jax.common.spelling import shown

MAX_LISTED = 10_000_000  # rows: a list is longer than the file whose every second byte ends a bad row
TORN = "the file ends early"


class Quarantine:
    """Counts rejected rows by reason and, given a path, writes each as a line of JSON: file, line, reason, value.

    The file is written anew; an empty one says that nothing was rejected. Of more than `MAX_LISTED` rows the first are
    written, all are counted, and a notice says so. Use it as a context manager, which closes the file. Raises
    `UserError` where the file cannot be written.
    """

    def __init__(self, path: str | Path | None = None):
        self.path = None if path is None else Path(path)
        self.by_reason: collections.Counter[str] = collections.Counter()
        self.notices: list[str] = []
        self._file, self._listed = None, 0
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
        """Records one bad row.

        Args:
          file: where it stands.
          line: its line there, from 1 (a Parquet file: its row).
          reason: why, in words that are the same for every row with this fault.
          value: what was found, if that helps.
        """
        self.record(file, line, reason, None if value is None else shown(value))

    def record(self, file: str | Path, line: int, reason: str, found: str | None) -> None:
        """Records one bad row, of which `found` is what `shown` says of the value."""
        self.by_reason[reason] += 1
        if self._file is not None and self._listed < MAX_LISTED:
            self._listed += 1
            if self._listed == MAX_LISTED:
                self.notices.append(f"{self.path} lists no more than the first {MAX_LISTED:,} rejected rows")
            record = {"file": str(file), "line": line, "reason": reason}
            if found is not None:
                record["value"] = found
            self._file.write(orjson.dumps(record) + b"\n")

    def tear(self, file: str | Path, line: int, why: str) -> None:
        """Records that a file ends early at `line`: one rejected row, and a notice to be said loudly."""
        self.reject(file, line, TORN, why)
        self.notices.append(
            f"{file} ends early, at line {line:,} ({why}): the {line - 1:,} whole lines before it were read"
        )

    @property
    def rejected(self) -> int:
        """The number of rows rejected so far."""
        return sum(self.by_reason.values())

    def reasons(self, most: int = 3) -> str:
        """The commonest reasons with their counts, as "a (12), b (3)"."""
        return ", ".join(f"{reason} ({count:,})" for reason, count in self.ranked()[:most])

    def ranked(self) -> list[tuple[str, int]]:
        """(reason, count), commonest first, equals in alphabetical order."""
        return sorted(self.by_reason.items(), key=lambda pair: (-pair[1], pair[0]))

    def summary(self) -> tuple[str, ...]:
        """Lines to print: the notices, then each reason with its count. Empty if nothing was rejected."""
        lines = list(self.notices)
        if self.by_reason:
            where = "" if self.path is None else f", listed in {self.path}"
            lines.append(f"{self.rejected:,} rows rejected{where}:")
            lines += [f"  {count:,} x {reason}" for reason, count in self.ranked()]
        return tuple(lines)
