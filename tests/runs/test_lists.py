"""Lists of a run's evaluation, in files from untrusted sources."""

from __future__ import annotations

import io
import pathlib
import zipfile

import numpy as np
import pytest

from drex_jax.common.errors import UserError
from drex_jax.runs.lists import read_lists, write_lists


def npy(array: np.ndarray) -> bytes:
    sink = io.BytesIO()
    np.save(sink, array)
    return sink.getvalue()


def member(path: pathlib.Path, content: bytes, compression: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("users.npy", content)


def test_what_was_written_is_read(tmp_path: pathlib.Path) -> None:
    write_lists(tmp_path / "a.npz", {"users": np.arange(3), "ndcg": np.ones(3)})
    found = read_lists(tmp_path / "a.npz")
    np.testing.assert_array_equal(found["users"], [0, 1, 2])
    assert list(found) == ["users", "ndcg"]


@pytest.mark.parametrize(
    ("content", "compression"),
    [
        (npy(np.zeros(1_000_000)), zipfile.ZIP_DEFLATED),  # far larger than the file
        (npy(np.zeros(9)).replace(b"(9,), }" + b" " * 14, b"(9" + b"0" * 14 + b",), }"), zipfile.ZIP_STORED),
        (npy(np.array([{}], object)), zipfile.ZIP_STORED),
        (b"no array", zipfile.ZIP_STORED),
        (b"\x93NUMPY\x01\x00v\x00" + b"(" * 118, zipfile.ZIP_STORED),
    ],
    ids=["compressed", "a huge claim", "objects", "bytes", "no header"],
)
def test_other_members_are_refused(tmp_path: pathlib.Path, content: bytes, compression: int) -> None:
    member(tmp_path / "a.npz", content, compression)
    with pytest.raises(UserError, match=r"a.npz: damaged; it should hold the lists"):
        read_lists(tmp_path / "a.npz")


def test_another_version_of_zip_files(tmp_path: pathlib.Path) -> None:
    member(tmp_path / "a.npz", npy(np.zeros(3)))
    data = bytearray((tmp_path / "a.npz").read_bytes())
    data[data.index(b"PK\x01\x02") + 6] = 210  # the version that is needed to read it
    (tmp_path / "a.npz").write_bytes(data)
    with pytest.raises(UserError, match=r"a.npz: damaged"):
        read_lists(tmp_path / "a.npz")
