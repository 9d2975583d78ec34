"""From a configuration to everything a model reads, and the same again from a run directory."""

from __future__ import annotations

import dataclasses
import pathlib

import numpy as np

from drex_jax import reviews
from drex_jax.config import Config
from drex_jax.data import modalities, vocabulary
from drex_jax.data.interactions import Interactions
from drex_jax.data.loading import load
from drex_jax.data.modalities import Events
from drex_jax.data.split import Split, split
from drex_jax.data.vocabulary import Vocabulary
from drex_jax.files import read_json, write_json
from drex_jax.options import data_options

HISTORY, VOCABULARY, FACTS, QUARANTINE = "history", "vocabulary.model", "facts.json", "quarantine.jsonl"
FACT_KEYS = ("sha256", "rows_read", "duplicates", "rejected", "notices", "noise_floor", "vocabulary")


@dataclasses.dataclass(frozen=True)
class Dataset:
    """One data set, split and encoded.

    Attributes:
      interactions: in the order of learning (`modalities.in_learning_order`).
      split: of the table in time order.
      events: what models read.
      vocabulary: None where there is no text modality.
      facts: what reading found, for results: `sha256`, `rows_read`, `duplicates`, `rejected`, `notices`,
        `noise_floor` (synthetic data only, else None).
    """

    interactions: Interactions
    split: Split
    events: Events
    vocabulary: Vocabulary | None
    facts: dict

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Train, validation and test interactions."""
        return len(self.split.train), len(self.split.validation), len(self.split.test)

    def ratings_only(self) -> Dataset:
        """The same without texts and vectors."""
        return dataclasses.replace(
            self, events=dataclasses.replace(self.events, tokens=None, vectors={}), vocabulary=None
        )


def prepare(config: Config, workdir: pathlib.Path) -> Dataset:
    """Reads the raw files into the run directory, or opens what an earlier start of this run left there.

    Raises:
      UserError: the data cannot be read, split or encoded as the configuration asks.
    """
    history = workdir / HISTORY
    if not (history / FACTS).exists():
        interactions, report = load(data_options(config), workdir / QUARANTINE)
        for line in report.lines:
            print(line)
        parts, digest, notices = _split(interactions, config), interactions.sha256(), list(report.notices)
        words, model, enabled = None, None, config.text.enabled and bool(interactions.has_text[parts.train].any())
        if enabled and config.text.encoder == "bert":
            model = reviews.encoder(config)
            interactions, cut = reviews.with_vectors(interactions, model, config)
            notices += cut
        elif enabled:
            words = vocabulary.train(interactions.text.take(parts.train), config.text.vocabulary_size)
        interactions.save(history)
        if words is not None:
            words.save(history / VOCABULARY)
        facts = {
            "sha256": digest,
            "rows_read": report.rows_read,
            "duplicates": report.duplicates,
            "rejected": report.rejected,
            "notices": notices,
            "noise_floor": report.noise_floor,
            "vocabulary": words is not None,
            "bert": None if model is None else model.fingerprint,
        }
        write_json(history / FACTS, facts)  # the last file: its presence says that the folder is whole
    return open_dataset(config, workdir)


def open_dataset(config: Config, workdir: pathlib.Path) -> Dataset:
    """The data set of a run directory, without its raw files.

    Raises:
      UserError: a file of it is missing or damaged.
    """
    history = workdir / HISTORY
    facts = read_json(history / FACTS, FACT_KEYS)
    ordered, parts = open_interactions(config, workdir)
    words = open_vocabulary(workdir)
    sizes = (len(parts.train), len(parts.validation), len(parts.test))
    shuffle = np.random.default_rng(config.seed) if config.text.shuffled else None
    events = modalities.events(ordered, sizes, words, config.text.max_tokens, shuffle)
    cut = 0 if events.tokens is None else events.tokens.truncated
    if cut:
        facts["notices"].append(f"{cut:,} of {len(ordered):,} reviews were cut at {config.text.max_tokens} tokens")
    if config.text.shuffled:
        facts["notices"].append("control: every review was moved to another interaction of its part of the split")
    return Dataset(ordered, parts, events, words, facts)


def open_vocabulary(workdir: pathlib.Path) -> Vocabulary | None:
    """The vocabulary of a run directory; None where the data have no texts.

    Raises:
      UserError: a file is missing or damaged.
    """
    history = workdir / HISTORY
    return Vocabulary.load(history / VOCABULARY) if read_json(history / FACTS, FACT_KEYS)["vocabulary"] else None


def open_interactions(config: Config, workdir: pathlib.Path) -> tuple[Interactions, Split]:
    """The interactions of a run directory in the order of learning, and their split; nothing is encoded.

    Raises:
      UserError: a file is missing or damaged.
    """
    interactions = Interactions.load(workdir / HISTORY)
    parts = _split(interactions, config)
    return modalities.in_learning_order(interactions, parts), parts


def _split(interactions: Interactions, config: Config) -> Split:
    return split(interactions, config.split.kind, config.split.validation, config.split.test, config.seed)
