"""TF-IDF and the truncated decomposition, compared with slow, obvious versions."""

import math

import numpy as np
import pytest

from drex_jax.data.mmrec_build import text_features

TEXTS = [
    "a soft toy for babies",
    "a soft blanket, a soft pillow",
    "Toy car",
    "",
    "blanket for a toy",
    "unheard-of",
    "car seat for babies; car mirror",
]


def slow_tf_idf(texts):
    """Return the formula, word by word, as a dense matrix with its columns in alphabetical order."""
    words = [["".join(c if c.isalnum() else " " for c in text.lower()).split()][0] for text in texts]
    known = sorted({word for row in words for word in row if sum(word in other for other in words) >= 2})
    rows = []
    for row in words:
        line = []
        for word in known:
            with_it = sum(word in other for other in words)
            count = row.count(word)
            line.append((1 + math.log(count)) * (1 + math.log((1 + len(texts)) / (1 + with_it))) if count else 0.0)
        length = math.sqrt(sum(value**2 for value in line))
        rows.append([value / length if length else 0.0 for value in line])
    return np.array(rows)


def test_tf_idf_is_the_formula():
    fast, slow = text_features.tf_idf(TEXTS), slow_tf_idf(TEXTS)
    assert fast.shape == slow.shape
    np.testing.assert_allclose((fast @ fast.T).toarray(), slow @ slow.T, atol=1e-12)
    np.testing.assert_allclose(sorted(fast.sum(0)), sorted(slow.sum(0)))


@pytest.mark.parametrize("width", [1, 3, 50])
def test_the_decomposition_is_numpy_s(width):
    rng = np.random.default_rng(0)
    dense = rng.normal(size=(40, 6)) @ rng.normal(size=(6, 25))  # of rank 6
    left, values = text_features.truncated_svd(text_features.scipy.sparse.csr_array(dense), width)
    kept = min(width, 6)
    theirs, their_values, _ = np.linalg.svd(dense)
    np.testing.assert_allclose(values, their_values[:kept])
    np.testing.assert_allclose(np.abs(np.sum(left * theirs[:, :kept], 0)), 1)
    assert (left[np.abs(left).argmax(0), np.arange(kept)] > 0).all()


def test_features_keep_the_inner_products():
    vectors = text_features.features(TEXTS, 50)
    assert vectors.dtype == np.float32
    absent = np.isnan(vectors).all(1)
    assert absent.tolist() == [False, False, False, True, False, True, False]
    assert np.isfinite(vectors[~absent]).all()
    slow = slow_tf_idf(TEXTS)[~absent]
    np.testing.assert_allclose(vectors[~absent] @ vectors[~absent].T, slow @ slow.T, atol=1e-6)
    np.testing.assert_array_equal(text_features.features(TEXTS, 50), vectors)
    assert text_features.features(TEXTS, 2).shape == (7, 2)


def test_texts_without_a_shared_word_have_no_features():
    assert text_features.features(["one", "two", ""], 5).shape == (3, 0)
