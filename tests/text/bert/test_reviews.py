"""A frozen BERT as DReX's review encoder: cached, saved in the run, used for new interactions, and its failures."""

from __future__ import annotations

import dataclasses
import logging
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import pytest
import tiny_bert

from drex_jax import Recommender
from drex_jax.common.cache import Store, no_cache
from drex_jax.common.errors import UserError
from drex_jax.data.events import REVIEW, standardise
from drex_jax.data.strings import Strings
from drex_jax.devices.mesh import Devices
from drex_jax.runs.dataset import open_dataset, prepare
from drex_jax.serving.finished_run import open_run
from drex_jax.text import batching
from drex_jax.text import encoder as text_encoder
from drex_jax.text.bert import BertEncoder, reviews
from drex_jax.text.bert import weights as weights_lib
from drex_jax.text.bert.network import Bert
from drex_jax.text.bert.pieces import WordPieces
from drex_jax.text.encoder import TextEncoder
from drex_jax.training import experiment
from drex_jax.training.settings import base, settings_of

MAX_TOKENS = 8
TEXTS = Strings.of(["good strings", "", "it holds", "bad", "", "the tune", "cafe", "it " * 9, "pick"])


def settings(folder: pathlib.Path, cache: pathlib.Path) -> Any:
    chosen: Any = base()
    chosen.data.synthetic.update(num_interactions=120, num_users=12, num_items=10, seed=1)
    chosen.data.cache_dir = str(cache)
    chosen.text.update(encoder="bert", max_tokens=MAX_TOKENS)
    chosen.text.bert.folder = str(folder)
    chosen.model.update(
        state_size=3, feature_size=3, ranking_weight=0.0, residual=False, dropout=0.0, time_modality=False
    )
    chosen.train.update(epochs=1, bptt_windows=1, warmup_steps=1)
    chosen.devices.update(count=1, mapping="none")
    chosen.schedule.implementation = "sequential"
    chosen.baselines = ()
    chosen.evaluate.update(ranking=False, cutoffs=(5,))
    return chosen


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return tiny_bert.write(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def model(folder: pathlib.Path) -> BertEncoder:
    return BertEncoder.load(folder, devices=Devices("none"))


@pytest.fixture(scope="module")
def finished(folder: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A finished run with its own copy of the BERT folder."""
    place = tmp_path_factory.mktemp("finished")
    own = pathlib.Path(shutil.copytree(folder, place / "model"))
    experiment.train(settings_of(settings(own, place / "cache")), place / "run")
    return place


@pytest.fixture
def place(finished: pathlib.Path) -> Iterator[pathlib.Path]:
    """The finished run; its BERT folder is restored after the test."""
    yield finished
    if (finished / "away").exists():
        shutil.rmtree(finished / "model", ignore_errors=True)
        (finished / "away").rename(finished / "model")


def test_the_run_holds_what_the_encoder_says(place: pathlib.Path, model: BertEncoder) -> None:
    data = open_dataset(settings_of(settings(place / "model", place / "cache")), place / "run")
    kept, texts = data.interactions.vectors[REVIEW], data.interactions.text
    spoken = texts.lengths > 0
    assert 0 < spoken.sum() < len(texts)
    assert np.isnan(kept[~spoken]).all()
    expected = model.encode(texts.take(np.flatnonzero(spoken)), max_tokens=MAX_TOKENS)
    np.testing.assert_allclose(kept[spoken], expected, atol=1e-5)
    np.testing.assert_array_equal(data.events.vectors[REVIEW], standardise(kept, data.sizes[0]))
    assert data.vocabulary is None
    assert data.events.tokens is None
    assert data.facts["bert"] == model.fingerprint
    assert any("reviews were cut at 8 tokens" in notice for notice in data.facts["notices"])
    assert not (place / "run" / "keywords").exists()
    assert (place / "cache" / "store" / "bert").exists()


def test_a_run_answers_and_learns_without_its_model_but_for_texts(place: pathlib.Path) -> None:
    (place / "model").rename(place / "away")
    recommender = Recommender.load(place / "run")
    assert len(recommender.recommend("user1", 3)) == 3
    assert "weighs no words" in " ".join(recommender.explain("user1", "item1").notes)
    moment = float(recommender._live.run.log.last_moment) + 1
    rows = [
        {"user": "user1", "item": "item1", "timestamp": moment, "text": "good"},
        {"user": "user2", "item": "item1", "timestamp": moment, "rating": 4.0},
    ]
    report = recommender.update(rows)
    assert report.applied == 1
    ((row, reason),) = report.refused
    assert row == 0
    assert f"text.bert.folder={place / 'model'}: {place / 'model'}: there is no such folder" in reason
    with pytest.raises(UserError, match="history, row 1: its text cannot be read without"):
        recommender.recommend_for(["item2", {"item": "item1", "text": "good"}], 3)
    tiny_bert.write(place / "model", tiny_bert.tensors(seed=1))
    report = Recommender.load(place / "run").update(rows[:1])
    assert "holds another model than the run was trained on" in report.refused[0].reason


def test_texts_of_updates_are_read_and_kept(place: pathlib.Path, model: BertEncoder, tmp_path: pathlib.Path) -> None:
    recommender = Recommender.load(place / "run")
    moment = float(recommender._live.run.log.last_moment) + 1
    row = {"user": "somebody", "item": "item1", "timestamp": moment, "rating": 2.0, "text": "the bad strings"}
    silent = Recommender.load(place / "run")
    silent.update([{**row, "text": None}])
    assert recommender.update([row]).applied == 1
    assert not np.allclose(recommender._live.states.user[-1], silent._live.states.user[-1], atol=1e-6)
    recommender.save(tmp_path / "later")
    again = Recommender.load(tmp_path / "later")
    found = again._live.run.log.row(len(again._live.run.log) - 1).vectors[REVIEW]
    np.testing.assert_allclose(found, model.encode([row["text"]], max_tokens=MAX_TOKENS)[0], atol=1e-5)
    replayed = again.as_of(moment + 1)._live.states  # the whole history from the first interaction on
    for ours, theirs in zip(jax.tree.leaves(again._live.states), jax.tree.leaves(replayed), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
    assert "was there already" in again.update([row]).refused[0].reason
    assert "unknown key" in again.update([{**row, "timestamp": moment + 1, REVIEW: found}]).refused[0].reason


def test_an_interrupted_encoding_goes_on(
    model: BertEncoder, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reviews, "PART", 3)
    store, encode, calls = Store(tmp_path), model.encode_pieces, []

    def encoded(*arguments: Any) -> np.ndarray:
        calls.append(len(arguments[0].cut))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return encode(*arguments)

    monkeypatch.setattr(model, "encode_pieces", encoded)
    with pytest.raises(KeyboardInterrupt):
        reviews.vectors(TEXTS, model, "mean", MAX_TOKENS, store.arrays)
    found, cut = reviews.vectors(TEXTS, model, "mean", MAX_TOKENS, store.arrays)
    assert calls == [3, 3, 3, 1]
    assert cut == 1
    assert np.isnan(found[[1, 4]]).all()
    spoken = [0, 2, 3, 5, 6, 7, 8]
    np.testing.assert_allclose(
        found[spoken], encode(model.pieces(TEXTS.take(np.array(spoken)), 8), "mean", True), atol=1e-5
    )
    np.testing.assert_array_equal(reviews.vectors(TEXTS, model, "mean", MAX_TOKENS, store.arrays)[0], found)
    assert len(calls) == 4


def test_kept_vectors_of_another_model_or_cut_short_are_not_used(
    model: BertEncoder, tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = Store(tmp_path / "store")
    found, _ = reviews.vectors(TEXTS, model, "mean", MAX_TOKENS, store.arrays)
    other = BertEncoder.load(tiny_bert.write(tmp_path / "other", tiny_bert.tensors(1)), devices=Devices("none"))
    assert not np.allclose(reviews.vectors(TEXTS, other, "mean", MAX_TOKENS, store.arrays)[0][0], found[0], atol=0.01)
    assert len(list((tmp_path / "store" / "bert").iterdir())) == 2
    for entry in (tmp_path / "store" / "bert").iterdir():
        entry.write_bytes(entry.read_bytes()[:-40])
    with caplog.at_level(logging.WARNING):
        again, _ = reviews.vectors(TEXTS, model, "mean", MAX_TOKENS, store.arrays)
    np.testing.assert_array_equal(again, found)
    (warning,) = caplog.records
    assert "was damaged and is computed again: it does not end as it should" in warning.getMessage()


def test_shuffled_texts_take_their_vectors_along(folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    chosen = settings(folder, tmp_path / "cache")
    straight = prepare(settings_of(chosen), tmp_path).events.vectors[REVIEW]
    chosen.text.shuffled = True
    data = open_dataset(settings_of(chosen), tmp_path)
    moved = data.events.vectors[REVIEW]
    assert not np.array_equal(moved, straight)
    for begin, end in zip((0, *np.cumsum(data.sizes)[:-1]), np.cumsum(data.sizes), strict=True):
        missing = [np.isnan(values[begin:end]).any(1).sum() for values in (straight, moved)]
        assert missing[0] == missing[1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"text.bert.folder": None}, "text.bert.folder is not set; text.encoder=bert needs a Hugging Face folder"),
        ({"text.max_tokens": 1}, r"text.max_tokens is 1; .* \[CLS\] and \[SEP\] count"),
        ({"model.vector_modalities": False}, "needs model.name=drex with model.vector_modalities=true"),
        ({"devices.distributed": True, "devices.mapping": "shard_map"}, "encodes in one process"),
        ({"text.encoder": "gpt"}, "text.encoder is 'gpt'; it must be one of subwords bert"),
        ({"text.bert.pooling": "max"}, "text.bert.pooling is 'max'; it must be one of mean cls attention"),
        ({"text.bert.finetune": True}, "text.bert.finetune=true needs text.bert.pooling=attention"),
    ],
)
def test_settings_that_make_no_sense(folder: pathlib.Path, tmp_path: pathlib.Path, changes: dict, message: str) -> None:
    chosen = settings(folder, tmp_path)
    settings_of(chosen)
    chosen.update_from_flattened_dict(changes)
    with pytest.raises(UserError, match=message):
        settings_of(chosen)


def test_a_model_that_cannot_be_read_leaves_the_directory_free(folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    chosen = settings(folder, tmp_path / "cache")
    chosen.text.max_tokens = 50
    with pytest.raises(UserError, match="max_tokens 50; it should be from 2 to the 20 that the model reads"):
        experiment.prepare_run(settings_of(chosen), tmp_path / "run", no_cache)
    assert not (tmp_path / "run" / "config.json").exists()


def twin(params: Any, features: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Compute (feature [F], attention [T]) of one text from its token features [T, G] with plain loops."""
    x = features.astype(np.float64) @ params["given"]["kernel"] + params["given"]["bias"]
    padded = np.concatenate([np.zeros((1, width)), x, np.zeros((1, width))])
    taps, bias = params["convolution"], params["convolution_bias"]
    context = [sum(padded[place + tap] * taps[tap] for tap in range(3)) + bias for place in range(len(x))]
    h = x + np.maximum(context, 0.0)
    score = np.tanh(h @ params["key"]["kernel"] + params["key"]["bias"]) @ params["query"]
    attention = np.exp(score - score.max()) / np.exp(score - score.max()).sum()
    pooled = attention @ h
    normed = (pooled - pooled.mean()) / np.sqrt(pooled.var() + 1e-6) * params["norm"]["scale"] + params["norm"]["bias"]
    return normed @ params["out"]["kernel"] + params["out"]["bias"], attention


def test_attention_over_what_the_encoder_says_of_each_token(model: BertEncoder, folder: pathlib.Path) -> None:
    words = WordPieces.of(model)
    tokens = words.encode(TEXTS, MAX_TOKENS)
    assert tokens.features is not None
    assert (tokens.lengths > 0).tolist() == (TEXTS.lengths > 0).tolist()
    expected = model.encode_tokens(["it holds"], MAX_TOKENS).features
    np.testing.assert_allclose(tokens.features[tokens.offsets[2] : tokens.offsets[3]], expected, atol=2e-3)  # float16
    encoder = TextEncoder(len(words), 6, 4, given_width=model.width)
    params = text_encoder.init(encoder, jax.random.key(0))
    rows = np.arange(len(TEXTS))
    shapes = batching.fit([tokens.lengths], (4, MAX_TOKENS), budget=16)
    batch = batching.plan(tokens.ids, tokens.offsets, rows, shapes, tokens.features)
    found = np.asarray(text_encoder.encode(encoder, params, batch, len(rows)))
    weights = batching.unplan(
        [np.asarray(each) for each in text_encoder.attention(encoder, params, batch)],
        batch,
        tokens.offsets,
        rows,
        len(tokens.ids),
    )
    learns = dataclasses.replace(encoder, bert=Bert(model.architecture, np.dtype("float32")))
    read = weights_lib.read_params(folder, model.architecture)
    whole = params | {"bert": jax.tree.map(jax.numpy.asarray, read)}
    made = text_encoder.encode(learns, whole, batch._replace(features=None), len(rows))
    np.testing.assert_allclose(made, found, atol=5e-3)  # the given ones are of float16
    plain = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    for row in rows:
        own = slice(tokens.offsets[row], tokens.offsets[row + 1])
        if own.start == own.stop:
            np.testing.assert_array_equal(found[row], 0.0)
            continue
        feature, attention = twin(plain, tokens.features[own], 6)
        np.testing.assert_allclose(found[row], feature, atol=1e-4)
        np.testing.assert_allclose(weights[own], attention, atol=1e-5)


def test_pieces_spell_words(model: BertEncoder, tmp_path: pathlib.Path) -> None:
    WordPieces.of(model).save(tmp_path / "pieces")
    words = WordPieces.load(tmp_path / "pieces", lambda: model)
    found = words.words(words.encode(Strings.of(["it holds, picks!", "??"]), 20))
    spelt = [found.names[number] for number, first in zip(found.word, found.first, strict=True) if first]
    assert spelt == ["it", "holds", "picks"]  # picks: pick ##s; no [CLS], no [SEP], no [UNK]
    (tmp_path / "pieces" / "columns.json").write_text('{"schema": "pieces-1", "width": "16"}')
    with pytest.raises(UserError, match="pieces: damaged; its width is '16'"):
        WordPieces.load(tmp_path / "pieces", lambda: model)


def test_a_run_with_learned_attention_has_keywords_and_learns_as_in_one_go(
    folder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    chosen = settings(folder, tmp_path / "cache")
    chosen.text.bert.pooling = "attention"
    chosen.text.update(width=4)
    experiment.train(settings_of(chosen), tmp_path / "run")
    data = open_dataset(settings_of(chosen), tmp_path / "run")
    assert data.events.tokens is not None
    assert data.events.tokens.features is not None
    assert data.events.tokens.features.shape[1] == 16
    assert data.interactions.vectors == {}
    assert (tmp_path / "cache" / "store" / "bert_tokens").exists()
    recommender = Recommender.load(tmp_path / "run")
    user, item = (ids.name(0) for ids in (recommender._live.run.log.users, recommender._live.run.log.items))
    assert recommender.explain(user).user_keywords
    moment = float(recommender._live.run.log.last_moment) + 1
    rows = [
        {"user": user, "item": item, "timestamp": moment, "text": "good strings"},
        {"user": user, "item": "another", "timestamp": moment + 1},
    ]
    assert recommender.update(rows).applied == 2
    once = Recommender.load(tmp_path / "run")
    for row in rows:
        once.update([row])
    for ours, theirs in zip(jax.tree.leaves(recommender._live.states), jax.tree.leaves(once._live.states), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
    assert recommender.explain(user, item).user_interactions  # the history replayed, the new text with it
    (folder / "vocab.txt").rename(folder / "vocab.away")
    try:
        refused = Recommender.load(tmp_path / "run").update(rows).refused
    finally:
        (folder / "vocab.away").rename(folder / "vocab.txt")
    assert [place for place, _ in refused] == [0]
    assert "its text cannot be read without text.bert.folder" in refused[0].reason


@pytest.mark.thorough
def test_a_bert_that_learns_begins_as_it_was_and_at_its_own_pace(folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    tests, moved = [], []
    for name, finetune, rate in (("frozen", False, 1e-3), ("still", True, 1e-30), ("learns", True, 1e-3)):
        chosen = settings(folder, tmp_path / "cache")
        chosen.text.update(width=4)
        chosen.text.bert.update(pooling="attention", finetune=finetune, learning_rate=rate)
        tests.append(experiment.train(settings_of(chosen), tmp_path / name)["test"]["prequential"]["mse"])
        if finetune:
            params = open_run(tmp_path / name).params
            start = weights_lib.read_params(folder, weights_lib.read_architecture(folder))
            changes = jax.tree.map(lambda a, b: float(np.abs(np.asarray(a) - b).max()), params["text"]["bert"], start)
            moved.append(max(jax.tree.leaves(changes)))
    frozen, still, learns = tests
    assert still == pytest.approx(frozen, abs=1e-3)  # what is given is of float16
    assert learns != still
    assert moved[0] == 0.0
    steps = settings(folder, tmp_path).train.epochs * 2
    assert 1e-5 < moved[1] < 2e-3 * steps
    recommender = Recommender.load(tmp_path / "learns")
    user, item = (ids.name(0) for ids in (recommender._live.run.log.users, recommender._live.run.log.items))
    assert recommender.explain(user).user_keywords
    moment = float(recommender._live.run.log.last_moment) + 1
    assert recommender.update([{"user": user, "item": item, "timestamp": moment, "text": "good strings"}]).applied == 1
    header = tmp_path / "learns" / "history" / "pieces" / "columns.json"
    header.write_text(header.read_text().replace('"heads"', '"hands"'))
    with pytest.raises(UserError, match="pieces: damaged; its BERT is"):
        Recommender.load(tmp_path / "learns").explain(user)
