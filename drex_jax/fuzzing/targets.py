"""What hostile input is given to, and what must hold: a `UserError`, or an answer in which every row has its place."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import gzip
import io
import json
import os
import pathlib
import random
import zlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from drex_jax import config as config_lib
from drex_jax import dataset, finished_run, run_directory, scorers, update_file, updates
from drex_jax.config import Config
from drex_jax.data import item_features, item_metadata, loading, storage
from drex_jax.data.interactions import Interactions
from drex_jax.data.loading import DataOptions, ReadReport
from drex_jax.data.quarantine import TORN, Quarantine
from drex_jax.data.readers import amazon_ratings
from drex_jax.data.strings import Strings
from drex_jax.errors import UserError
from drex_jax.files import write_json, write_text
from drex_jax.fuzzing.mutations import BOM, GZIP
from drex_jax.incoming import Expected, checked, rows_of
from drex_jax.journal import Journal
from drex_jax.list_files import read as read_lists
from drex_jax.models.protocol import Carry

Check = Callable[[bytes], None]
ROWS = 12  # of what is made here
HEAD = 1 << 11  # bytes of a real file
WHOLLY = 16  # one input in so many becomes a table, twice: the second time with its rows in another order


class Target(NamedTuple):
    """Something that reads.

    Attributes:
      seeds: good inputs, of which bad ones are made.
      check: reads one input. Raises AssertionError where a row was lost; any other exception is a crash.
    """

    seeds: list[bytes]
    check: Check


def _one_line(error: UserError) -> None:
    """A refusal has words."""
    assert str(error).strip(), "refused without a word"


# Readers: a file of interactions.


def _content(data: bytes) -> bytes | None:
    """What is in a file, without a byte order mark; None of a broken gzip file."""
    if data.startswith(GZIP):
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error):
            return None
    return data.removeprefix(BOM)


def _json_rows(content: bytes) -> int:
    """How many rows there are."""
    return sum(bool(line.strip()) for line in content.split(b"\n"))


def _records(content: bytes, delimiter: str, width: int | None = None) -> int | None:
    """How many records of a width there are, or after a header; None where quotes leave that open."""
    text = content.decode("utf-8", "surrogateescape")
    header = width is None
    if '"' not in text:
        lines = [line for line in text.split("\n") if not (line + "\n").isspace()]
        return max(len(lines) - header, 0)
    try:
        records = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))
    except csv.Error:
        return None
    widths = {len(record) for record in records}
    sure = len(widths) == 1 and "\r" not in text and (min(widths) > 1 if header else widths == {width})
    return len(records) - header if sure else None


class _Reader:
    """One format: a folder with a file that is rewritten for each input."""

    def __init__(self, place: pathlib.Path, options: DataOptions, count: Callable[[bytes], int | None]):
        """`place`: of the file; `count`: how many rows there are in a content, if that can be told."""
        self.place, self.count = place, count
        self.options = dataclasses.replace(options, path=str(place), max_bad_share=1.0)
        self.listed = place.with_name(".quarantine.jsonl")

    def check(self, data: bytes) -> None:
        """Reads a file and counts its rows; of some it makes the table, and that of the rows in another order."""
        self.place.write_bytes(data)
        quarantine, content = Quarantine(), _content(data)
        expected = None if content is None else self.count(content)
        try:
            found = sum(map(len, loading.opened(self.options, quarantine)[2])) + quarantine.rejected
        except UserError as error:
            _one_line(error)
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
        """The table and the report, of which every row is accounted for; None: the file was refused."""
        self.place.write_bytes(data)
        try:
            interactions, report = loading.load(self.options, self.listed)
        except UserError as error:
            _one_line(error)
            return None
        listed = [json.loads(line) for line in self.listed.read_bytes().splitlines()]
        assert len(listed) == report.rejected == sum(report.by_reason.values()), "rejected rows that are not listed"
        assert report.rows_read == report.kept + report.duplicates + report.rejected, "rows without a place"
        assert len(interactions) == report.kept, "kept rows that are not there"
        return interactions, report

    def shuffled(self, content: bytes) -> bytes | None:
        """The content with its rows in another order; None where it cannot be told what a row is."""
        json_lines = content.lstrip().startswith(b"{")
        if (b'"' in content and not json_lines) or any(mark in content for mark in (BOM, GZIP)):
            return None
        lines = content.split(b"\n")
        first = [lines.pop(0)] if self.options.format in ("table", "mmrec") else []  # tells what the file is
        random.Random(len(content)).shuffle(lines)
        return None if first and not first[0].strip() else b"\n".join([*first, *lines])


def _review(number: int) -> dict[str, Any]:
    return {"user": f"u{number % 3}", "item": f"i{number % 4}", "rating": 1 + number % 5, "text": f"it holds {number}"}


def _json_lines(rows: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def _yelp_row(number: int) -> dict[str, Any]:
    row, date = _review(number), f"2014-10-{10 + number} 03:34:0{number % 10}"
    return {
        "user_id": row["user"],
        "business_id": row["item"],
        "stars": row["rating"],
        "text": row["text"],
        "date": date,
    }


def _amazon_row(number: int) -> dict[str, Any]:
    row = _review(number)
    if number % 2:
        return {
            "user_id": row["user"], "parent_asin": row["item"], "rating": row["rating"], "text": row["text"],
            "title": "good", "timestamp": 1_400_000_000_000 + number,
        }  # fmt: skip
    return {
        "reviewerID": row["user"], "asin": row["item"], "overall": row["rating"], "reviewText": row["text"],
        "summary": "good", "unixReviewTime": 1_400_000_000 + number,
    }  # fmt: skip


TABLE = {"user": "user", "item": "item", "rating": "rating", "timestamp": "timestamp", "text": "text", "split": "split"}


def _table_row(number: int) -> dict[str, Any]:
    return {**_review(number), "timestamp": 1.4e9 + number, "split": number % 3, "image": [0.5, number]}


def _separated(rows: list[dict[str, Any]], delimiter: str, named: bool = True) -> bytes:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(rows[0]), delimiter=delimiter, lineterminator="\n")
    if named:
        writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue().encode()


def _parquet(rows: list[dict[str, Any]], **options: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), sink, **options)
    return sink.getvalue()


def _real(*names: str) -> list[bytes]:
    """The first lines of real files below DREX_JAX_DATA, where it is set."""
    found = []
    for name in names:
        path = pathlib.Path(os.environ.get("DREX_JAX_DATA", os.devnull), name)
        if path.is_file():
            with gzip.open(path) if name.endswith(".gz") else path.open("rb") as file:
                found.append(file.read(HEAD).rpartition(b"\n")[0] + b"\n")
    return found


def _with_packed(seeds: list[bytes]) -> list[bytes]:
    return [*seeds, gzip.compress(seeds[0], mtime=0)]


def _of_reader(
    folder: pathlib.Path,
    name: str,
    options: DataOptions,
    seeds: list[bytes],
    count: Callable[[bytes], int | None] = _json_rows,
) -> Target:
    folder.mkdir()
    return Target(_with_packed(seeds), _Reader(folder / name, options, count).check)


def amazon(folder: pathlib.Path) -> Target:
    """Amazon reviews of all releases."""
    rows = [_amazon_row(number) for number in range(ROWS)]
    real = _real("amazon_musical_instruments/reviews_Musical_Instruments_5.json.gz")
    return _of_reader(folder, "reviews.json", DataOptions("amazon"), [_json_lines(rows), *real])


def yelp(folder: pathlib.Path) -> Target:
    """Yelp's reviews."""
    rows = [_yelp_row(number) for number in range(ROWS)]
    real = _real("yelp/yelp_academic_dataset_review.json.gz")
    return _of_reader(folder, "yelp_academic_dataset_review.json", DataOptions("yelp"), [_json_lines(rows), *real])


def amazon_ratings_only(folder: pathlib.Path) -> Target:
    """Amazon's ratings files, as the builder of MMRec's layout reads them."""
    folder.mkdir()
    path = folder / "ratings.csv"

    def check(data: bytes) -> None:
        path.write_bytes(data)
        quarantine = Quarantine()
        try:
            kept = sum(map(len, amazon_ratings.read(path, amazon_ratings.COLUMNS, (1.0, 5.0), quarantine)))
        except UserError as error:
            _one_line(error)
            return
        content = _content(data)
        expected = None if content is None else _records(content, ",", 4)
        assert expected in (None, kept + quarantine.rejected), f"{kept} kept, {quarantine.rejected} of {expected}"

    rows = [_review(number) | {"text": 1_400_000_000 + number} for number in range(ROWS)]
    return Target(_with_packed([_separated(rows, ",", named=False)]), check)


_MOVIELENS = ("userId,movieId,rating,timestamp\n", "userId,movieId,tag,timestamp\n")


def _movielens_rows(tags: bool) -> bytes:
    rows = (f"{n % 3},{n % 4},{f'tag {n}' if tags else 0.5 + n % 5},{1_400_000_000 + n}\n" for n in range(ROWS))
    return (_MOVIELENS[tags] + "".join(rows)).encode()


def _movielens_records(content: bytes) -> int | None:
    found = _records(content, ",", 4)
    headers = sum(line.rstrip(b"\r").decode("utf-8", "replace") + "\n" in _MOVIELENS for line in content.split(b"\n"))
    return None if found is None else found - headers


def movielens(folder: pathlib.Path) -> Target:
    """`ratings.csv`, beside good tags."""
    real = _real("movielens_latest_small/ratings.csv.gz")
    target = _of_reader(
        folder, "ratings.csv", DataOptions("movielens"), [_movielens_rows(tags=False), *real], _movielens_records
    )
    (folder / "tags.csv").write_bytes(_movielens_rows(tags=True))
    return target


def movielens_tags(folder: pathlib.Path) -> Target:
    """`tags.csv`, beside good ratings."""
    folder.mkdir()
    reader = _Reader(folder / "ratings.csv", DataOptions("movielens"), lambda content: None)
    ratings = _movielens_rows(tags=False)

    def check(data: bytes) -> None:
        (folder / "tags.csv").write_bytes(data)
        read, content = reader.read(ratings), _content(data)
        if read is None or content is None:
            return
        assert read[1].kept == ROWS, "a tag cost a rating"
        expected = _movielens_records(content)
        notice = next((each for each in read[1].notices if "joined as text" in each), None)
        tags = int(notice.split(" of ")[1].split(" tags")[0].replace(",", "")) if notice else None
        if expected is not None and tags is not None:
            assert tags + read[1].rejected == expected, f"{tags} tags, {read[1].rejected} rejected of {expected}"

    return Target(_with_packed([_movielens_rows(tags=True), *_real("movielens_latest_small/tags.csv.gz")]), check)


def movielens_100k(folder: pathlib.Path) -> Target:
    """`u.data`."""
    rows = "".join(f"{n % 3}\t{n % 4}\t{1 + n % 5}\t{890_000_000 + n}\n" for n in range(ROWS)).encode()
    return _of_reader(folder, "u.data", DataOptions("movielens"), [rows], lambda content: _records(content, "\t", 4))


def _of_table(folder: pathlib.Path, name: str, seeds: list[bytes], **options: Any) -> Target:
    def count(content: bytes) -> int | None:
        if content.lstrip().startswith(b"{"):
            return _json_rows(content)
        first = content.split(b"\n", 1)[0]
        delimiter = "\t" if b"\t" in first else ";" if b";" in first and b"," not in first else ","
        return None if content.startswith(b"PAR1") else _records(content, delimiter)

    given: dict[str, Any] = {"columns": TABLE, "rating_min": 1.0, "rating_max": 5.0} | options
    return _of_reader(folder, name, DataOptions("table", **given), seeds, count)


def table_separated(folder: pathlib.Path) -> Target:
    """CSV and TSV files."""
    rows = [_table_row(number) for number in range(ROWS)]
    return _of_table(folder, "table.csv", [_separated(rows, each) for each in ",\t;"])


def table_real(folder: pathlib.Path) -> Target:
    """A CSV file with long texts in quotes, and dates."""
    columns = {"user": "user_id", "item": "business_id", "rating": "stars", "timestamp": "date", "text": "text"}
    rows = [{**_yelp_row(number), "text": 'it "holds",\nits tune'} for number in range(ROWS)]
    return _of_table(folder, "yelp.csv", [_separated(rows, ","), *_real("yelp/yelp.csv.gz")], columns=columns)


def table_json(folder: pathlib.Path) -> Target:
    """JSON lines with any columns."""
    return _of_table(folder, "table.jsonl", [_json_lines([_table_row(number) for number in range(ROWS)])])


def table_vectors(folder: pathlib.Path) -> Target:
    """JSON lines with vectors."""
    rows = [_table_row(number) for number in range(ROWS)]
    return _of_table(folder, "table.jsonl", [_json_lines(rows)], columns=TABLE | {"image": "image"})


def table_parquet(folder: pathlib.Path) -> Target:
    """Parquet files."""
    rows = [_table_row(number) for number in range(ROWS)]
    seeds = [_parquet(rows, compression=each) for each in ("none", "snappy", "zstd")]
    return _of_table(folder, "table.parquet", seeds, columns=TABLE | {"image": "image"})


def mmrec_inter(folder: pathlib.Path) -> Target:
    """`NAME.inter`, without features."""
    lines = "".join(f"{n % 3}\t{n % 4}\t{1 + n % 5}\t{n}\t{n % 3}\n" for n in range(ROWS))
    seeds = [
        f"userID\titemID\trating\ttimestamp\tx_label\n{lines}".encode(),
        *_real("baby/baby.inter", "tiktok/tiktok.inter"),
    ]
    options = DataOptions("mmrec", rating_min=1.0, rating_max=5.0)
    return _of_reader(folder, "some.inter", options, seeds, lambda content: _records(content, "\t"))


def metadata(folder: pathlib.Path) -> Target:
    """Amazon metadata: JSON or Python literals."""
    folder.mkdir()
    path = folder / "meta.json"
    rows = [{"asin": f"i{n}", "title": "a tune", "categories": [["strings", "picks"]], "price": 1.5} for n in range(4)]
    wanted = {row["asin"].encode() for row in rows}

    def check(data: bytes) -> None:
        path.write_bytes(data)
        with contextlib.suppress(UserError):
            for text in item_metadata.texts(path, wanted, Quarantine()).values():
                text.encode()

    literals = "".join(f"{row!r}\n" for row in rows).encode()
    return Target(_with_packed([_json_lines(rows), literals]), check)


# Arrays.


def _npy(array: np.ndarray, pickled: bool = False) -> bytes:
    sink = io.BytesIO()
    np.save(sink, array, allow_pickle=pickled)
    return sink.getvalue()


def features(folder: pathlib.Path) -> Target:
    """`NAME_feat.npy`."""
    folder.mkdir()
    path, ids = folder / "image_feat.npy", np.array([2, 0, 1])

    def check(data: bytes) -> None:
        path.write_bytes(data)
        try:
            found = item_features.read({"image": path}, ids, [])["image"]
        except UserError as error:
            _one_line(error)
            return
        assert found.dtype == np.float32, "features of another type"
        assert len(found) == len(ids), "features of other items"
        assert not np.isinf(found).any(), "features that are not finite"

    values = np.arange(12.0).reshape(3, 4)
    arrays = [values, values.astype(np.float32), values.astype(np.int64), np.asfortranarray(values)]
    objects = _npy(np.array([[{}]], object), pickled=True)
    return Target([*map(_npy, arrays), objects], check)


def columns(folder: pathlib.Path) -> Target:
    """A column of a run directory."""
    folder.mkdir()

    def check(data: bytes) -> None:
        (folder / "text.offsets.npy").write_bytes(data)
        (folder / "text.bytes.npy").write_bytes(letters)
        with contextlib.suppress(UserError):
            assert "".join(storage.read_strings(folder, "text")) == "it holds", "other texts"

    text = Strings.of(["it", " ", "holds"])
    letters = _npy(text.data)
    return Target([_npy(text.offsets), _npy(text.offsets[:2])], check)


def lists(folder: pathlib.Path) -> Target:
    """`lists/WAY.npz`."""
    folder.mkdir()
    path, sink = folder / "strict.npz", io.BytesIO()
    np.savez(sink, users=np.arange(3), ndcg=np.ones(3))

    def check(data: bytes) -> None:
        path.write_bytes(data)
        with contextlib.suppress(UserError):
            for array in read_lists(path).values():
                assert not array.dtype.hasobject, "Python objects"

    return Target([sink.getvalue()], check)


# A folder of files: an input is the number of a file, and what is written into it.


def _of_folder(folder: pathlib.Path, files: list[str], read: Callable[[], None]) -> Target:
    good = {name: (folder / name).read_bytes() for name in files}

    def check(data: bytes) -> None:
        if not data:
            return
        path = folder / files[data[0] % len(files)]
        path.write_bytes(data[1:])
        try:
            read()
        except UserError as error:
            _one_line(error)
        finally:
            path.write_bytes(good[path.relative_to(folder).as_posix()])

    return Target([bytes([number]) + good[name] for number, name in enumerate(files)], check)


def _settings() -> Config:
    settings: Any = config_lib.base()
    settings.data.synthetic.update(num_interactions=60, num_users=6, num_items=5, seed=1)
    settings.text.update(vocabulary_size=300, max_tokens=8)
    settings.model.name = "popularity"
    return settings


def _finished(folder: pathlib.Path) -> Config:
    """All of a finished run of popularity but for its model, without training it."""
    settings = _settings()
    folder.mkdir()
    with contextlib.redirect_stdout(io.StringIO()):
        dataset.read_into(settings, folder)
    write_text(folder / run_directory.CONFIG, config_lib.to_json(settings))
    results = {name: {} for name in run_directory.RESULT_KEYS} | {"schema": run_directory.SCHEMA, "seeds": [0]}
    write_json(folder / run_directory.RESULTS, results)
    write_json(folder / run_directory.SCORER, {})
    interactions, _ = dataset.open_interactions(settings, folder)
    carry: Any = Carry(np.zeros((6, 1), np.float32), np.ones((5, 1), np.float32))
    updates.commit(folder, [], interactions.take(np.arange(3)), carry, applied=3, refused=0, sha256=[])
    return settings


def run(folder: pathlib.Path) -> Target:
    """A run directory, but for its model."""
    _finished(folder)

    def read() -> None:
        settings = finished_run.settings_of(folder)
        opened = dataset.open_dataset(settings, folder)
        scorers.scorer(settings.model.name, {})
        known, saved = updates.read(folder)
        journal = Journal(opened.interactions, opened.sizes[0], None if saved is None else saved.since)
        for number in range(len(journal)):
            journal.row(number)
        assert len(journal.table()) == len(journal), "rows of the journal that are in no table"
        if opened.vocabulary is not None and opened.events.tokens is not None:
            opened.vocabulary.words(opened.events.tokens)
        assert all(batch["batch"] == number for number, batch in enumerate(known, 1))

    files = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file()]
    return _of_folder(folder, [name for name in files if name != dataset.QUARANTINE], read)


def update(folder: pathlib.Path) -> Target:
    """A file of new interactions for a finished run."""
    settings = _finished(folder)
    interactions, parts = dataset.open_interactions(settings, folder)
    path, start = folder / "new", 2e9

    def check(data: bytes) -> None:
        path.write_bytes(data)
        try:
            found = update_file.read(path, settings, interactions)
        except UserError as error:
            _one_line(error)
            return
        journal = Journal(interactions, len(parts.train))
        right, refused = checked(rows_of(found.interactions), Expected.by(interactions))
        kept, numbers, late = journal.join(right)
        given = len(found.interactions)
        assert len(kept) == len(numbers), "rows without a number"
        assert len(kept) + len(refused) + len(late) == given, "rows without an answer"
        assert journal.since == len(kept), "applied rows that are not there"
        assert not any(each["reason"] == TORN for each in found.rejected)
        content = _content(data)
        if content is not None and content.lstrip().startswith(b"{"):
            told = given + found.merged + len(found.rejected)
            assert told == _json_rows(content), f"{told} of {_json_rows(content)} rows"

    rows = [_review(number) | {"timestamp": start + number} for number in range(ROWS)]
    seeds = [_json_lines(rows), _separated(rows, ","), _separated(rows, "\t"), _parquet(rows)]
    return Target(_with_packed(seeds), check)


def bert(folder: pathlib.Path) -> Target:
    """A BERT's folder: its configuration, its tokenizer in both forms, its weights."""
    from drex_jax.text.bert import weights, wordpiece

    folder.mkdir()
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "it", "holds", "##s", "its", "tune"]
    sizes = {
        "model_type": "bert", "vocab_size": len(words), "hidden_size": 2, "num_hidden_layers": 1,
        "num_attention_heads": 1, "intermediate_size": 3, "max_position_embeddings": 8, "type_vocab_size": 2,
    }  # fmt: skip
    write_json(folder / weights.CONFIG, sizes)
    (folder / wordpiece.VOCABULARY).write_text("\n".join(words))
    write_json(folder / wordpiece.SETTINGS, {"do_lower_case": True})
    tokenizer = wordpiece._from_words({word: number for number, word in enumerate(words)}, {})
    (folder / wordpiece.TOKENIZER).write_text(tokenizer.to_str())
    _write_weights(folder / weights.WEIGHTS)
    texts = Strings.of(["It holds its tune.", "", "\u00e9 \u3000 holdsss"])

    def read() -> None:
        architecture = weights.read_architecture(folder)
        for both in (True, False):  # `vocab.txt` is read where there is no `tokenizer.json`
            hidden = folder / f".{wordpiece.TOKENIZER}"
            if not both:
                (folder / wordpiece.TOKENIZER).rename(hidden)
            try:
                tokens = wordpiece.WordPiece.read(folder, architecture.vocabulary_size)[0].encode(texts, 6)
            finally:
                if not both:
                    hidden.rename(folder / wordpiece.TOKENIZER)
            assert len(tokens.cut) == 3, "texts without tokens"
            assert not len(tokens.ids) or tokens.ids.max() < architecture.vocabulary_size, "pieces without a vector"
        weights.read_params(folder, architecture)

    names = [weights.CONFIG, wordpiece.VOCABULARY, wordpiece.SETTINGS, wordpiece.TOKENIZER, weights.WEIGHTS]
    return _of_folder(folder, names, read)


def _write_weights(path: pathlib.Path) -> None:
    """Weights of ones, in safetensors: a header of JSON, its length before it, and the arrays."""
    width, hidden = 2, 3
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (10, width),
        "embeddings.position_embeddings.weight": (8, width),
        "embeddings.token_type_embeddings.weight": (2, width),
    }
    layer = "encoder.layer.0"
    dense = {f"{layer}.attention.self.{part}": (width, width) for part in ("query", "key", "value")}
    dense |= {f"{layer}.attention.output.dense": (width, width)}
    dense |= {f"{layer}.intermediate.dense": (hidden, width), f"{layer}.output.dense": (width, hidden)}
    for name, shape in dense.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    for name in ("embeddings", f"{layer}.attention.output", f"{layer}.output"):
        shapes |= {f"{name}.LayerNorm.weight": (width,), f"{name}.LayerNorm.bias": (width,)}
    header, end = {}, 0
    for name, shape in shapes.items():
        begin, end = end, end + 4 * int(np.prod(shape))
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [begin, end]}
    described = json.dumps(header).encode()
    path.write_bytes(len(described).to_bytes(8, "little") + described + np.ones(end // 4, np.float32).tobytes())


def model(folder: pathlib.Path) -> Target:
    """A whole run directory with its model, as every command on a finished run opens it."""
    from drex_jax import checkpoint

    _finished(folder)
    carry = Carry(np.zeros((6, 1), np.float32), np.ones((5, 1), np.float32))  # pyright: ignore[reportArgumentType]
    checkpoint.save_model(folder / run_directory.MODEL, {"carry": carry, "params": {}})
    files = [path for path in sorted((folder / run_directory.MODEL).rglob("*")) if path.is_file()]
    names = [path.relative_to(folder).as_posix() for path in files]
    return _of_folder(folder, names, lambda: finished_run.open_run(folder) and None)


TARGETS: Mapping[str, tuple[Callable[[pathlib.Path], Target], int]] = {  # and how many inputs the full job gives each
    "amazon": (amazon, 40_000),
    "yelp": (yelp, 40_000),
    "amazon_ratings": (amazon_ratings_only, 150_000),
    "movielens": (movielens, 40_000),
    "movielens_tags": (movielens_tags, 40_000),
    "movielens_100k": (movielens_100k, 40_000),
    "table_separated": (table_separated, 40_000),
    "table_real": (table_real, 40_000),
    "table_json": (table_json, 40_000),
    "table_vectors": (table_vectors, 40_000),
    "table_parquet": (table_parquet, 40_000),
    "mmrec_inter": (mmrec_inter, 40_000),
    "metadata": (metadata, 150_000),
    "features": (features, 150_000),
    "columns": (columns, 100_000),
    "lists": (lists, 60_000),
    "run": (run, 10_000),
    "update": (update, 20_000),
    "bert": (bert, 40_000),
    "model": (model, 1_000),
}
