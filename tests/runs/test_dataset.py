"""The data set of a run directory: prepared once, opened without raw files."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import numpy as np
import pytest

from drex_jax.common.cache import Store
from drex_jax.common.errors import UserError
from drex_jax.data.tokens import Tokens
from drex_jax.runs.dataset import open_dataset, prepare
from drex_jax.text import vocabulary
from drex_jax.text.vocabulary import Vocabulary
from drex_jax.training.settings import base, settings_of


def settings(**changes: Any) -> Any:
    chosen = base()
    chosen.data.synthetic.update(num_interactions=200, num_users=12, num_items=10)
    chosen.text.update(vocabulary_size=300, max_tokens=4)
    chosen.update_from_flattened_dict({name.replace("__", "."): value for name, value in changes.items()})
    return chosen


def test_prepared_once_and_opened_without_raw_data(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = prepare(settings_of(settings()), tmp_path)
    monkeypatch.setattr("drex_jax.runs.dataset.load_interactions", None)
    for again in (prepare(settings_of(settings()), tmp_path), open_dataset(settings_of(settings()), tmp_path)):
        assert again.facts == first.facts
        assert again.sizes == first.sizes
        np.testing.assert_array_equal(again.events.rating, first.events.rating)
        assert again.events.tokens is not None
        assert first.events.tokens is not None
        np.testing.assert_array_equal(again.events.tokens.ids, first.events.tokens.ids)
    assert sum(first.sizes) == 200
    assert any("were cut at 4 tokens" in notice for notice in first.facts["notices"])


def test_preparation_cut_short_is_done_again(tmp_path: pathlib.Path) -> None:
    first = prepare(settings_of(settings()), tmp_path).facts
    (tmp_path / "history" / "facts.json").unlink()  # the last file written
    (tmp_path / "history" / "user.npy").write_bytes(b"half")
    again = prepare(settings_of(settings()), tmp_path).facts
    assert again.keys() == first.keys()
    assert all(again[name] == first[name] for name in first if name != "seconds")


@pytest.mark.parametrize("changes", [{"text__enabled": False}, {"data__synthetic__missing_text": 1.0}])
def test_without_texts_there_is_no_vocabulary(tmp_path: pathlib.Path, changes: dict[str, Any]) -> None:
    dataset = prepare(settings_of(settings(**changes)), tmp_path)
    assert dataset.vocabulary is None
    assert dataset.events.tokens is None
    assert not (tmp_path / "history" / "vocabulary.model").exists()


def test_lost_vocabulary_is_named(tmp_path: pathlib.Path) -> None:
    prepare(settings_of(settings()), tmp_path)
    (tmp_path / "history" / "vocabulary.model").unlink()
    with pytest.raises(UserError, match=r"vocabulary.model"):
        open_dataset(settings_of(settings()), tmp_path)


def test_lost_and_damaged_tokens_are_named(tmp_path: pathlib.Path) -> None:
    prepare(settings_of(settings()), tmp_path)
    folder = tmp_path / "history" / "tokens"
    np.save(folder / "cut.npy", np.zeros(3, bool))
    with pytest.raises(UserError, match=r"offsets.npy: does not fit"):
        open_dataset(settings_of(settings()), tmp_path)
    tokens = Tokens(np.zeros(0, np.uint16), np.zeros(1, np.int64), np.zeros(0, bool))
    tokens.save(folder)
    with pytest.raises(UserError, match="0 texts for 200 interactions"):
        open_dataset(settings_of(settings()), tmp_path)
    (folder / "ids.npy").unlink()
    with pytest.raises(UserError, match=r"ids.npy"):
        open_dataset(settings_of(settings()), tmp_path)


def test_parts_of_texts_are_encoded_once(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = prepare(settings_of(settings()), tmp_path / "whole").events.tokens
    monkeypatch.setattr(vocabulary, "PART_ROWS", 64)
    store = Store(tmp_path / "store")
    encoded = []
    encode = Vocabulary.encode
    monkeypatch.setattr(Vocabulary, "encode", lambda *given: encoded.append(len(given[1])) or encode(*given))
    for name in ("one", "two"):
        tokens = prepare(settings_of(settings()), tmp_path / name, store.arrays).events.tokens
        assert tokens is not None
        for column, expected in zip(tokens, whole, strict=True):
            np.testing.assert_array_equal(column, expected)
        assert tokens.ids.dtype == np.uint16
        assert encoded == [64, 64, 64, 8]


def test_order_of_learning_under_a_random_split(tmp_path: pathlib.Path) -> None:
    dataset = prepare(settings_of(settings(split__kind="random")), tmp_path)
    assert dataset.vocabulary is not None
    assert dataset.events.tokens is not None
    encoded = dataset.vocabulary.encode(dataset.interactions.text, 4)
    np.testing.assert_array_equal(dataset.events.tokens.ids, encoded.ids)
    train = dataset.sizes[0]
    assert (np.diff(dataset.interactions.timestamp[:train]) >= 0).all()
    assert dataset.events.user[0] == dataset.events.item[0] == 0
    assert dataset.events.user[:train].max() + 1 == len(set(dataset.events.user[:train].tolist()))


@pytest.mark.parametrize(
    ("name", "value"), [("notices", 3), ("vocabulary", "no"), ("seconds", None), ("notices", {"a": "b"})]
)
def test_facts_of_other_types(tmp_path: pathlib.Path, name: str, value: Any) -> None:
    prepare(settings_of(settings()), tmp_path)
    path = tmp_path / "history" / "facts.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {name: value}))
    with pytest.raises(UserError, match=rf"facts.json: damaged; its {name} is"):
        open_dataset(settings_of(settings()), tmp_path)


def test_tokens_beyond_the_vocabulary(tmp_path: pathlib.Path) -> None:
    prepare(settings_of(settings()), tmp_path)
    path = tmp_path / "history" / "tokens" / "ids.npy"
    ids = np.load(path)
    ids[3] = 300
    np.save(path, ids)
    with pytest.raises(UserError, match="tokens beyond the 300 of the vocabulary"):
        open_dataset(settings_of(settings()), tmp_path)
