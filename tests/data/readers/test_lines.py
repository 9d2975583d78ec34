import gzip
import random
import zlib

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drex_jax.common.errors import UserError
from drex_jax.data.readers import lines, parquet, table
from drex_jax.data.readers.lines import Lines, json_rows
from drex_jax.data.readers.quarantine import Quarantine


def read(path, skip_blank=True):
    quarantine = Quarantine()
    return list(Lines(path, quarantine, skip_blank)), quarantine


def text_of(rows, seed=0):
    """Return lines that gzip cannot compress much, so that the stream has many blocks."""
    rng = random.Random(seed)
    return b"".join(b"%d:%s\n" % (row, rng.randbytes(rng.randrange(400)).hex().encode()) for row in range(rows))


@given(st.binary(max_size=200), st.integers(1, 7))
def test_lines_are_those_of_split_whatever_the_block(tmp_path_factory, data, block):
    path = tmp_path_factory.mktemp("lines") / "file"
    data = data.removeprefix(b"\x1f\x8b")
    path.write_bytes(data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines, "BLOCK_BYTES", block + 3)
        lines_read, _ = read(path)
    expected = [(n, line) for n, line in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1)]
    assert lines_read == [(n, line) for n, line in expected if line.strip(b" \t\n\r\v\f")]


def test_gzip_is_recognised_by_its_first_bytes_and_may_have_members(tmp_path):
    path = tmp_path / "plain_name.json"
    path.write_bytes(gzip.compress(b"a\nb") + gzip.compress(b"c\nd\n") + b"\x00" * 20)
    lines_read, quarantine = read(path)
    assert [line for _, line in lines_read] == [b"a", b"bc", b"d"]
    assert not quarantine.rejected


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_members_of_a_byte_each(tmp_path, mark):
    path, table_columns = tmp_path / "file.gz", ("user", "item")
    path.write_bytes(b"".join(gzip.compress(bytes([byte])) for byte in mark + b"user\titem\nu\ti\n"))
    assert [line for _, line in read(path)[0]] == [b"user\titem", b"u\ti"]
    assert table.columns_of(path) == table_columns


@pytest.mark.parametrize("share", [0.001, 0.1, 0.33, 0.5, 0.9, 0.999])
def test_a_gzip_cut_short_keeps_every_whole_line(tmp_path, share):
    data = text_of(3000)
    packed = gzip.compress(data)
    cut = packed[: max(3, int(len(packed) * share))]
    path = tmp_path / "torn.gz"
    path.write_bytes(cut)
    lines_read, quarantine = read(path)
    prefix = zlib.decompressobj(31).decompress(cut)
    assert [line for _, line in lines_read] == prefix.split(b"\n")[:-1]
    assert dict(quarantine.by_reason) == {"the file ends early": 1}
    assert f"at line {len(lines_read) + 1:,}" in quarantine.notices[0]


@pytest.mark.parametrize("tail", [1, 4, 8])
def test_a_gzip_without_its_trailer_is_a_tear(tmp_path, tail):
    path = tmp_path / "torn.gz"
    path.write_bytes(gzip.compress(b"a\nb\n")[:-tail])
    lines_read, quarantine = read(path)
    assert [line for _, line in lines_read] == [b"a", b"b"]
    assert quarantine.rejected == 1


def test_a_gzip_damaged_midway_keeps_what_came_before(tmp_path):
    data = text_of(3000)
    packed = bytearray(gzip.compress(data))
    middle = len(packed) // 2
    packed[middle : middle + 50] = b"\xff" * 50
    path = tmp_path / "damaged.gz"
    path.write_bytes(packed)
    lines_read, quarantine = read(path)
    whole = data.split(b"\n")
    same = sum(n <= len(whole) and line == whole[n - 1] for n, line in lines_read)  # damage is detected some lines late
    good = zlib.decompressobj(31).decompress(bytes(packed[:middle])).count(b"\n")
    assert good > 1000
    assert same >= good
    assert quarantine.by_reason["the file ends early"] == 1
    assert "damaged" in quarantine.notices[0]


def test_garbage_after_a_member_is_a_tear(tmp_path):
    path = tmp_path / "file.gz"
    path.write_bytes(gzip.compress(b"a\nb\n") + b"garbage")
    lines_read, quarantine = read(path)
    assert [line for _, line in lines_read] == [b"a", b"b"]
    assert quarantine.rejected == 1


@pytest.mark.parametrize("position", ["first", "middle", "last", "last without line feed"])
def test_a_line_above_the_cap_is_never_held(tmp_path, monkeypatch, position):
    monkeypatch.setattr(lines, "BLOCK_BYTES", 64)
    monkeypatch.setattr(lines, "MAX_LINE_BYTES", 100)
    parts = {
        "first": b"%s\na\nb\n",
        "middle": b"a\n%s\nb\n",
        "last": b"a\nb\n%s\n",
        "last without line feed": b"a\nb\n%s",
    }
    path = tmp_path / "file"
    path.write_bytes(parts[position] % (b"x" * 1000))
    lines_read, _ = read(path)
    assert [line for _, line in lines_read if line is not None] == [b"a", b"b"]
    assert [n for n, line in lines_read if line is None] == [{"first": 1, "middle": 2}.get(position, 3)]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"a": 1', "invalid JSON"),
        (b'{"a": NaN}', "invalid JSON"),
        (b"[1]", "not a JSON object"),
        (b"7", "not a JSON object"),
        (b'{"a": "\xff"}', "invalid UTF-8"),
        (b'{"a": "\x00"}', "NUL byte"),
        (b'{"a": "\\ud800"}', "lone surrogate"),
        (b"[" * 5000, "invalid JSON"),
    ],
)
def test_lines_that_are_not_a_json_object(tmp_path, line, reason):
    path = tmp_path / "file"
    path.write_bytes(b'{"b": 1}\r\n' + line + b'\n\n{"b": 2}')
    quarantine = Quarantine()
    assert list(json_rows(path, quarantine)) == [(1, {"b": 1}), (4, {"b": 2})]
    assert dict(quarantine.by_reason) == {reason: 1}


def test_a_gzip_bomb_stops_early(tmp_path, monkeypatch):
    monkeypatch.setattr(lines, "EXPANDS_FREELY", 3 << 20)
    path, read = tmp_path / "bomb.gz", []
    path.write_bytes(gzip.compress(b"x" * (64 << 20), 9))
    with pytest.raises(UserError, match=r"bomb.gz: uncompressed it is more than 200 times as large.*uncompressed"):
        read.extend(map(len, lines.blocks(path)))
    assert sum(read) <= max(3 << 20, 200 * path.stat().st_size)


@pytest.mark.parametrize("dictionary", [True, False])
def test_a_parquet_bomb_stops_early(tmp_path, monkeypatch, dictionary):
    """One long text in every row, stored once in a dictionary, or compressed."""
    monkeypatch.setattr(lines, "EXPANDS_FREELY", 1 << 20)
    monkeypatch.setattr(parquet, "BATCH_ROWS", 16)
    path, table = tmp_path / "bomb.parquet", pa.table({"text": ["x" * 10_000] * 2_000})
    pq.write_table(table, path, use_dictionary=dictionary, compression="gzip")
    rows, read = parquet.rows(path, ("text",), Quarantine()), []
    with pytest.raises(UserError, match=r"bomb.parquet: uncompressed it is more than 200 times as large"):
        read.extend(rows)
    assert len(read) < (1_000 if dictionary else 1)


def test_a_file_that_compresses_well_is_accepted(tmp_path, monkeypatch):
    monkeypatch.setattr(lines, "EXPANDS_FREELY", 0)
    path, rows = tmp_path / "table.gz", b"".join(b"%d\t%d\t1.0\t0\t0\n" % (n // 9, n % 9) for n in range(200_000))
    path.write_bytes(gzip.compress(rows, 9))
    assert b"".join(lines.blocks(path)) == rows
    assert len(rows) > 6 * path.stat().st_size
