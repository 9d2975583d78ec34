import csv
import gzip
import io

from hypothesis import given
from hypothesis import strategies as st

from drex_jax.data.readers import separated
from drex_jax.data.readers.lines import Lines
from drex_jax.data.readers.quarantine import Quarantine
from drex_jax.data.readers.separated import records

FIELD = st.text(st.sampled_from('ab ,"\n\t;é'), max_size=6)


def read(path, data, delimiter=","):
    path.write_bytes(data)
    quarantine = Quarantine()
    return list(records(Lines(path, quarantine, skip_blank=False), delimiter, quarantine)), quarantine


@given(st.lists(st.tuples(FIELD, FIELD, FIELD), min_size=1, max_size=8), st.sampled_from(",\t;"))
def test_reads_back_what_csv_wrote(tmp_path_factory, rows, delimiter):
    buffer = io.StringIO()
    csv.writer(buffer, delimiter=delimiter, quoting=csv.QUOTE_ALL).writerows(rows)
    numbered, quarantine = read(tmp_path_factory.mktemp("csv") / "f", buffer.getvalue().encode(), delimiter)
    assert [tuple(fields) for _, fields in numbered] == rows
    assert not quarantine.rejected


def test_line_numbers_are_those_where_a_record_starts(tmp_path):
    numbered, _ = read(tmp_path / "f", b'a,b\r\n\r\n"x\n\ny",1\r\nz,2')
    assert numbered == [(1, ["a", "b"]), (3, ["x\n\ny", "1"]), (6, ["z", "2"])]


def test_a_torn_quote_costs_one_row(tmp_path):
    good = [b'u%d,"text, %d"\n' % (n, n) for n in range(100)]
    data = b"user,text\n" + b"".join(good[:50]) + b'torn,"no end\n' + b"".join(good[50:])
    numbered, quarantine = read(tmp_path / "f", data)
    assert len(numbered) == 101
    assert numbered[51] == (53, ["u50", "text, 50"])
    assert quarantine.rejected == 1


def test_a_bad_record_of_several_lines_is_one_row(tmp_path):
    numbered, quarantine = read(tmp_path / "f", b'a,b\n1,2\n"x\ny\nz",2,3\n3,4\n')
    assert [fields for _, fields in numbered] == [["a", "b"], ["1", "2"], ["3", "4"]]
    assert dict(quarantine.by_reason) == {"wrong number of fields": 1}


def test_a_tear_inside_a_quoted_field_is_one_row(tmp_path):
    data = b"a,b\n" + b"".join(b'%d,"one\ntwo %d"\n' % (n, n * 7919) for n in range(2000))
    numbered, quarantine = read(tmp_path / "f.gz", gzip.compress(data)[:3000])
    assert len(numbered) > 100
    assert all(fields == [str(n), f"one\ntwo {n * 7919}"] for n, (_, fields) in enumerate(numbered[1:]))
    assert dict(quarantine.by_reason) == {"the file ends early": 1}


def test_quotes_that_swallow_one_another_take_no_more_than_twice_the_file(tmp_path, monkeypatch):
    """Every line opens a quote, so without a limit each would be read again with all lines after it."""
    monkeypatch.setattr(separated, "MAX_LINE_BYTES", 2_000)
    taken = []
    take = separated._Feed.__next__
    monkeypatch.setattr(separated._Feed, "__next__", lambda feed: taken.append(1) or take(feed))
    lines = [b'x","z', b"1,2"] * 1_000
    numbered, quarantine = read(tmp_path / "f", b"a,b\n" + b"\n".join(lines))
    assert len(numbered) - 1 + quarantine.rejected == len(lines)
    assert [fields for _, fields in numbered[1:]] == [["1", "2"]] * (len(numbered) - 1)
    assert len(numbered) > 900
    assert len(taken) < 4 * len(lines)
