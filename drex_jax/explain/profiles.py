"""Keyword profiles and review attention of a trained model, saved in the run directory for explanations."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from scipy import sparse

from drex_jax.common.progress import progress_bar
from drex_jax.common.side import Side
from drex_jax.data import storage
from drex_jax.data.strings import Strings
from drex_jax.data.tokens import Tokens
from drex_jax.devices import processes
from drex_jax.explain import keywords
from drex_jax.models.protocol import Stream
from drex_jax.runs.dataset import Dataset
from drex_jax.runs.layout import RunLayout
from drex_jax.text import batching
from drex_jax.text import encoder as text_encoder
from drex_jax.text.bert.pieces import WordPieces
from drex_jax.text.vocabulary import Vocabulary

SCHEMA, ATTENTION_SCHEMA = "keywords 1", "attention 1"
WORDS_A_PROFILE = 10
REVIEWS_AT_ONCE = 16_384


class KeywordProfiles(NamedTuple):
    """The keyword profiles of all users and items (`drex_jax.explain.keywords`).

    Attributes:
      words: the words by number.
      users, items: the profiles, by the user and item numbers of the data set.
    """

    words: Strings
    users: keywords.Profiles
    items: keywords.Profiles

    def save(self, folder: pathlib.Path) -> None:
        """Write the profiles atomically."""
        columns: dict[str, np.ndarray | Strings] = {"words": self.words}
        for side, profile in (("user", self.users), ("item", self.items)):
            columns |= {f"{side}_word": profile.word, f"{side}_weight": profile.weight}
        storage.write_columns(folder, {"schema": SCHEMA}, columns)

    @classmethod
    def load(cls, folder: pathlib.Path) -> KeywordProfiles:
        """Read a folder of `save`.

        Raises:
          UserError: the folder is missing or damaged.
        """
        storage.read_header(folder, SCHEMA)
        sides = [
            keywords.Profiles(
                storage.read_array(folder, f"{side}_word", np.int32, 2),
                storage.read_array(folder, f"{side}_weight", np.float32, 2),
            )
            for side in ("user", "item")
        ]
        return cls(storage.read_strings(folder, "words"), *sides)


class ReviewAttention(NamedTuple):
    """The attention weights of train reviews (NARRE).

    Attributes:
      users, items: (int64 [n, R], float32 [n, R]), train interactions of each user (or item), -1 for none, and their
        weights, of sum 1 in a row.
    """

    users: tuple[np.ndarray, np.ndarray]
    items: tuple[np.ndarray, np.ndarray]

    def of(self, side: Side, number: int) -> dict[int, float]:
        """Return {interaction: weight} of a user or an item; empty for those that came after training."""
        reviews, weights = self.users if side is Side.USER else self.items
        if not 0 <= number < len(reviews):
            return {}
        pairs = zip(reviews[number].tolist(), weights[number].tolist(), strict=True)
        return {review: weight for review, weight in pairs if review >= 0}

    def save(self, folder: pathlib.Path, num_train: int) -> None:
        """Write the weights atomically. `num_train`: the number of train interactions."""
        columns: dict[str, np.ndarray | Strings] = {}
        for side, (reviews, weights) in (("user", self.users), ("item", self.items)):
            columns |= {f"{side}_review": reviews, f"{side}_weight": weights}
        storage.write_columns(folder, {"schema": ATTENTION_SCHEMA, "train": num_train}, columns)

    @classmethod
    def load(cls, folder: pathlib.Path, num_train: int) -> ReviewAttention | None:
        """Read a folder of `save`; None if it was saved with another number of train interactions.

        Raises:
          UserError: the folder is missing or damaged.
        """
        if storage.read_header(folder, ATTENTION_SCHEMA).get("train") != num_train:
            return None
        sides = (
            (
                storage.read_array(folder, f"{side}_review", np.int64, 2),
                storage.read_array(folder, f"{side}_weight", np.float32, 2),
            )
            for side in ("user", "item")
        )
        return cls(*sides)


def token_attention(
    encoder: text_encoder.TextEncoder, params: Any, tokens: Tokens
) -> Iterator[tuple[Tokens, np.ndarray]]:
    """Yield parts of the reviews, and the attention weight of each of their tokens, float32 [total]."""
    lengths, num_reviews = tokens.lengths, len(tokens.lengths)
    spans = [(begin, min(begin + REVIEWS_AT_ONCE, num_reviews)) for begin in range(0, num_reviews, REVIEWS_AT_ONCE)]
    shapes = batching.fit(
        [lengths[begin:end] for begin, end in spans], batching.bucket_lengths(max(int(lengths.max(initial=1)), 1))
    )
    attend = jax.jit(lambda params, batch: text_encoder.attention(encoder, params, batch))
    with progress_bar("reading reviews for keywords", num_reviews, "reviews") as bar:
        for begin, end in spans:
            part, rows = tokens.part(begin, end), np.arange(end - begin)
            batch = batching.plan(part.ids, part.offsets, rows, shapes, part.features)
            attended = tuple(np.asarray(attention) for attention in attend(params, batch))
            yield part, batching.unplan(attended, batch, part.offsets, rows, len(part.ids))
            bar.update(len(rows))


def evidence(
    encoder: text_encoder.TextEncoder, params: Any, vocabulary: Vocabulary | WordPieces, tokens: Tokens
) -> tuple[sparse.csr_array, list[str]]:
    """Return the evidence of each review for each word, float32 [reviews, words], and the words, sorted."""
    numbers: dict[str, int] = {}
    parts = []
    for part, attention in token_attention(encoder, params, tokens):
        words = vocabulary.words(part)
        rows = np.arange(len(part.cut))
        matrix = keywords.evidence(words.word, words.first, part.offsets, attention, rows, len(words.names))
        number = np.array([numbers.setdefault(name, len(numbers)) for name in words.names], np.int32)
        parts.append((matrix.data, number[matrix.indices], np.diff(matrix.indptr)))
    names = sorted(numbers)
    sorted_number = np.empty(len(names), np.int32)
    sorted_number[[numbers[name] for name in names]] = np.arange(len(names))
    data, column, length = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    begins = np.concatenate([[0], np.cumsum(length, dtype=np.int64)])
    if begins[-1] < 1 << 31:  # half the memory
        begins = begins.astype(np.int32)
    reviews = sparse.csr_array((data, sorted_number[column], begins), shape=(len(begins) - 1, len(names)))
    reviews.sort_indices()
    return reviews, names


def keyword_profiles(encoder: text_encoder.TextEncoder, params: Any, dataset: Dataset) -> KeywordProfiles:
    """Return the profiles of all users and items from their train reviews.

    Args:
      encoder: the review encoder of the trained model.
      params: parameters of the encoder.
      dataset: a data set with texts.
    """
    assert dataset.vocabulary is not None
    assert dataset.events.tokens is not None
    train = dataset.sizes[0]
    reviews, names = evidence(encoder, params, dataset.vocabulary, dataset.events.tokens.part(0, train))
    related = keywords.relatedness(reviews)
    users, items = (
        keywords.profiles(reviews, related, owner[:train], count, WORDS_A_PROFILE)
        for owner, count in (
            (dataset.events.user, dataset.events.num_users),
            (dataset.events.item, dataset.events.num_items),
        )
    )
    return KeywordProfiles(Strings.of(names), users, items)


def write_profiles(stream: Stream, params: Any, dataset: Dataset, folder: pathlib.Path) -> None:
    """Write what a model that reads texts says of them: keyword profiles, and attention to reviews where it has any."""
    encoder = stream.model.text_encoder
    if dataset.events.tokens is None or encoder is None:
        return
    profiles, found = keyword_profiles(encoder, params["text"], dataset), stream.review_attention(params)
    if processes.is_main_process():
        profiles.save(RunLayout(folder).keywords)
        if found is not None:
            ReviewAttention(*found).save(RunLayout(folder).attention, dataset.sizes[0])


def describe(profiles: KeywordProfiles, dataset: Dataset, side: str, ids: Sequence[str]) -> str:
    """Return the profiles of users or items (`side`) by id, one on each line: "id: word (weight), ..."."""
    all_ids = dataset.interactions.user_ids if side == "user" else dataset.interactions.item_ids
    numbers = {name: number for number, name in enumerate(all_ids)}
    chosen = profiles.users if side == "user" else profiles.items
    return keywords.describe(chosen, np.array([numbers[name] for name in ids]), list(ids), list(profiles.words))
