"""Subwords: training, encoding, cutting, and joining pieces into words."""

import gzip
import json
import re

import numpy as np
import pytest

from drex_jax.common.errors import UserError
from drex_jax.data.strings import Strings
from drex_jax.data.tokens import Tokens
from drex_jax.text import vocabulary as vocabularies
from drex_jax.text.vocabulary import PADDING, UNKNOWN, Vocabulary

REVIEWS = [
    "The strings sound bright, and they stay in tune.",
    "Don't buy: the well-made tuner's display broke...after 10 days!",
    "",
    "Great tone.Great price (for a pedal)",
    "The pedal is quiet & the tone is warm; a bright pedal",
    "   ",
    "tuner strings pedal tone display price sound",
] * 5


@pytest.fixture(scope="module")
def texts():
    return Strings.of(REVIEWS)


@pytest.fixture(scope="module")
def vocabulary(texts):
    return vocabularies.train(texts, 200)


def occurrences(vocabulary, tokens, row):
    words = vocabulary.words(tokens)
    part = slice(tokens.offsets[row], tokens.offsets[row + 1])
    return [words.names[word] for word in words.word[part][words.first[part]]]


def test_training_twice_gives_the_same_vocabulary(texts, vocabulary):
    assert vocabularies.train(texts, 200) == vocabulary
    assert 2 < len(vocabulary) <= 200


def test_a_sample_of_a_large_corpus_is_fixed_and_differs_from_all_of_it(texts, vocabulary):
    small = vocabularies.train(texts, 200, max_bytes=120)
    assert small == vocabularies.train(texts, 200, max_bytes=120)
    assert small != vocabulary


def test_ids_spell_the_text_and_never_are_padding(texts, vocabulary):
    tokens = vocabulary.encode(texts, 10_000)
    assert tokens.ids.dtype == np.int32
    assert tokens.offsets.dtype == np.int64
    assert tokens.truncated == 0
    assert (tokens.ids != PADDING).all()
    assert tokens.lengths[2] == tokens.lengths[5] == 0
    assert tokens.ids.max() < len(vocabulary)
    first = tokens.part(0, 1)
    assert vocabulary._pieces.decode(first.ids.tolist()) == REVIEWS[0].lower()


def test_a_text_is_cut_before_the_word_that_does_not_fit(texts, vocabulary):
    whole, short = vocabulary.encode(texts, 10_000), vocabulary.encode(texts, 6)
    begins = np.array([vocabulary._pieces.id_to_piece(i).startswith("\u2581") for i in range(len(vocabulary))])
    for row in range(len(texts)):
        full, kept = whole.part(row, row + 1).ids, short.part(row, row + 1).ids
        assert short.cut[row] == (len(full) > 6)
        np.testing.assert_array_equal(kept, full[: len(kept)])
        if len(full) <= 6:
            assert len(kept) == len(full)
        else:
            assert 0 < len(kept) <= 6
            assert begins[full[len(kept)]]
            assert not begins[full[len(kept) + 1 : 7]].any()  # no later word begin would have fitted
    assert short.truncated == short.cut.sum() > 0


def test_a_first_word_longer_than_the_maximum_is_cut_inside(vocabulary):
    tokens = vocabulary.encode(Strings.of(["zq" * 50]), 4)
    assert tokens.lengths.tolist() == [4]
    assert tokens.truncated == 1
    with pytest.raises(ValueError, match="at least 1, got 0"):
        vocabulary.encode(Strings.of(["a"]), 0)


def test_encoding_in_batches_changes_nothing(texts, vocabulary, monkeypatch):
    expected = vocabulary.encode(texts, 6)
    monkeypatch.setattr(vocabularies, "ENCODE_ROWS", 3)
    for a, b in zip(vocabulary.encode(texts, 6), expected, strict=True):
        np.testing.assert_array_equal(a, b)


def test_parts_are_texts_of_their_own(texts, vocabulary):
    tokens = vocabulary.encode(texts, 8)
    part = tokens.part(3, 9)
    expected = vocabulary.encode(texts.take(np.arange(3, 9)), 8)
    for a, b in zip(part, expected, strict=True):
        np.testing.assert_array_equal(a, b)
    assert np.shares_memory(part.ids, tokens.ids)


def test_words_are_whole_lower_case_and_bare(texts, vocabulary):
    tokens = vocabulary.encode(texts, 10_000)
    expected = {
        0: "the strings sound bright and they stay in tune",
        1: "don't buy the well-made tuner's display broke after 10 days",
        3: "great tone great price for a pedal",
        4: "the pedal is quiet the tone is warm a bright pedal",
    }
    for row, text in expected.items():
        assert occurrences(vocabulary, tokens, row) == text.split()
    words = vocabulary.words(tokens)
    assert len(set(words.names)) == len(words.names)
    assert set(words.names) == set(" ".join([*expected.values(), REVIEWS[6]]).split())
    assert (words.word[words.first] >= 0).all()


def test_every_piece_of_a_word_has_its_number(vocabulary):
    tokens = vocabulary.encode(Strings.of(["unheardofword tone, tone"]), 100)
    words = vocabulary.words(tokens)
    for word, name in enumerate(words.names):
        ids = tokens.ids[words.word == word]
        repeats = words.first[words.word == word].sum()
        assert vocabulary._pieces.decode(ids.tolist()).replace(" ", "") == name * repeats
    assert words.names == ["tone", "unheardofword"]


def test_unknown_characters_make_no_word(vocabulary):
    tokens = vocabulary.encode(Strings.of(["tone \u4e2d\u6587 pedal"]), 100)
    assert UNKNOWN in tokens.ids
    assert occurrences(vocabulary, tokens, 0) == ["tone", "pedal"]


def test_words_of_scripts_with_combining_marks_stay_whole():
    texts = Strings.of(["\u0938\u094d\u0935\u093e\u0926 \u0905\u091a\u094d\u091b\u093e"] * 5)
    vocabulary = vocabularies.train(texts, 60)
    assert vocabulary is not None
    assert occurrences(vocabulary, vocabulary.encode(texts, 50), 0) == texts[0].split()


def test_html_entities_are_characters(vocabulary):
    tokens = vocabulary.encode(Strings.of(["tone &amp; price", "tone & price"]), 100)
    np.testing.assert_array_equal(tokens.part(0, 1).ids, tokens.part(1, 2).ids)


def test_words_of_no_tokens(vocabulary):
    for tokens in (
        vocabulary.encode(Strings.empty(3), 8),
        Tokens(np.zeros(0, np.int32), np.zeros(1, np.int64), np.zeros(0, bool)),
    ):
        words = vocabulary.words(tokens)
        assert (len(words.word), len(words.first), words.names) == (0, 0, [])


@pytest.mark.parametrize("texts", [[], [""], ["", "  \n\t"], ["\ufeff"], ["\u200b \x00"]])
def test_no_visible_text_is_no_vocabulary(texts):
    assert vocabularies.train(Strings.of(texts), 100) is None


@pytest.mark.parametrize("texts", [["a"], ["!!!"], ["\U0001f600 \U0001f600"], ["a" * 50_000], ["one\ntwo"]])
def test_the_smallest_corpora_work(texts):
    vocabulary = vocabularies.train(Strings.of(texts), 8000)
    assert vocabulary is not None
    assert vocabulary.encode(Strings.of(texts), 16).lengths[0] > 0


def test_a_size_that_cannot_hold_the_characters_is_named(texts):
    with pytest.raises(UserError, match=r"vocabulary_size=5 cannot hold .*; use at least \d+"):
        vocabularies.train(texts, 5)
    with pytest.raises(UserError, match="vocabulary_size=0 is not a size"):
        vocabularies.train(texts, 0)


def test_save_and_load(vocabulary, tmp_path):
    vocabulary.save(tmp_path / "vocabulary.model")
    assert Vocabulary.load(tmp_path / "vocabulary.model") == vocabulary


@pytest.mark.parametrize("keep", [0, 1, 100, -1])
def test_a_damaged_file_is_one_clear_line(vocabulary, tmp_path, keep):
    path = tmp_path / "vocabulary.model"
    path.write_bytes(vocabulary.model[:keep])
    with pytest.raises(UserError, match=r"vocabulary\.model: .*vocabulary.*; expected"):
        Vocabulary.load(path)


def test_a_missing_file_is_one_clear_line(tmp_path):
    with pytest.raises(UserError, match=r"none\.model: cannot read the vocabulary \(No such file"):
        Vocabulary.load(tmp_path / "none.model")


def test_words_of_real_reviews(real_data):
    with gzip.open(real_data / "amazon_musical_instruments/reviews_Musical_Instruments_5.json.gz") as lines:
        texts = Strings.of([json.loads(next(lines))["reviewText"] for _ in range(400)])
    vocabulary = vocabularies.train(texts, 1500)
    assert vocabulary is not None
    tokens = vocabulary.encode(texts, 100_000)
    words = vocabulary.words(tokens)
    found = {words.names[word] for word in words.word[words.first]}
    plain = {match for text in texts for match in re.findall(r"(?<![^ ])[a-z]+(?![^ ])", text.lower())}
    assert len(plain) > 1000
    assert plain <= found
