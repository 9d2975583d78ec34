"""Keyword profiles and the attention to reviews of a trained model: kept in the run directory, read back to explain."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from scipy import sparse

from drex_jax.common.progress import progress_bar
from drex_jax.data import storage
from drex_jax.data.strings import Strings
from drex_jax.data.tokens import Tokens
from drex_jax.devices import processes
from drex_jax.explain import keywords
from drex_jax.models.baselines.narre import NARRE
from drex_jax.models.drex.model import DReX
from drex_jax.models.protocol import Model
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
    """The words of everyone's train reviews that the model attends to beyond what the corpus has anyway.

    Attributes:
      words: by number.
      users, items: one profile each, by the data set's numbers.
    """

    words: Strings
    users: keywords.Profiles
    items: keywords.Profiles

    def save(self, folder: pathlib.Path) -> None:
        """Writes them, all or nothing."""
        columns: dict[str, np.ndarray | Strings] = {"words": self.words}
        for side, profile in (("user", self.users), ("item", self.items)):
            columns |= {f"{side}_word": profile.word, f"{side}_weight": profile.weight}
        storage.write_columns(folder, {"schema": SCHEMA}, columns)

    @classmethod
    def load(cls, folder: pathlib.Path) -> KeywordProfiles:
        """Reads what `save` wrote.

        Raises:
          UserError: there is nothing to read, or it is damaged.
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
    """Which train reviews speak for everyone, and how much each (NARRE).

    Attributes:
      users, items: (int64 [n, R], float32 [n, R]): train interactions, -1 for none, and weights of sum 1 in a row.
    """

    users: tuple[np.ndarray, np.ndarray]
    items: tuple[np.ndarray, np.ndarray]

    def of(self, side: str, number: int) -> dict[int, float]:
        """The weight of each interaction that speaks for a user or an item; empty for those after training."""
        reviews, weights = self.users if side == "user" else self.items
        if not 0 <= number < len(reviews):
            return {}
        found = zip(reviews[number].tolist(), weights[number].tolist(), strict=True)
        return {review: weight for review, weight in found if review >= 0}

    def save(self, folder: pathlib.Path, num_train: int) -> None:
        """Writes it, all or nothing. `num_train`: the train interactions that are numbered."""
        columns: dict[str, np.ndarray | Strings] = {}
        for side, (reviews, weights) in (("user", self.users), ("item", self.items)):
            columns |= {f"{side}_review": reviews, f"{side}_weight": weights}
        storage.write_columns(folder, {"schema": ATTENTION_SCHEMA, "train": num_train}, columns)

    @classmethod
    def load(cls, folder: pathlib.Path, num_train: int) -> ReviewAttention | None:
        """Reads what `save` wrote; None where it is of other train interactions, as a view of an earlier moment has.

        Raises:
          UserError: there is nothing to read, or it is damaged.
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
    """Some thousand reviews after the other, and float32 [total]: the weight of each of their tokens in its review."""
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
    """What each review says about each word, float32 [reviews, words] (`keywords.evidence`), and the words, sorted."""
    numbers: dict[str, int] = {}
    parts = []
    for part, attention in token_attention(encoder, params, tokens):
        words = vocabulary.words(part)
        rows = np.arange(len(part.cut))
        found = keywords.evidence(words.word, words.first, part.offsets, attention, rows, len(words.names))
        number = np.array([numbers.setdefault(name, len(numbers)) for name in words.names], np.int32)
        parts.append((found.data, number[found.indices], np.diff(found.indptr)))
    names = sorted(numbers)
    place = np.empty(len(names), np.int32)
    place[[numbers[name] for name in names]] = np.arange(len(names))
    data, column, length = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    begins = np.concatenate([[0], np.cumsum(length, dtype=np.int64)])
    if begins[-1] < 1 << 31:  # half the memory
        begins = begins.astype(np.int32)
    reviews = sparse.csr_array((data, place[column], begins), shape=(len(begins) - 1, len(names)))
    reviews.sort_indices()
    return reviews, names


def keyword_profiles(encoder: text_encoder.TextEncoder, params: Any, dataset: Dataset) -> KeywordProfiles:
    """Profiles of all users and items from their train reviews.

    Args:
      encoder: the trained model's review encoder.
      params: its parameters.
      dataset: with texts.
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


def write_profiles(model: Model, params: Any, dataset: Dataset, folder: pathlib.Path) -> None:
    """Writes what a model that reads texts has to say of them: keyword profiles, and NARRE's attention to reviews."""
    if dataset.events.tokens is None or not isinstance(model, DReX | NARRE):
        return
    encoder = model.options.encoder if isinstance(model, NARRE) else model.options.network.text_encoder
    profiles = keyword_profiles(encoder, params["text"], dataset)
    attention = ReviewAttention(*model.attention(params)) if isinstance(model, NARRE) else None
    if processes.is_main_process():
        profiles.save(RunLayout(folder).keywords)
        if attention is not None:
            attention.save(RunLayout(folder).attention, dataset.sizes[0])


def describe(profiles: KeywordProfiles, dataset: Dataset, side: str, ids: Sequence[str]) -> str:
    """The profiles of users or items (`side`) by id, a line each: "id: word (weight), ..."."""
    known = dataset.interactions.user_ids if side == "user" else dataset.interactions.item_ids
    numbers = {name: number for number, name in enumerate(known)}
    found = profiles.users if side == "user" else profiles.items
    return keywords.describe(found, np.array([numbers[name] for name in ids]), list(ids), list(profiles.words))
