"""Keyword profiles: the words that set a user's or an item's own reviews apart, by attention mass.

How a word earns its place (our choice; the paper names keyword profiles and gives no formula we could read):

1. Evidence. An occurrence counts its attention over the review's mean, so under uniform attention it counts 1. Inside
   a review a word's evidence x is damped to log2(1 + x): one review, however peaked its attention, is one voice.
2. Support. A word is also supported by the evidence of words related to it: those it shares more reviews with
   than chance explains (positive normalised pointwise mutual information of a lower bound of the shared count), up to
   `COMPANY` times its own. A few reviews seldom repeat a word, but they do repeat a subject, and a word said in
   passing finds no company.
3. Background. The weight is the gamma-Poisson deviance of the supported evidence y from its expectation e, the same
   evidence spread as in the whole corpus, (y + 1) log((y + 1) / (e + 1)) - (y - e), times the word's information
   log(reviews / reviews with the word). So "the" and "good", frequent everywhere, do not win without any list of stop
   words, and the prior count of 1 keeps a single mention of a rare word low.
4. Only words of the owner's own reviews, above expectation, in at least `MIN_REVIEWS` reviews of the corpus: a
   word of one review (a misspelling, a name) says nothing that another reader could recognise.
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np
from scipy import sparse

MIN_REVIEWS = 2
SUPPORT = 2.0  # weight of related words' evidence against a word's own
COMPANY = 3.0  # the support of a word is at most this many times its own evidence
RELATED_REVIEWS = 50_000  # reviews that relatedness is counted on, at most: evenly spaced ones
RELATED_SHARE = 0.1  # a word of more than this share of the reviews is related to none
RELATED_MIN_SHARED = 3  # reviews two words share at least
RELATED_DEVIATIONS = 1.64  # the lower bound of a shared count c is c less this many sqrt(c)


class Profiles(NamedTuple):
    """The top k words of each owner (user or item), best first.

    Attributes:
      word: int32 [owners, k]: word numbers; -1 where an owner has fewer.
      weight: float32 [owners, k]: descending; 0 where there is no word.
    """

    word: np.ndarray
    weight: np.ndarray

    def keywords(self, owner: int, names: list[str]) -> list[tuple[str, float]]:
        """One owner's words and weights, best first; `names` is the words by number."""
        pairs = zip(self.word[owner].tolist(), self.weight[owner].tolist(), strict=True)
        return [(names[word], weight) for word, weight in pairs if word >= 0]


def evidence(
    word: np.ndarray, first: np.ndarray, offsets: np.ndarray, attention: np.ndarray, rows: np.ndarray, num_words: int
) -> sparse.csr_array:
    """What each review says about each word, step 1 of the module's docstring.

    Args:
      word: int32 [total]: the word of every token, -1 for none.
      first: bool [total]: the token begins an occurrence of its word.
      offsets: int64 [reviews + 1]: review i has tokens `offsets[i]:offsets[i + 1]`.
      attention: float [total], non-negative; each review's own scale is immaterial.
      rows: int [n]: the reviews to read: of train only.
      num_words: words in all.

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
    """How far words keep each other's company, step 2: float32 [words, words], symmetric, in [0, 1], zero diagonal.

    Args:
      reviews: from `evidence`, [n, words].
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
    """The top k words of every owner, steps 3 and 4.

    Args:
      reviews: from `evidence`, [n, words].
      related: from `relatedness`.
      owner: int [n]: the user, or the item, of each review.
      num_owners: users, or items, in all.
      k: words a profile.
    """
    num_reviews, num_words = _size(reviews)
    order = np.argsort(owner, kind="stable")
    ends = np.concatenate([[0], np.cumsum(np.bincount(owner, minlength=num_owners))])
    corpus = reviews.sum(0, dtype=np.float64)
    background = corpus + np.minimum(SUPPORT * (related @ corpus), COMPANY * corpus)
    background /= max(corpus.sum(), np.finfo(np.float64).tiny)
    frequency = np.bincount(reviews.indices, minlength=num_words)
    information = np.log(max(num_reviews, 1) / np.maximum(frequency, 1))
    information[frequency < MIN_REVIEWS] = 0.0  # and so their weight
    found = Profiles(np.full((num_owners, k), -1, np.int32), np.zeros((num_owners, k), np.float32))
    each_review, each_word = ((matrix.indptr, matrix.indices, matrix.data) for matrix in (reviews, related))
    _score(each_review, order, ends, each_word, background, information, *found)
    return found


@numba.njit(cache=True)
def _score(reviews, order, ends, related, background, information, words, weights):  # pragma: no cover - compiled
    """Fills `words` and `weights` [owners, k]; of sparse matrices are given `indptr`, `indices` and `data`."""
    begins, column, value = reviews
    related_begins, related_word, relation = related
    mass = np.zeros(len(background))  # of the owner at hand
    own = np.empty(len(background), np.int32)  # its words
    best = np.empty(weights.shape[1])  # as `weights`, in full precision
    for owner in range(len(ends) - 1):
        count, total = 0, 0.0
        for review in order[ends[owner] : ends[owner + 1]]:
            for place in range(begins[review], begins[review + 1]):
                word = column[place]
                if mass[word] == 0:
                    own[count] = word
                    count += 1
                mass[word] += value[place]
                total += value[place]
        filled = 0
        for word in own[:count]:
            company = 0.0
            for place in range(related_begins[word], related_begins[word + 1]):
                company += relation[place] * mass[related_word[place]]
            observed = mass[word] + min(SUPPORT * company, COMPANY * mass[word])
            expected = total * background[word]
            if observed <= expected:
                continue
            deviance = (observed + 1) * np.log((observed + 1) / (expected + 1)) - (observed - expected)
            weight = deviance * information[word]
            if weight <= 0:
                continue
            place = filled  # where it stands among the best so far; equal weights by word number
            while place and (
                weight > best[place - 1] or (weight == best[place - 1] and word < words[owner, place - 1])
            ):
                place -= 1
            filled = min(filled + 1, len(best))
            for behind in range(filled - 1, place, -1):
                best[behind], words[owner, behind] = best[behind - 1], words[owner, behind - 1]
            if place < filled:
                best[place], words[owner, place] = weight, word
        weights[owner, :filled] = best[:filled]
        mass[own[:count]] = 0.0


def tfidf_profiles(reviews: sparse.csr_array, owner: np.ndarray, num_owners: int, k: int) -> Profiles:
    """The baseline: term frequency times log(owners / owners that use the word), each owner's reviews one document."""
    own = _by_owner(reviews, owner, num_owners)
    documents = np.bincount(own.indices, minlength=_size(own)[1])
    used = max(1, int((np.diff(own.indptr) > 0).sum()))
    pairs = own.tocoo()
    weight = pairs.data * np.log(used / documents[pairs.col])
    return _top(pairs.row, pairs.col, weight, num_owners, k)


def describe(found: Profiles, owners: np.ndarray, owner_names: list[str], names: list[str]) -> str:
    """Profiles as text, a line for each of `owners`: "name: word (weight), ..."."""
    lines = []
    for owner, owner_name in zip(owners.tolist(), owner_names, strict=True):
        words = ", ".join(f"{word} ({weight:.1f})" for word, weight in found.keywords(owner, names))
        lines.append(f"{owner_name}: {words or 'no words of its own'}")
    return "\n".join(lines)


def _size(matrix: sparse.csr_array) -> tuple[int, int]:
    assert matrix.shape is not None  # for the type checker: SciPy's stubs know no shape
    return matrix.shape[0], matrix.shape[1]


def _by_owner(reviews: sparse.csr_array, owner: np.ndarray, num_owners: int) -> sparse.csr_array:
    """Sum the reviews of each owner: [owners, words]."""
    ones = np.ones(len(owner), np.float32)
    members = sparse.csr_array((ones, (owner, np.arange(len(owner)))), shape=(num_owners, len(owner)))
    summed = sparse.csr_array(members @ reviews)
    summed.sum_duplicates()
    return summed


def _top(owner: np.ndarray, word: np.ndarray, weight: np.ndarray, num_owners: int, k: int) -> Profiles:
    """The k heaviest words of each owner; equal weights by word number."""
    order = np.lexsort((word, -weight, owner))
    owner, word, weight = owner[order], word[order], weight[order]
    rank = np.arange(len(owner)) - np.searchsorted(owner, owner)
    keep = rank < k
    found = Profiles(np.full((num_owners, k), -1, np.int32), np.zeros((num_owners, k), np.float32))
    found.word[owner[keep], rank[keep]] = word[keep]
    found.weight[owner[keep], rank[keep]] = weight[keep]
    return found
