"""Each library still says what we read from its errors."""

from __future__ import annotations

import asyncio
import csv
import errno
import io
import os
import pathlib
import tempfile

import numpy as np
import orjson
import pytest
import sentencepiece
import tensorstore

from drex_jax.common import foreign_messages


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_numpy_on_a_full_disk() -> None:
    with open("/dev/full", "wb") as file, pytest.raises(OSError, match="written") as caught:
        np.zeros(100_000).tofile(file)
    assert caught.value.errno is None
    assert foreign_messages.is_short_write(caught.value)


def test_tempfile_without_a_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: ["/dev/null/x"])
    with pytest.raises(FileNotFoundError) as caught:
        tempfile.gettempdir()
    assert foreign_messages.is_without_temporary_folder(caught.value)


def test_tensorstore_on_a_path_that_cannot_be(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").touch()
    store = tensorstore.KvStore.open(f"file://{tmp_path}/file/below/").result()
    with pytest.raises(ValueError, match="os_error_code") as caught:
        store.write("key", b"value").result()
    assert foreign_messages.tensorstore_errno(caught.value) == errno.ENOTDIR
    assert foreign_messages.tensorstore_errno(ValueError("another")) is None


def test_asyncio_after_its_end() -> None:
    loop = asyncio.new_event_loop()
    loop.close()
    with pytest.raises(RuntimeError) as caught:
        loop.call_soon(print)
    assert foreign_messages.is_closed_loop(caught.value)
    assert not foreign_messages.is_closed_loop(RuntimeError("another"))


def test_sentencepiece_with_too_small_a_vocabulary() -> None:
    with pytest.raises(RuntimeError) as caught:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(["abcdefgh"] * 20), model_writer=io.BytesIO(), vocab_size=5, minloglevel=2
        )
    assert foreign_messages.smallest_vocabulary(caught.value) == 3 + 1 + 8  # <unk> <s> </s>, the space, the letters
    assert foreign_messages.smallest_vocabulary(RuntimeError("another")) is None


def test_csv_that_ends_inside_quotes() -> None:
    for text, unfinished in (('"a', True), ('"a"b', False)):
        with pytest.raises(csv.Error) as caught:
            list(csv.reader([text], strict=True))
        assert foreign_messages.is_unfinished_quote(caught.value) == unfinished


def test_orjson_on_half_of_a_pair() -> None:
    for text, lone in (('"\\ud800"', True), ('"', False)):
        with pytest.raises(orjson.JSONDecodeError) as caught:
            orjson.loads(text)
        assert foreign_messages.is_lone_surrogate(caught.value) == lone
