"""Targets: every reader of interactions. Each row of a file is kept, merged or rejected, in any order of rows."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import pathlib
import random
import zlib
from collections.abc import Callable
from typing import Any

from drex_jax.common.errors import UserError
from drex_jax.data import load
from drex_jax.data.interactions import Interactions
from drex_jax.data.load import DataSettings, ReadReport
from drex_jax.data.mmrec_build import amazon_ratings, item_metadata
from drex_jax.data.readers.quarantine import Quarantine
from tools.robustness.fuzzing import samples
from tools.robustness.fuzzing.mutations import BOM, GZIP
from tools.robustness.fuzzing.samples import ROWS
from tools.robustness.fuzzing.target import Target, content_of, count_json, count_records, require_words

WHOLLY = 16  # one input in this many is read into a table twice, the second time with its rows in another order
TABLE = {"user": "user", "item": "item", "rating": "rating", "timestamp": "timestamp", "text": "text", "split": "split"}


class _Reader:
    """The reader of one format, and the file that is rewritten for each input."""

    def __init__(self, place: pathlib.Path, options: DataSettings, count: Callable[[bytes], int | None]):
        """Set the file `place`, and `count`, which returns the rows of a content, or None if they are uncertain."""
        self.place, self.count = place, count
        self.options = dataclasses.replace(options, path=str(place), max_bad_share=1.0)
        self.listed = place.with_name(".quarantine.jsonl")

    def check(self, data: bytes) -> None:
        """Read a file and count its rows. For some files also compare the table with that of the shuffled rows."""
        self.place.write_bytes(data)
        quarantine, content = Quarantine(), content_of(data)
        expected = None if content is None else self.count(content)
        try:
            found = sum(map(len, load.open_source(self.options, quarantine).chunks)) + quarantine.rejected
        except UserError as error:
            require_words(error)
            return
        assert expected in (None, found), f"{found} of {expected} rows"
        read = self.read(data) if zlib.crc32(data) % WHOLLY == 0 else None
        if read is None or content is None:
            return
        interactions, report = read
        assert report.rows_read == found, "other rows in the table"
        shuffled = self.shuffled(content)
        if shuffled is not None:
            again = self.read(shuffled)
            assert again is not None, "refused in another order: "
            assert again[0].sha256() == interactions.sha256(), "another order, another table"
            assert again[1].by_reason == report.by_reason, "another order, other rows rejected"

    def read(self, data: bytes) -> tuple[Interactions, ReadReport] | None:
        """Return the table and the report, or None if the file was refused. Check that the report counts every row."""
        self.place.write_bytes(data)
        try:
            interactions, report = load.load_interactions(self.options, self.listed)
        except UserError as error:
            require_words(error)
            return None
        listed = [json.loads(line) for line in self.listed.read_bytes().splitlines()]
        assert len(listed) == report.rejected == sum(report.by_reason.values()), "rejected rows that are not listed"
        assert report.rows_read == report.kept + report.duplicates + report.rejected, "rows without a place"
        assert len(interactions) == report.kept, "kept rows that are not there"
        return interactions, report

    def shuffled(self, content: bytes) -> bytes | None:
        """Return the content with its rows in another order, or None if the rows are uncertain."""
        json_lines = content.lstrip().startswith(b"{")
        if (b'"' in content and not json_lines) or any(mark in content for mark in (BOM, GZIP)):
            return None
        lines = content.split(b"\n")
        first = [lines.pop(0)] if self.options.format in ("table", "mmrec") else []  # the header
        random.Random(len(content)).shuffle(lines)
        if first and (not first[0].strip() or b"\r" in first[0].rstrip(b"\r")):  # then another line is the header
            return None
        return b"\n".join([*first, *lines])


def _of_reader(
    folder: pathlib.Path,
    name: str,
    options: DataSettings,
    seeds: list[bytes],
    count: Callable[[bytes], int | None] = count_json,
) -> Target:
    folder.mkdir()
    return Target(samples.with_packed(seeds), _Reader(folder / name, options, count).check)


def amazon(folder: pathlib.Path) -> Target:
    """Return the target for Amazon reviews of all releases."""
    rows = [samples.amazon_row(number) for number in range(ROWS)]
    real = samples.real("amazon_musical_instruments/reviews_Musical_Instruments_5.json.gz")
    return _of_reader(folder, "reviews.json", DataSettings("amazon"), [samples.json_lines(rows), *real])


def yelp(folder: pathlib.Path) -> Target:
    """Return the target for Yelp's reviews."""
    rows = [samples.yelp_row(number) for number in range(ROWS)]
    real = samples.real("yelp/yelp_academic_dataset_review.json.gz")
    return _of_reader(
        folder, "yelp_academic_dataset_review.json", DataSettings("yelp"), [samples.json_lines(rows), *real]
    )


def amazon_ratings_only(folder: pathlib.Path) -> Target:
    """Return the target for Amazon's ratings files, as the builder of MMRec's layout reads them."""
    folder.mkdir()
    path = folder / "ratings.csv"

    def check(data: bytes) -> None:
        path.write_bytes(data)
        quarantine = Quarantine()
        try:
            kept = sum(map(len, amazon_ratings.read(path, amazon_ratings.COLUMNS, (1.0, 5.0), quarantine)))
        except UserError as error:
            require_words(error)
            return
        content = content_of(data)
        expected = None if content is None else count_records(content, ",", 4)
        assert expected in (None, kept + quarantine.rejected), f"{kept} kept, {quarantine.rejected} of {expected}"

    rows = [samples.review(number) | {"text": 1_400_000_000 + number} for number in range(ROWS)]
    return Target(samples.with_packed([samples.separated(rows, ",", named=False)]), check)


_MOVIELENS = ("userId,movieId,rating,timestamp\n", "userId,movieId,tag,timestamp\n")


def _movielens_rows(tags: bool) -> bytes:
    rows = (f"{n % 3},{n % 4},{f'tag {n}' if tags else 0.5 + n % 5},{1_400_000_000 + n}\n" for n in range(ROWS))
    return (_MOVIELENS[tags] + "".join(rows)).encode()


def _movielens_records(content: bytes) -> int | None:
    found = count_records(content, ",", 4)
    headers = sum(line.rstrip(b"\r").decode("utf-8", "replace") + "\n" in _MOVIELENS for line in content.split(b"\n"))
    return None if found is None else found - headers


def movielens(folder: pathlib.Path) -> Target:
    """Return the target for `ratings.csv`, with a good `tags.csv`."""
    real = samples.real("movielens_latest_small/ratings.csv.gz")
    target = _of_reader(
        folder, "ratings.csv", DataSettings("movielens"), [_movielens_rows(tags=False), *real], _movielens_records
    )
    (folder / "tags.csv").write_bytes(_movielens_rows(tags=True))
    return target


def movielens_tags(folder: pathlib.Path) -> Target:
    """Return the target for `tags.csv`, with a good `ratings.csv`."""
    folder.mkdir()
    reader = _Reader(folder / "ratings.csv", DataSettings("movielens"), lambda content: None)
    ratings = _movielens_rows(tags=False)

    def check(data: bytes) -> None:
        (folder / "tags.csv").write_bytes(data)
        read, content = reader.read(ratings), content_of(data)
        if read is None or content is None:
            return
        assert read[1].kept == ROWS, "a tag cost a rating"
        expected = _movielens_records(content)
        notice = next((each for each in read[1].notices if "joined as text" in each), None)
        tags = int(notice.split(" of ")[1].split(" tags")[0].replace(",", "")) if notice else None
        if expected is not None and tags is not None:
            assert tags + read[1].rejected == expected, f"{tags} tags, {read[1].rejected} rejected of {expected}"

    return Target(
        samples.with_packed([_movielens_rows(tags=True), *samples.real("movielens_latest_small/tags.csv.gz")]), check
    )


def movielens_100k(folder: pathlib.Path) -> Target:
    """Return the target for `u.data`."""
    rows = "".join(f"{n % 3}\t{n % 4}\t{1 + n % 5}\t{890_000_000 + n}\n" for n in range(ROWS)).encode()
    return _of_reader(
        folder, "u.data", DataSettings("movielens"), [rows], lambda content: count_records(content, "\t", 4)
    )


def _of_table(folder: pathlib.Path, name: str, seeds: list[bytes], **options: Any) -> Target:
    def count(content: bytes) -> int | None:
        if content.lstrip().startswith(b"{"):
            return count_json(content)
        first = content.split(b"\n", 1)[0]
        delimiter = "\t" if b"\t" in first else ";" if b";" in first and b"," not in first else ","
        return None if content.startswith(b"PAR1") else count_records(content, delimiter)

    given: dict[str, Any] = {"columns": TABLE, "rating_min": 1.0, "rating_max": 5.0} | options
    return _of_reader(folder, name, DataSettings("table", **given), seeds, count)


def table_separated(folder: pathlib.Path) -> Target:
    """Return the target for CSV and TSV files."""
    rows = [samples.table_row(number) for number in range(ROWS)]
    return _of_table(folder, "table.csv", [samples.separated(rows, each) for each in ",\t;"])


def table_real(folder: pathlib.Path) -> Target:
    """Return the target for a CSV file with long texts in quotes, and dates."""
    columns = {"user": "user_id", "item": "business_id", "rating": "stars", "timestamp": "date", "text": "text"}
    rows = [{**samples.yelp_row(number), "text": 'it "holds",\nits tune'} for number in range(ROWS)]
    return _of_table(
        folder, "yelp.csv", [samples.separated(rows, ","), *samples.real("yelp/yelp.csv.gz")], columns=columns
    )


def table_json(folder: pathlib.Path) -> Target:
    """Return the target for JSON lines with any columns."""
    return _of_table(folder, "table.jsonl", [samples.json_lines([samples.table_row(number) for number in range(ROWS)])])


def table_vectors(folder: pathlib.Path) -> Target:
    """Return the target for JSON lines with vectors."""
    rows = [samples.table_row(number) for number in range(ROWS)]
    return _of_table(folder, "table.jsonl", [samples.json_lines(rows)], columns=TABLE | {"image": "image"})


def table_parquet(folder: pathlib.Path) -> Target:
    """Return the target for Parquet files."""
    rows = [samples.table_row(number) for number in range(ROWS)]
    seeds = [samples.parquet(rows, compression=each) for each in ("none", "snappy", "zstd")]
    return _of_table(folder, "table.parquet", seeds, columns=TABLE | {"image": "image"})


def mmrec_inter(folder: pathlib.Path) -> Target:
    """Return the target for `NAME.inter`, without features."""
    lines = "".join(f"{n % 3}\t{n % 4}\t{1 + n % 5}\t{n}\t{n % 3}\n" for n in range(ROWS))
    seeds = [
        f"userID\titemID\trating\ttimestamp\tx_label\n{lines}".encode(),
        *samples.real("baby/baby.inter", "tiktok/tiktok.inter"),
    ]
    options = DataSettings("mmrec", rating_min=1.0, rating_max=5.0)
    return _of_reader(folder, "some.inter", options, seeds, lambda content: count_records(content, "\t"))


def metadata(folder: pathlib.Path) -> Target:
    """Return the target for Amazon metadata: JSON or Python literals."""
    folder.mkdir()
    path = folder / "meta.json"
    row = {"title": "a tune", "categories": [["strings", "picks"]], "price": 1.5}
    names = [f"i{n}" for n in range(4)]
    rows = [{"asin": name} | row for name in names]
    wanted = {name.encode() for name in names}

    def check(data: bytes) -> None:
        path.write_bytes(data)
        with contextlib.suppress(UserError):
            for text in item_metadata.texts(path, wanted, Quarantine()).values():
                text.encode()

    literals = "".join(f"{row!r}\n" for row in rows).encode()
    return Target(samples.with_packed([samples.json_lines(rows), literals]), check)
