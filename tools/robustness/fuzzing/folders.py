"""Targets: arrays, run directories, updates and BERTs. Any content gives a result or a `UserError`."""

from __future__ import annotations

import contextlib
import io
import json
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np

from drex_jax.common.errors import UserError
from drex_jax.common.files import read_json, write_json, write_text
from drex_jax.config.tree import to_json
from drex_jax.data import storage
from drex_jax.data.readers import item_features
from drex_jax.data.readers.quarantine import TORN
from drex_jax.data.strings import Strings
from drex_jax.models.drex.model import DReX, DReXOptions
from drex_jax.models.drex.network import NetworkOptions
from drex_jax.models.protocol import States
from drex_jax.models.running_bias import RunningBias
from drex_jax.runs import checkpoint, dataset, layout
from drex_jax.runs.lists import read_lists
from drex_jax.serving import finished_run, update_log
from drex_jax.serving.interaction_log import InteractionLog
from drex_jax.serving.rows import RowSchema, check_table
from drex_jax.serving.update_file import read_update_file
from drex_jax.serving.update_log import PendingUpdate
from drex_jax.text import vocabulary
from drex_jax.text.bert import weights, wordpiece
from drex_jax.text.vocabulary import Vocabulary
from drex_jax.training.settings import Settings, base, settings_of
from tools.robustness.fuzzing import samples
from tools.robustness.fuzzing.samples import ROWS
from tools.robustness.fuzzing.target import Target, content_of, count_json, require_words

USERS, ITEMS = 6, 5  # users and items of a run
CARRY = States(*(np.ones((number, 1), np.float32) for number in (USERS, ITEMS)))  # pyright: ignore[reportArgumentType] (NumPy's serve)


def _npy(array: np.ndarray, pickled: bool = False) -> bytes:
    sink = io.BytesIO()
    np.save(sink, array, allow_pickle=pickled)
    return sink.getvalue()


def features(folder: pathlib.Path) -> Target:
    """Return the target for files NAME_feat.npy."""
    folder.mkdir()
    path, ids = folder / "image_feat.npy", np.array([2, 0, 1])

    def check(data: bytes) -> None:
        path.write_bytes(data)
        try:
            found = item_features.read({"image": path}, ids, [])["image"]
        except UserError as error:
            require_words(error)
            return
        assert found.dtype == np.float32, "features of another type"
        assert len(found) == len(ids), "features of other items"
        assert not np.isinf(found).any(), "features that are not finite"

    values = np.arange(12.0).reshape(3, 4)
    arrays = [values, values.astype(np.float32), values.astype(np.int64), np.asfortranarray(values)]
    objects = _npy(np.array([[{}]], object), pickled=True)
    return Target([*map(_npy, arrays), objects], check)


def columns(folder: pathlib.Path) -> Target:
    """Return the target for a column of a run directory."""
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
    """Return the target for files lists/WAY.npz."""
    folder.mkdir()
    path, sink = folder / "strict.npz", io.BytesIO()
    np.savez(sink, users=np.arange(3), ndcg=np.ones(3))

    def check(data: bytes) -> None:
        path.write_bytes(data)
        with contextlib.suppress(UserError):
            for array in read_lists(path).values():
                assert not array.dtype.hasobject, "Python objects"

    return Target([sink.getvalue()], check)


def words(folder: pathlib.Path) -> Target:
    """Return the target for a subword vocabulary."""
    folder.mkdir()
    path, texts = folder / "vocabulary.model", Strings.of(["it holds its tune", "", "strings & picks \u3000"] * 30)

    def check(data: bytes) -> None:
        path.write_bytes(data)
        with contextlib.suppress(UserError):
            read = Vocabulary.load(path)
            tokens = read.encode(texts.part(0, 3), 6)
            assert not len(tokens.ids) or tokens.ids.max() < len(read), "tokens beyond the vocabulary"
            assert len(read.words(tokens).word) == len(tokens.ids), "tokens of no word"

    trained = vocabulary.train(texts, 30)
    assert trained is not None, "no vocabulary"
    return Target([trained.model], check)


# Targets that are a folder of files: an input is the number of a file (one byte) and its new content.


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
            require_words(error)
        finally:
            path.write_bytes(good[path.relative_to(folder).as_posix()])

    return Target([bytes([number]) + good[name] for number, name in enumerate(files)], check)


def _settings() -> Settings:
    settings: Any = base()
    settings.data.synthetic.update(num_interactions=60, num_users=USERS, num_items=ITEMS, seed=1)
    settings.text.update(vocabulary_size=300, max_tokens=8)
    settings.model.name = "popularity"
    return settings_of(settings)


def _finished(folder: pathlib.Path) -> Settings:
    """Write a finished run of popularity without its model; nothing is trained."""
    settings = _settings()
    folder.mkdir()
    with contextlib.redirect_stdout(io.StringIO()):
        dataset.read_into(settings, folder)
    write_text(layout.RunLayout(folder).config, to_json(settings))
    results = {name: {} for name in layout.RESULT_KEYS} | {"schema": layout.SCHEMA, "seeds": [0]}
    write_json(layout.RunLayout(folder).results, results)
    model = DReX(DReXOptions(NetworkOptions(), RunningBias(3.0, 1.0, 1.0)))
    write_json(layout.RunLayout(folder).constants, model.constants())
    interactions, _ = dataset.open_interactions(settings, folder)
    update_log.commit(folder, [], PendingUpdate(applied=3), interactions.take(np.arange(3)), CARRY)
    return settings


def run(folder: pathlib.Path) -> Target:
    """Return the target for a run directory without its model."""
    _finished(folder)

    def read() -> None:
        settings = finished_run.settings_of(folder)
        opened = dataset.open_dataset(settings, folder)
        DReX.from_constants(read_json(layout.RunLayout(folder).constants, ()))
        known, saved = update_log.read(folder)
        log = InteractionLog(opened.interactions, opened.sizes[0], None if saved is None else saved.since)
        for number in range(len(log)):
            log.row(number)
        assert len(log.table()) == len(log), "rows of the journal that are in no table"
        if opened.vocabulary is not None and opened.events.tokens is not None:
            opened.vocabulary.words(opened.events.tokens)
        assert all(batch["batch"] == number for number, batch in enumerate(known, 1))

    files = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file()]
    return _of_folder(folder, [name for name in files if name != layout.RunLayout(folder).quarantine.name], read)


def update(folder: pathlib.Path) -> Target:
    """Return the target for a file of new interactions for a finished run."""
    settings = _finished(folder)
    interactions, parts = dataset.open_interactions(settings, folder)
    path, start = folder / "new", 2e9

    def check(data: bytes) -> None:
        path.write_bytes(data)
        try:
            found = read_update_file(path, settings, interactions)
        except UserError as error:
            require_words(error)
            return
        log = InteractionLog(interactions, len(parts.train))
        checked = check_table(found.interactions, RowSchema.of(interactions))
        new = log.append_valid(checked)
        given = len(found.interactions)
        assert not checked.refused, "a row of a file breaks a rule of Python's rows"
        assert len(new.rows) == len(new.user) == len(new.item), "rows without a number"
        assert len(new.rows) + len(new.refused) == given, "rows without an answer"
        assert log.since == len(new.rows), "applied rows that are not there"
        assert not any(each["reason"] == TORN for each in found.rejected)
        content = content_of(data)
        if content is not None and content.lstrip().startswith(b"{"):
            told = given + found.merged + len(found.rejected)
            assert told == count_json(content), f"{told} of {count_json(content)} rows"

    rows = [samples.review(number) | {"timestamp": start + number} for number in range(ROWS)]
    seeds = [
        samples.json_lines(rows),
        samples.separated(rows, ","),
        samples.separated(rows, "\t"),
        samples.parquet(rows),
    ]
    return Target(samples.with_packed(seeds), check)


def bert(folder: pathlib.Path) -> Target:
    """Return the target for a BERT's folder: configuration, tokenizer in both forms, weights."""
    folder.mkdir()
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "it", "holds", "##s", "its", "tune"]
    sizes = {
        "model_type": "bert", "vocab_size": len(words), "hidden_size": 2, "num_hidden_layers": 1,
        "num_attention_heads": 1, "intermediate_size": 3, "max_position_embeddings": 8, "type_vocab_size": 2,
    }  # fmt: skip
    write_json(folder / weights.CONFIG, sizes)
    (folder / wordpiece.VOCABULARY).write_text("\n".join(words))
    write_json(folder / wordpiece.SETTINGS, {"do_lower_case": True})
    tokenizer = wordpiece.from_words({word: number for number, word in enumerate(words)}, {})
    (folder / wordpiece.TOKENIZER).write_text(tokenizer.to_str())
    _write_weights(folder / weights.WEIGHTS)
    texts = Strings.of(["It holds its tune.", "", "\u00e9 \u3000 holdsss"])

    def read() -> None:
        architecture = weights.read_architecture(folder)
        for both in (True, False):  # `vocab.txt` is read if there is no `tokenizer.json`
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
    """Write weights of ones as safetensors: length of the header, header in JSON, arrays."""
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
    """Return the target for a whole run directory with its model, as every command on a finished run opens it."""
    _finished(folder)
    checkpoint.save_model(layout.RunLayout(folder).model, {"carry": CARRY, "params": {}})
    files = [path for path in sorted((layout.RunLayout(folder).model).rglob("*")) if path.is_file()]
    names = [path.relative_to(folder).as_posix() for path in files]
    return _of_folder(folder, names, lambda: finished_run.open_run(folder) and None)
