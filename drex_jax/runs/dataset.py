"""From a configuration to everything a model reads, and the same again from a run directory."""

from __future__ import annotations

import dataclasses
import pathlib
import time
from typing import Any

import numpy as np

from drex_jax.common.cache import Cache, no_cache
from drex_jax.common.errors import UserError
from drex_jax.common.files import read_json, write_json
from drex_jax.data import ablation
from drex_jax.data.events import Events, build_events, in_learning_order, learning_order
from drex_jax.data.interactions import Interactions
from drex_jax.data.load import load_interactions
from drex_jax.data.split import Split, split_interactions
from drex_jax.data.tokens import Tokens
from drex_jax.text import vocabulary
from drex_jax.text.bert import pieces, reviews
from drex_jax.text.bert.pieces import WordPieces
from drex_jax.text.vocabulary import Vocabulary

HISTORY, VOCABULARY, TOKENS, FACTS = "history", "vocabulary.model", "tokens", "facts.json"
PIECES = "pieces"  # in place of the vocabulary, where a BERT reads the texts
QUARANTINE = "quarantine.jsonl"
FACT_KEYS = ("sha256", "rows_read", "duplicates", "rejected", "notices", "noise_floor", "vocabulary", "seconds")
FACT_TYPES = {"notices": list, "vocabulary": bool, "seconds": dict}


@dataclasses.dataclass(frozen=True)
class Dataset:
    """One data set, split and encoded.

    Attributes:
      interactions: in the order of learning (`modalities.in_learning_order`).
      split: of the table in time order.
      events: what models read.
      vocabulary: None where there is no text modality.
      facts: what reading found, for results: `sha256`, `rows_read`, `duplicates`, `rejected`, `notices`,
        `noise_floor` (synthetic data only, else None), `seconds` that it took.
    """

    interactions: Interactions
    split: Split
    events: Events
    vocabulary: Vocabulary | WordPieces | None
    facts: dict

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Train, validation and test interactions."""
        return len(self.split.train), len(self.split.validation), len(self.split.test)

    def without_test(self) -> Dataset:
        """The same as one reads it who has yet to choose: train and validation alone."""
        train, validation, _ = self.sizes
        parts = dataclasses.replace(self.split, test=self.split.test[:0])
        return dataclasses.replace(self, split=parts, events=self.events[: train + validation])

    def ratings_only(self) -> Dataset:
        """The same without texts and vectors."""
        return dataclasses.replace(
            self, events=dataclasses.replace(self.events, tokens=None, vectors={}), vocabulary=None
        )


def prepare(config: Any, workdir: pathlib.Path, cache: Cache = no_cache) -> Dataset:
    """Reads the raw files into the run directory, or opens what an earlier start of this run left there.

    Raises:
      UserError: the data cannot be read, split or encoded as the configuration asks.
    """
    read_into(config, workdir, cache)
    return open_dataset(config, workdir)


def read_into(config: Any, workdir: pathlib.Path, cache: Cache = no_cache) -> None:
    """Reads the raw files into the run directory, unless an earlier start of this run has done it.

    What takes long goes through `cache`, so that an interrupted start goes on, and other runs begin with it.

    Raises:
      UserError: the data cannot be read, split or encoded as the configuration asks.
    """
    history = workdir / HISTORY
    if (history / FACTS).exists():
        return
    seconds, begun = {}, time.monotonic()
    interactions, report = load_interactions(config.data, workdir / QUARANTINE, cache)
    for line in report.lines:
        print(line)
    parts, digest, notices = _split(interactions, config), interactions.sha256(), list(report.notices)
    seconds["reading"], begun = time.monotonic() - begun, time.monotonic()
    words, model, enabled = None, None, config.text.enabled and bool(interactions.has_text[parts.train].any())
    if enabled and config.text.encoder == "bert":
        model = reviews.encoder(config)
        if config.text.bert.pooling == reviews.ATTENTION:
            words = WordPieces.of(model, config.text.bert.finetune)
        else:
            interactions, cut = reviews.with_vectors(interactions, model, config, cache)
            notices += cut
    elif enabled:
        words = vocabulary.train(interactions.text, config.text.vocabulary_size, rows=parts.train)
    interactions.save(history)
    text, max_tokens = interactions.text, config.text.max_tokens
    if isinstance(words, WordPieces):
        words.save(history / PIECES)
        pieces.tokens_of(words, text, max_tokens, cache, workdir).save(history / TOKENS)
    elif words is not None:
        words.save(history / VOCABULARY)
        vocabulary.tokens_of(words, text, max_tokens, cache, workdir).save(history / TOKENS)
    seconds["texts"] = time.monotonic() - begun
    facts = {
        "sha256": digest,
        "rows_read": report.rows_read,
        "duplicates": report.duplicates,
        "rejected": report.rejected,
        "notices": notices,
        "noise_floor": report.noise_floor,
        "vocabulary": words is not None,
        "vocabulary_fitted_on": words.fitted_on if isinstance(words, Vocabulary) else None,
        "bert": None if model is None else model.fingerprint,
        "seconds": seconds,
    }
    write_json(history / FACTS, facts)  # the last file: its presence says that the folder is whole


def open_dataset(config: Any, workdir: pathlib.Path) -> Dataset:
    """The data set of a run directory, without its raw files.

    Raises:
      UserError: a file of it is missing or damaged.
    """
    facts = _facts(workdir)
    ordered, parts = open_interactions(config, workdir)
    words = open_vocabulary(config, workdir)
    tokens = None if words is None else open_tokens(workdir, parts, len(words))
    sizes = (len(parts.train), len(parts.validation), len(parts.test))
    shuffle = np.random.default_rng(config.seed) if config.text.shuffled else None
    events = build_events(ordered, sizes, tokens, shuffle)
    shares = dataclasses.asdict(config.data.missing)
    events = ablation.drop_modalities(events, sizes[0], shares, config.seed)
    cut = 0 if events.tokens is None else events.tokens.truncated
    if cut:
        facts["notices"].append(f"{cut:,} of {len(ordered):,} reviews were cut at {config.text.max_tokens} tokens")
    if config.text.shuffled:
        facts["notices"].append("control: every review was moved to another interaction of its part of the split")
    facts["notices"] += [f"control: {share:.0%} of train lost {name}" for name, share in shares.items() if share > 0]
    return Dataset(ordered, parts, events, words, facts)


def open_tokens(workdir: pathlib.Path, parts: Split, vocabulary_size: int) -> Tokens:
    """The tokens of a run directory that has a vocabulary, in the order of learning.

    Raises:
      UserError: a file is missing or damaged.
    """
    folder = workdir / HISTORY / TOKENS
    tokens, rows = Tokens.load(folder), learning_order(parts)
    if len(tokens.cut) != len(rows):
        raise UserError(f"{folder}: {len(tokens.cut):,} texts for {len(rows):,} interactions; damaged")
    if len(tokens.ids) and not 0 <= tokens.ids.min() <= tokens.ids.max() < vocabulary_size:
        raise UserError(f"{folder}: tokens beyond the {vocabulary_size:,} of the vocabulary; damaged")
    return tokens if np.array_equal(rows, np.arange(len(rows))) else tokens.take(rows)


def open_vocabulary(config: Any, workdir: pathlib.Path) -> Vocabulary | WordPieces | None:
    """The vocabulary of a run directory; None where its texts are not read as tokens.

    Raises:
      UserError: a file is missing or damaged.
    """
    history, facts = workdir / HISTORY, _facts(workdir)
    if not facts["vocabulary"]:
        return None
    if facts.get("bert"):
        return WordPieces.load(history / PIECES, lambda: reviews.trained_on(config, facts["bert"]))
    return Vocabulary.load(history / VOCABULARY)


def open_interactions(config: Any, workdir: pathlib.Path) -> tuple[Interactions, Split]:
    """The interactions of a run directory in the order of learning, and their split; nothing is encoded.

    Raises:
      UserError: a file is missing or damaged.
    """
    interactions = Interactions.load(workdir / HISTORY)
    parts = _split(interactions, config)
    return in_learning_order(interactions, parts), parts


def _facts(workdir: pathlib.Path) -> dict:
    path = workdir / HISTORY / FACTS
    facts = read_json(path, FACT_KEYS)
    for name, kind in FACT_TYPES.items():
        if not isinstance(facts[name], kind):
            raise UserError(f"{path}: damaged; its {name} is {facts[name]!r}")
    return facts


def _split(interactions: Interactions, config: Any) -> Split:
    return split_interactions(interactions, config.split.kind, config.split.validation, config.split.test, config.seed)
