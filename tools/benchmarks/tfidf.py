"""Compute TF-IDF profiles of users and items, a baseline for keyword profiles."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from drex_jax.explain.keywords import Profiles


def tfidf_profiles(reviews: sparse.csr_array, owner: np.ndarray, num_owners: int, k: int) -> Profiles:
    """Return TF-IDF profiles, with the reviews of each owner as one document.

    A weight is the term frequency times log(owners / owners that use the word).

    Args:
      reviews: [n, words], the result of `drex_jax.explain.keywords.evidence`.
      owner: int [n], the user (or the item) of each review.
      num_owners: number of users (or items).
      k: number of words of a profile.
    """
    counts = _by_owner(reviews, owner, num_owners)
    documents = np.bincount(counts.indices)
    used = max(1, int((np.diff(counts.indptr) > 0).sum()))
    pairs = counts.tocoo()
    weight = pairs.data * np.log(used / documents[pairs.col])
    return _top(pairs.row, pairs.col, weight, num_owners, k)


def _by_owner(reviews: sparse.csr_array, owner: np.ndarray, num_owners: int) -> sparse.csr_array:
    """Return the sum of the reviews of each owner, [owners, words]."""
    ones = np.ones(len(owner), np.float32)
    members = sparse.csr_array((ones, (owner, np.arange(len(owner)))), shape=(num_owners, len(owner)))
    summed = sparse.csr_array(members @ reviews)
    summed.sum_duplicates()
    return summed


def _top(owner: np.ndarray, word: np.ndarray, weight: np.ndarray, num_owners: int, k: int) -> Profiles:
    """Return the k words with the largest weights of each owner; equal weights are sorted by word number."""
    order = np.lexsort((word, -weight, owner))
    owner, word, weight = owner[order], word[order], weight[order]
    rank = np.arange(len(owner)) - np.searchsorted(owner, owner)
    keep = rank < k
    top = Profiles(np.full((num_owners, k), -1, np.int32), np.zeros((num_owners, k), np.float32))
    top.word[owner[keep], rank[keep]] = word[keep]
    top.weight[owner[keep], rank[keep]] = weight[keep]
    return top
