"""Keyword profiles: the words that distinguish the reviews of a user or an item, weighted by attention.

How a word is scored (our choice; the paper names keyword profiles, but gives no formula):

1. Evidence. An occurrence counts its attention divided by the mean attention of the review, so it counts 1 under
   uniform attention. Within a review, the evidence x of a word is damped to log2(1 + x), so that one review with a
   peaked attention cannot dominate.
2. Support. A word also gets the evidence of related words, up to `COMPANY` times its own evidence. Related words occur
   together in more reviews than by chance (positive normalised pointwise mutual information of a lower bound of the
   shared count). Short histories seldom repeat a word, but they repeat a subject; a word used once in passing has no
   related words.
3. Background. The weight is the gamma-Poisson deviance of the supported evidence y from its expectation e under the
   distribution of the whole corpus, (y + 1) log((y + 1) / (e + 1)) - (y - e), times the information of the word,
   log(reviews / reviews with the word). So frequent words such as "the" and "good" have low weights without a list of
   stop words, and the prior count of 1 keeps a single mention of a rare word low.
4. Filter. Only words of the owner's reviews above expectation count, and only words in at least `MIN_REVIEWS` reviews
   of the corpus: a word of a single review is often a misspelling or a name.
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np
from scipy import sparse

MIN_REVIEWS = 2
SUPPORT = 2.0  # weight of the evidence of related words, relative to a word's own evidence
COMPANY = 3.0  # the support of a word is at most this many times its own evidence
RELATED_REVIEWS = 50_000  # relatedness is counted on at most this many reviews, evenly spaced
RELATED_SHARE = 0.1  # words in more than this share of the reviews have no related words
RELATED_MIN_SHARED = 3  # related words share at least this many reviews
RELATED_DEVIATIONS = 1.64  # the lower bound of a shared count c is c minus this many sqrt(c)


class Profiles(NamedTuple):
    """The top k words of each owner (user or item), best first.

    Attributes:
      word: int32 [owners, k], word numbers; -1 for no word.
      weight: float32 [owners, k], weights in descending order; 0 for no word.
    """

    word: np.ndarray
    weight: np.ndarray

    def keywords(self, owner: int, names: list[str]) -> list[tuple[str, float]]:
        """Return the words and weights of one owner, best first. `names`: the words by number."""
        pairs = zip(self.word[owner].tolist(), self.weight[owner].tolist(), strict=True)
        return [(names[word], weight) for word, weight in pairs if word >= 0]


def evidence(
    word: np.ndarray, first: np.ndarray, offsets: np.ndarray, attention: np.ndarray, rows: np.ndarray, num_words: int
) -> sparse.csr_array:
    """Return the evidence of each review for each word (step 1 of the module's docstring).

    Args:
      word: int32 [total]: the word of every token, -1 for none.
      first: bool [total]: the token begins an occurrence of its word.
      offsets: int64 [reviews + 1]: review i has tokens `offsets[i]:offsets[i + 1]`.
      attention: float [total], non-negative; the scale within a review does not matter.
      rows: int [n], the train reviews to read.
      num_words: number of words.

    Returns:
      float32 [n, num_words].
    """
    starts = np.flatnonzero(first)
    if not len(starts):
        return sparse.csr_array((len(rows), num_words), dtype=np.float32)
    pieces = word >= 0
    occurrence = (np.cumsum(first) - 1)[pieces]
    mass = np.bincount(occurrence, attention[pieces], len(starts)) / np.bincount(occurrence, minlength=len(starts))
    review = np.searchsorted(offsets, starts, side="right") - 1
    count = np.bincount(review, minlength=len(offsets) - 1)
    total = np.bincount(review, mass, len(offsets) - 1)
    mass *= np.divide(count, total, out=np.zeros_like(total), where=total > 0)[review]
    matrix = sparse.csr_array((mass, (review, word[starts])), shape=(len(offsets) - 1, num_words))[rows]
    matrix.sum_duplicates()
    matrix.data = np.log2(1 + matrix.data)
    matrix.eliminate_zeros()
    return matrix.astype(np.float32)


def relatedness(reviews: sparse.csr_array) -> sparse.csr_array:
    """Return how related words are (step 2): float32 [words, words], symmetric, in [0, 1], with a zero diagonal.

    Args:
      reviews: [n, words], the result of `evidence`.
    """
    num_reviews, num_words = _size(reviews)
    if num_reviews > RELATED_REVIEWS:
        reviews = reviews[np.linspace(0, num_reviews - 1, RELATED_REVIEWS).astype(np.int64)]
        num_reviews = RELATED_REVIEWS
    mentions = reviews.astype(bool).astype(np.float32)
    frequency = mentions.sum(0)
    eligible = (frequency >= RELATED_MIN_SHARED) & (frequency <= RELATED_SHARE * num_reviews)
    mentions = mentions @ sparse.diags_array(eligible.astype(np.float32))
    shared = sparse.coo_array(mentions.T @ mentions)
    keep = (shared.row != shared.col) & (shared.data >= RELATED_MIN_SHARED)
    row, column, count = shared.row[keep], shared.col[keep], shared.data[keep].astype(np.float64)
    bound = np.maximum(count - RELATED_DEVIATIONS * np.sqrt(count), np.finfo(np.float32).tiny)
    information = np.log(bound * num_reviews / (frequency[row] * frequency[column]).astype(np.float64))
    keep = information > 0
    normalised = np.minimum(information[keep] / -np.log(bound[keep] / num_reviews), 1.0)
    return sparse.csr_array((normalised.astype(np.float32), (row[keep], column[keep])), shape=(num_words, num_words))


def profiles(
    reviews: sparse.csr_array, related: sparse.csr_array, owner: np.ndarray, num_owners: int, k: int
) -> Profiles:
    """Return the top k words of every owner (steps 3 and 4).

    Args:
      reviews: [n, words], the result of `evidence`.
      related: [words, words], the result of `relatedness`.
      owner: int [n], the user (or the item) of each review.
      num_owners: number of users (or items).
      k: words of a profile.
    """
    num_reviews, num_words = _size(reviews)
    order = np.argsort(owner, kind="stable")
    ends = np.concatenate([[0], np.cumsum(np.bincount(owner, minlength=num_owners))])
    corpus = reviews.sum(0, dtype=np.float64)
    background = corpus + np.minimum(SUPPORT * (related @ corpus), COMPANY * corpus)
    background /= max(corpus.sum(), np.finfo(np.float64).tiny)
    frequency = np.bincount(reviews.indices, minlength=num_words)
    information = np.log(max(num_reviews, 1) / np.maximum(frequency, 1))
    information[frequency < MIN_REVIEWS] = 0.0  # so that their weight is 0
    top = Profiles(np.full((num_owners, k), -1, np.int32), np.zeros((num_owners, k), np.float32))
    by_review, by_word = ((matrix.indptr, matrix.indices, matrix.data) for matrix in (reviews, related))
    _score(by_review, order, ends, by_word, background, information, *top)
    return top


@numba.njit(cache=True)
def _score(  # pragma: no cover - compiled
    reviews: tuple[np.ndarray, np.ndarray, np.ndarray],
    order: np.ndarray,
    ends: np.ndarray,
    related: tuple[np.ndarray, np.ndarray, np.ndarray],
    background: np.ndarray,
    information: np.ndarray,
    words: np.ndarray,
    weights: np.ndarray,
) -> None:
    """Fill `words` and `weights` [owners, k]. Sparse matrices are given as `indptr`, `indices` and `data`."""
    begins, column, value = reviews
    related_begins, related_word, relation = related
    mass = np.zeros(len(background))  # evidence of the current owner, by word
    used = np.empty(len(background), np.int32)  # the words of the current owner
    best = np.empty(weights.shape[1])  # its best weights in full precision
    for owner in range(len(ends) - 1):
        count, total = 0, 0.0
        for review in order[ends[owner] : ends[owner + 1]]:
            for entry in range(begins[review], begins[review + 1]):
                word = column[entry]
                if mass[word] == 0:
                    used[count] = word
                    count += 1
                mass[word] += value[entry]
                total += value[entry]
        filled = 0
        for word in used[:count]:
            company = 0.0
            for entry in range(related_begins[word], related_begins[word + 1]):
                company += relation[entry] * mass[related_word[entry]]
            observed = mass[word] + min(SUPPORT * company, COMPANY * mass[word])
            expected = total * background[word]
            if observed <= expected:
                continue
            deviance = (observed + 1) * np.log((observed + 1) / (expected + 1)) - (observed - expected)
            weight = deviance * information[word]
            if weight <= 0:
                continue
            rank = filled  # its rank among the best so far; equal weights are sorted by word number
            while rank and (weight > best[rank - 1] or (weight == best[rank - 1] and word < words[owner, rank - 1])):
                rank -= 1
            filled = min(filled + 1, len(best))
            for behind in range(filled - 1, rank, -1):
                best[behind], words[owner, behind] = best[behind - 1], words[owner, behind - 1]
            if rank < filled:
                best[rank], words[owner, rank] = weight, word
        weights[owner, :filled] = best[:filled]
        mass[used[:count]] = 0.0


def describe(profiles: Profiles, owners: np.ndarray, owner_names: list[str], names: list[str]) -> str:
    """Return profiles as text, with a line for each of `owners`: "name: word (weight), ..."."""
    lines = []
    for owner, owner_name in zip(owners.tolist(), owner_names, strict=True):
        words = ", ".join(f"{word} ({weight:.1f})" for word, weight in profiles.keywords(owner, names))
        lines.append(f"{owner_name}: {words or 'no keywords'}")
    return "\n".join(lines)


def _size(matrix: sparse.csr_array) -> tuple[int, int]:
    assert matrix.shape is not None  # for the type checker: SciPy's stubs allow None
    return matrix.shape[0], matrix.shape[1]
