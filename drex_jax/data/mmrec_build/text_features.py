"""Text features without a trained model: TF-IDF and a truncated singular value decomposition (LSA).

This is our choice, so that text features need neither a download nor a GPU. Published results use sentence encoders,
whose arrays can be used instead.
"""

from __future__ import annotations

import collections
import re
from collections.abc import Sequence

import numpy as np
import scipy.sparse

from drex_jax.data.strings import offsets_of

MAX_WORDS = 50_000
MIN_TEXTS = 2  # a word of a single text relates it to no other text
OVERSAMPLING, POWER_ITERATIONS = 10, 2
_WORD = re.compile(r"\w+")


def features(texts: Sequence[str], width: int, seed: int = 0) -> np.ndarray:
    """Return float32 [n, at most width]: vectors with inner products close to those of the TF-IDF rows.

    Args:
      texts: the texts; an empty text, or one without a word of the vocabulary, gets a row of NaN.
      width: upper limit for the number of columns; the rank of the TF-IDF matrix is another limit.
      seed: seed of the random projection.
    """
    weights = tf_idf(texts)
    left, values = truncated_svd(weights, width, seed)
    result = (left * values).astype(np.float32)
    result[weights.sum(1) == 0] = np.nan
    return result


def tf_idf(texts: Sequence[str]) -> scipy.sparse.csr_array:
    """Return float64 [n, words]: (1 + log count) x (1 + log((1 + n) / (1 + texts with the word))), rows of length 1.

    The vocabulary are the words of at least `MIN_TEXTS` texts, at most `MAX_WORDS` of them, those of most texts first.
    """
    counts = [collections.Counter(_WORD.findall(text.lower())) for text in texts]
    frequency = collections.Counter(word for count in counts for word in count)
    ranked = sorted((-number, word) for word, number in frequency.items() if number >= MIN_TEXTS)[:MAX_WORDS]
    column = {word: position for position, (_, word) in enumerate(ranked)}
    idf = 1 + np.log((1 + len(texts)) / (1 - np.array([negative for negative, _ in ranked], np.float64)))
    rows = [[(column[word], number) for word, number in count.items() if word in column] for count in counts]
    pairs = np.array([pair for row in rows for pair in row], np.int64).reshape(-1, 2)
    begins = offsets_of([len(row) for row in rows])
    values = (1 + np.log(pairs[:, 1])) * idf[pairs[:, 0]]
    lengths = np.sqrt(np.bincount(np.repeat(np.arange(len(texts)), np.diff(begins)), values**2, len(texts)))
    values /= np.repeat(lengths, np.diff(begins))
    return scipy.sparse.csr_array((values, pairs[:, 0], begins), shape=(len(texts), len(ranked)))


def truncated_svd(matrix: scipy.sparse.csr_array, width: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return the first left singular vectors [n, k] and positive singular values [k] of a sparse matrix, k <= width.

    Computed by random projection with power iterations (Halko, Martinsson, Tropp 2011, algorithm 4.4). The entry of
    largest magnitude of each vector is positive, so equal input gives equal output.
    """
    rows, columns = matrix.shape  # pyright: ignore[reportGeneralTypeIssues]
    size = min(width + OVERSAMPLING, rows, columns)
    if not size:
        return np.zeros((rows, 0)), np.zeros(0)
    basis = np.linalg.qr(matrix @ np.random.default_rng(seed).normal(size=(columns, size)))[0]
    for _ in range(POWER_ITERATIONS):
        basis = np.linalg.qr(matrix @ np.linalg.qr(matrix.T @ basis)[0])[0]
    inner, values, _ = np.linalg.svd((matrix.T @ basis).T, full_matrices=False)
    kept = min(width, np.count_nonzero(values > 1e-9 * values[0]))
    left = (basis @ inner)[:, :kept]
    highest = left[np.abs(left).argmax(0), np.arange(kept)]
    return left * np.sign(highest), values[:kept]
