"""The store: only an equal request finds a result, and no fault of the disk stops a run."""

import errno
import hashlib
import itertools
import json
import logging
import mmap
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from drex_jax.common.cache import Store

INPUTS = {"users": np.arange(5, dtype=np.int32), "items": np.array([3, 1, 4, 1, 5], np.int32)}
OPTIONS = {"width": 4}
MADE = {"steps": np.arange(7, dtype=np.int32), "fill": np.array(0.5), "empty": np.zeros((0, 3), np.int8)}


def ask(store: Store, made: Mapping[str, np.ndarray] = MADE, inputs: Any = INPUTS, options: Any = OPTIONS):
    """Return the result, and True if it had to be made."""
    calls = []
    result = store.arrays("schedule", inputs, options, 1, lambda: calls.append(1) or made)
    return result, bool(calls)


def assert_same(result: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]) -> None:
    assert list(result) == list(expected)
    for name, array in expected.items():
        assert (result[name].dtype, result[name].shape) == (array.dtype, array.shape)
        assert result[name].tobytes() == array.tobytes()
        assert not result[name].flags.writeable
        assert result[name].flags.c_contiguous


def entries(folder: pathlib.Path) -> list[pathlib.Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def bytes_in(folder: pathlib.Path) -> int:
    return sum(path.stat().st_size for path in entries(folder))


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    messages = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    caplog.clear()
    assert not any("\n" in message for message in messages)
    return messages


DTYPES = st.sampled_from(["i4", ">i4", "f4", "f8", "?", "u1", "S3", "U2", "M8[s]", "c8"])
ARRAYS = DTYPES.flatmap(
    lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.text(max_size=4), ARRAYS, max_size=4))
def test_comes_back_as_it_was_made(made):
    with tempfile.TemporaryDirectory() as folder:
        for was_made in (True, False):
            result, calls = ask(Store(pathlib.Path(folder)), made)
            assert calls == was_made
            assert_same(result, made)


@pytest.mark.parametrize(
    "layout",
    [
        lambda array: array.T,
        lambda array: array[::-1, ::2],
        lambda array: np.broadcast_to(array[0], (3, 8)),
        lambda array: np.asfortranarray(array),
        lambda array: array[:, 3],
    ],
)
def test_layout_does_not_count(tmp_path, layout):
    array = layout(np.arange(48, dtype=np.int32).reshape(6, 8))
    np.save(tmp_path / "array.npy", np.ascontiguousarray(array))
    first, made = ask(Store(tmp_path), {"out": array}, {"in": array})
    assert made
    assert_same(first, {"out": array})
    for same in (array.copy(order="C"), np.load(tmp_path / "array.npy", mmap_mode="r")):
        again, made = ask(Store(tmp_path), MADE, {"in": same})
        assert not made
        assert_same(again, {"out": array})


@pytest.mark.parametrize("items", [(1 << 18) - 1, 1 << 18, (1 << 18) + 1, (1 << 20) + 77])
def test_large_arrays_are_hashed_and_kept_whole(tmp_path, items):
    array = np.arange(2 * items, dtype=np.int32)[::2]
    result, _ = ask(Store(tmp_path), {"out": array}, {"in": array})
    assert_same(result, {"out": array})
    for index in (0, items // 2, items - 1):
        other = array.copy()
        other[index] ^= 1
        assert ask(Store(tmp_path), MADE, {"in": other})[1], index


def test_large_entries_are_memory_mapped_and_small_ones_are_not(tmp_path):
    def mapped(array: Any) -> bool:
        while isinstance(array, np.ndarray):
            array = array.base
        return isinstance(array, mmap.mmap)

    large = {"out": np.zeros(5 << 20, np.uint8)}
    for _ in range(2):
        assert mapped(ask(Store(tmp_path), large, options={"large": True})[0]["out"])
        assert not mapped(ask(Store(tmp_path))[0]["steps"])


SMALL = st.sampled_from([0, 1, 256]).flatmap(
    lambda value: st.builds(
        lambda dtype, shape: np.full(shape, value).astype(dtype),
        st.sampled_from(["u1", "i1", "<u2", ">u2", "i4", "f4", "S1"]),
        st.sampled_from([(), (0,), (1,), (2,), (1, 2), (2, 1), (4,), (0, 2)]),
    )
)
VALUES = st.sampled_from(
    [None, True, False, 1, 0, 1.0, 0.0, "1", "", "None", "true", float("inf"), [], [1], [[1]], ["1"], {}, {"1": 1}]
)
MOSTLY_NONE = st.one_of(st.just({}), st.just({}), st.dictionaries(st.sampled_from("abc"), VALUES, max_size=2))
INPUT = st.dictionaries(st.sampled_from(["a", "b", "ab", ""]), SMALL, max_size=2)
REQUESTS = st.tuples(st.sampled_from(["a", "a", "a-b"]), INPUT, MOSTLY_NONE, st.sampled_from([1, 1, 2]))


@st.composite
def near_requests(draw) -> list[tuple]:
    """Draw requests, each followed by others that differ from it in at most one thing."""
    requests = []
    for kind, inputs, options, version in draw(st.lists(REQUESTS, min_size=1, max_size=4)):
        requests.append((kind, inputs, options, version))
        for name, array in inputs.items():
            others = [array.view(dtype) for dtype in draw(st.permutations(["u1", "i1", "S1"])) if array.itemsize == 1]
            others += [
                array.reshape(1, *array.shape),
                array.reshape(-1),
                array.byteswap().view(array.dtype.newbyteorder()),
            ]
            requests += [(kind, {**inputs, name: other}, options, version) for other in others]
            rest = {other: inputs[other] for other in inputs if other != name}
            requests.append((kind, {**rest, draw(st.sampled_from(["c", "a", "ba"])): array}, options, version))
        requests.append((kind, inputs, draw(MOSTLY_NONE), version))
        requests.append(("b", inputs, options, version))
    return requests


def full_key(request) -> tuple:
    """Return the slow, obvious version of a key: everything that counts."""
    kind, inputs, options, version = request
    arrays = tuple(
        (name, inputs[name].dtype.str, inputs[name].shape, inputs[name].tobytes()) for name in sorted(inputs)
    )
    return kind, arrays, repr(sorted(options.items())), version


@settings(max_examples=60, deadline=None)
@given(near_requests())
def test_requests_share_an_entry_exactly_if_they_are_equal(requests):
    with tempfile.TemporaryDirectory() as folder:
        store, expected = Store(pathlib.Path(folder)), {}
        for number, request in enumerate(requests):
            value = store.arrays(*request, make=lambda number=number: {"number": np.array(number)})["number"]
            assert value == expected.setdefault(full_key(request), number)


def test_similar_requests_differ_and_equal_requests_do_not(tmp_path):
    one, two = np.zeros(1, np.int32), np.zeros(2, np.int32)
    different = [
        ({"a": one, "b": two}, {}),
        ({"a": two, "b": one}, {}),
        ({"ab": np.zeros(3, np.int32)}, {}),
        ({"a": one, "c": two}, {}),
        ({"a": one, "b": two.reshape(1, 2)}, {}),
        ({"a": one, "b": two.view(np.float32)}, {}),
        ({"a": one, "b": two.view(np.int64)}, {}),
        ({"a": one, "b": two.view(">i4")}, {}),
        ({"a": one}, {}),
        ({"a": one, "b": two}, {"a": 1}),
        ({"a": one, "b": two}, {"a": [1, 2]}),
        ({"a": one, "b": two}, {"a": {"b": 1}}),
        ({"a": one, "b": two}, {"a": float("nan")}),
        ({"a": one, "b": two}, {"a": "NaN"}),
    ]
    for number, (inputs, options) in enumerate(different):
        assert ask(Store(tmp_path), {"number": np.array(number)}, inputs, options)[1]
    most_similar = [
        ({"b": two, "a": one}, {"a": np.int64(1)}, 9),
        ({"b": two, "a": one}, {"a": (1, np.int8(2))}, 10),
        ({"b": two, "a": one}, {"a": np.float64("nan")}, 12),
    ]
    for inputs, options, number in most_similar:
        result, made = ask(Store(tmp_path), MADE, inputs, options)
        assert not made
        assert result["number"] == number


@pytest.mark.parametrize(
    "option", [object(), {1: "int key"}, pathlib.Path("a"), b"a", {"deep": [{"er": {1, 2}}]}, np.zeros(2), 1j]
)
def test_an_option_of_another_type_is_refused(tmp_path, option):
    with pytest.raises(TypeError, match=r"option .* has no place in a key"):
        ask(Store(tmp_path), options={"option": option})


@pytest.mark.parametrize("array", [np.array([None]), np.zeros(2, "i4,f4"), np.array(["a"], np.dtypes.StringDType())])
def test_arrays_without_a_plain_dtype_are_refused(tmp_path, array):
    with pytest.raises(TypeError, match=r"array 'in' of dtype .* cannot be stored"):
        ask(Store(tmp_path), inputs={"in": array})
    with pytest.raises(TypeError, match=r"array 'out' of dtype .* cannot be stored"):
        ask(Store(tmp_path), {"out": array})
    assert entries(tmp_path) == []


@pytest.mark.parametrize("kind", ["", "..", "a/b", "a b", "a\n", ".a"])
def test_a_kind_is_a_folder_name(tmp_path, kind):
    with pytest.raises(ValueError, match="not a folder's name"):
        Store(tmp_path).arrays(kind, {}, {}, 1, dict)


def test_what_make_raises_passes_through_and_leaves_nothing(tmp_path):
    def fail():
        raise RuntimeError("no schedule")

    with pytest.raises(RuntimeError, match="no schedule"):
        Store(tmp_path / "store").arrays("schedule", INPUTS, OPTIONS, 1, fail)
    assert list(tmp_path.iterdir()) == []


def test_damage_at_any_byte_and_any_cut_is_never_served(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda file: None)  # a thousand entries are written
    store = Store(tmp_path)
    ask(store)
    (entry,) = entries(tmp_path)
    sound = entry.read_bytes()
    offsets = json.loads(sound[sound.index(b'{"key"') : -48])["arrays"]
    data = {byte for name, _, _, begin, _ in offsets for byte in range(begin, begin + MADE[name].nbytes)}
    covered = data | set(range(sound.index(b'{"key"'), len(sound)))  # all but the padding
    cuts = [(sound[:length], True) for length in range(len(sound))]
    longer = [(sound + b"\0", True), (sound + sound[-48:], True), (sound + sound, False)]  # the last: the same entry
    flips = [(sound[:i] + bytes([sound[i] ^ 1]) + sound[i + 1 :], i in covered) for i in range(len(sound))]
    assert len(data) == sum(array.nbytes for array in MADE.values())
    for damaged, noticed in [*cuts, *longer, *flips]:
        entry.write_bytes(damaged)
        result, made = ask(store)
        assert_same(result, MADE)
        assert made == noticed
        messages = warnings_of(caplog)
        assert len(messages) == noticed
        assert all(str(entry) in message and "computed again" in message for message in messages)
        assert noticed == (entry.read_bytes() == sound)
    assert entries(tmp_path) == [entry]


def test_an_entry_under_another_name_is_not_served(tmp_path, caplog):
    store = Store(tmp_path)
    ask(store)
    (first,) = entries(tmp_path)
    ask(store, {"other": np.arange(3)}, options={"width": 8})
    (second,) = set(entries(tmp_path)) - {first}
    first.write_bytes(second.read_bytes())
    result, made = ask(store)
    assert made
    assert_same(result, MADE)
    assert "another entry" in warnings_of(caplog)[0]


def test_bytes_are_never_taken_for_objects(tmp_path, caplog):
    """They would be taken for addresses in an entry that was forged with matching checksums."""
    store = Store(tmp_path)
    ask(store)
    (entry,) = entries(tmp_path)
    sound = entry.read_bytes()
    begin = sound.index(b'{"key"')
    described = json.loads(sound[begin:-48])
    described["arrays"] = [["out", "|O", [1], 0, "0" * 64]]
    footer = json.dumps(described).encode()
    trailer = hashlib.sha256(footer).digest() + len(footer).to_bytes(8, "little") + sound[-8:]
    entry.write_bytes(sound[:begin] + footer + trailer)
    assert ask(store)[1]
    assert "Python objects" in warnings_of(caplog)[0]


def test_a_removed_entry_is_made_again_without_a_warning(tmp_path, caplog):
    ask(Store(tmp_path))
    entries(tmp_path)[0].unlink()
    assert ask(Store(tmp_path))[1]
    assert not ask(Store(tmp_path))[1]
    assert warnings_of(caplog) == []


def test_a_large_entry_cut_short_is_noticed_without_its_checksums(tmp_path, caplog):
    store = Store(tmp_path, verify_bytes=0)
    large = {"out": np.arange(2 << 20, dtype=np.int32)}
    ask(store, large)
    (entry,) = entries(tmp_path)
    os.truncate(entry, entry.stat().st_size - 4096)
    result, made = ask(store, large)
    assert made
    assert_same(result, large)
    assert len(warnings_of(caplog)) == 1


def test_checksums_are_verified_up_to_the_size_stated(tmp_path):
    ask(Store(tmp_path))
    (entry,) = entries(tmp_path)
    content = bytearray(entry.read_bytes())
    content[0] ^= 1
    entry.write_bytes(content)
    assert not ask(Store(tmp_path, verify_bytes=len(content) - 1))[1]
    assert ask(Store(tmp_path, verify_bytes=len(content)))[1]


def test_a_disk_that_cannot_be_used_stops_nothing(tmp_path, caplog, monkeypatch):
    (tmp_path / "file").write_text("not a folder")
    ask(Store(tmp_path / "blocked"))
    (blocked,) = entries(tmp_path / "blocked")
    blocked.unlink()
    blocked.mkdir()  # can neither be read nor replaced

    def full(file):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        stores = [Store(tmp_path / "full"), Store(tmp_path / "file"), Store(tmp_path / "blocked")]
        for store in stores:
            array = np.arange(6).reshape(2, 3)
            for _ in range(2):
                result, made = ask(store, {"out": array.T, "scalar": np.float32(3)})
                assert made
                assert_same(result, {"out": array.T, "scalar": np.asarray(np.float32(3))})
            assert array.flags.writeable
            (message,) = warnings_of(caplog)  # one for each store
            assert "cannot keep results" in message
    assert entries(tmp_path) == [tmp_path / "file"]
    assert ask(stores[0])[1]
    assert not ask(stores[0])[1]


def test_a_disk_that_fills_while_an_entry_is_written_stops_nothing(tmp_path):
    script = (
        "import resource\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, resource.RLIM_INFINITY))\n"
        "for _ in range(2): assert (ask()['out'] == made['out']).all()\n"
    )
    assert finish(run(tmp_path, script)).count("cannot keep results") == 1
    assert entries(tmp_path) == []


def test_a_folder_without_permissions_stops_nothing(tmp_path, caplog):
    ask(Store(tmp_path))
    kind = tmp_path / "schedule"
    for mode, made in ((0o500, False), (0o000, True)):
        kind.chmod(mode)
        try:
            if os.access(kind, os.W_OK):
                pytest.skip("permissions do not hold for this user")
            result, calls = ask(Store(tmp_path))
        finally:
            kind.chmod(0o700)
        assert calls == made
        assert_same(result, MADE)
        assert len(warnings_of(caplog)) == made


def run(folder: pathlib.Path, script: str, *arguments: object) -> subprocess.Popen:
    """Start a process with a script in which `ask()` asks the store in `folder` for `made`."""
    prelude = (
        "import os, pathlib, random, sys, time\nimport numpy as np\nfrom drex_jax.common.cache import Store\n"
        "folder = pathlib.Path(sys.argv[1])\nstore = Store(folder)\n"
        "made = {'out': np.arange(100_000)}\n"
        "def ask(): return store.arrays('schedule', {'in': np.arange(9)}, {}, 1, lambda: made)\n"
    )
    command = [sys.executable, "-c", prelude + script, str(folder), *map(str, arguments)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen, status: int = 0) -> str:
    _, errors = process.communicate(timeout=60)
    assert process.returncode == status, errors
    return errors


def test_processes_that_make_the_same_entry_at_once_all_succeed(tmp_path):
    script = (
        "(folder.parent / f'ready{sys.argv[2]}').touch()\n"
        "while not (folder.parent / 'go').exists(): time.sleep(0.001)\n"
        "for _ in range(20): assert (ask()['out'] == made['out']).all()\n"
    )
    processes = [run(tmp_path / "store", script, number) for number in range(3)]
    while len(list(tmp_path.glob("ready*"))) < 3:
        assert all(process.poll() is None for process in processes)
        time.sleep(0.01)
    (tmp_path / "go").touch()
    assert [finish(process) for process in processes] == [""] * 3
    assert [path.suffix for path in entries(tmp_path / "store")] == [".arrays"]


def test_processes_get_right_results_while_entries_are_damaged_and_removed(tmp_path):
    script = (
        "random.seed(int(sys.argv[2]))\n"
        "for _ in range(60):\n"
        "    result = ask()['out']\n"
        "    assert result.shape == (100_000,) and (result == made['out']).all()\n"
        "    for entry in folder.glob('*/*.arrays'):\n"
        "        try: random.choice([entry.unlink, lambda: os.truncate(entry, 5000), lambda: store.trim(0), int])()\n"
        "        except FileNotFoundError: pass\n"
    )
    for process in [run(tmp_path, script, number) for number in range(2)]:
        errors = finish(process)
        assert all("was damaged and is computed again" in line for line in errors.splitlines())
    assert not list(tmp_path.rglob("*.partial"))


def test_what_a_killed_process_left_is_swept_once_it_is_old(tmp_path, caplog):
    finish(run(tmp_path, "pathlib.Path.replace = lambda *names: os._exit(9)\nask()"), status=9)
    (partial,) = entries(tmp_path)
    assert partial.suffix == ".partial"
    finish(run(tmp_path, "assert ask()['out'].sum() == made['out'].sum()"))
    assert partial.exists()  # its writer could still be at work
    (entry,) = set(entries(tmp_path)) - {partial}
    os.utime(partial, (0, 0))
    ask(Store(tmp_path))
    assert not partial.exists()
    assert entry.exists()
    assert warnings_of(caplog) == []


def test_a_bound_removes_the_least_recently_used(tmp_path):
    def have() -> list[int]:
        kept = []
        for number, path in names.items():
            kept += [number] * path.exists()
        return kept

    store, names = Store(tmp_path), {}
    for number in range(4):
        ask(store, options={"number": number})
        (names[number],) = set(entries(tmp_path)) - set(names.values())
        os.utime(names[number], (number, number))
    size = names[0].stat().st_size
    assert bytes_in(tmp_path) == 4 * size
    ask(store, options={"number": 0})  # used, so it is the last to be removed
    store.trim(3 * size)
    assert have() == [0, 2, 3]
    ask(Store(tmp_path, max_bytes=3 * size - 1), options={"number": 1})
    assert have() == [0, 1]
    assert bytes_in(tmp_path) == 2 * size
    ask(Store(tmp_path, max_bytes=0), options={"number": 3})
    assert have() == [3]  # the new one always stays
    store.trim(0)
    assert bytes_in(tmp_path) == 0
    assert entries(tmp_path) == []


def test_arrays_in_use_outlive_their_entry(tmp_path):
    store = Store(tmp_path)
    array = np.arange(2 << 20, dtype=np.int32)
    results = [ask(store, {"out": array})[0]["out"] for _ in range(2)]
    store.trim(0)
    assert ask(store, {"out": -array})[1]
    assert all((result == array).all() for result in results)


def test_other_files_in_the_folder_are_left_alone(tmp_path):
    (tmp_path / "schedule").mkdir()
    others = [tmp_path / "notes.txt", tmp_path / "x.arrays", tmp_path / "schedule" / "x.npy"]
    for path in others:
        path.write_text("mine")
        os.utime(path, (0, 0))
    store = Store(tmp_path, max_bytes=0)
    ask(store)
    store.trim(0)
    assert entries(tmp_path) == sorted(others)


def test_files_are_as_readable_as_others_of_the_user(tmp_path):
    (tmp_path / "plain").write_text("")
    ask(Store(tmp_path))
    modes = {path.stat().st_mode for path in entries(tmp_path)}
    assert len(entries(tmp_path)) == 2
    assert len(modes) == 1


def test_offsets_are_aligned(tmp_path):
    made = {str(size): np.zeros(size, np.int8) for size in itertools.chain(range(3), range(62, 67))}
    made["large"] = np.zeros(5 << 20, np.int8)
    result, _ = ask(Store(tmp_path), made)
    assert all(array.ctypes.data % 64 == 0 for array in result.values())
