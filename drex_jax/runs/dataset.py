"""The data set of a run: read from raw files into the run directory, and opened from there."""

from __future__ import annotations

import dataclasses
import logging
import pathlib
import time
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from drex_jax.common.cache import Cache, no_cache
from drex_jax.common.errors import UserError
from drex_jax.common.files import read_json, write_json
from drex_jax.config.groups import DeviceSettings
from drex_jax.data import ablation
from drex_jax.data.events import Events, build_events, in_learning_order, learning_order
from drex_jax.data.interactions import Interactions
from drex_jax.data.load import DataSettings, load_interactions
from drex_jax.data.split import Split, SplitSettings, split_interactions
from drex_jax.data.tokens import Tokens
from drex_jax.devices.mesh import Devices
from drex_jax.runs.layout import RunLayout
from drex_jax.text import vocabulary
from drex_jax.text.bert import pieces, reviews
from drex_jax.text.bert.pieces import WordPieces
from drex_jax.text.settings import TextSettings
from drex_jax.text.vocabulary import Vocabulary

LOGGER = logging.getLogger(__name__)
FACT_KEYS = ("sha256", "rows_read", "duplicates", "rejected", "notices", "noise_floor", "vocabulary", "seconds")
FACT_TYPES = {"notices": list, "vocabulary": bool, "seconds": dict}


class DatasetSettings(Protocol):
    """The settings that a data set depends on; `drex_jax.training.settings.Settings` has them, among others."""

    @property
    def seed(self) -> int: ...
    @property
    def data(self) -> DataSettings: ...
    @property
    def split(self) -> SplitSettings: ...
    @property
    def text(self) -> TextSettings: ...
    @property
    def devices(self) -> DeviceSettings: ...


@dataclasses.dataclass(frozen=True)
class Dataset:
    """One data set, split and encoded.

    Attributes:
      interactions: all interactions in learning order (`drex_jax.data.events.in_learning_order`).
      split: the rows of train, validation and test, in the table sorted by time.
      events: the interactions as arrays that models read.
      vocabulary: the vocabulary of the tokens; None without tokens.
      facts: counts from reading, for the results: `sha256`, `rows_read`, `duplicates`, `rejected`, `notices`,
        `noise_floor` (of synthetic data; else None) and the `seconds` that it took.
    """

    interactions: Interactions
    split: Split
    events: Events
    vocabulary: Vocabulary | WordPieces | None
    facts: dict[str, Any]

    @property
    def sizes(self) -> tuple[int, int, int]:
        """The numbers of train, validation and test interactions."""
        return len(self.split.train), len(self.split.validation), len(self.split.test)

    def without_test(self) -> Dataset:
        """Return a copy without the test part, for model selection."""
        train, validation, _ = self.sizes
        parts = dataclasses.replace(self.split, test=self.split.test[:0])
        return dataclasses.replace(self, split=parts, events=self.events[: train + validation])


def prepare(config: DatasetSettings, workdir: pathlib.Path, cache: Cache = no_cache) -> Dataset:
    """Read the raw files into the run directory, unless that is done already, and open the data set.

    Raises:
      UserError: the data cannot be read, split or encoded as the configuration asks.
    """
    read_into(config, workdir, cache)
    return open_dataset(config, workdir)


def read_into(config: DatasetSettings, workdir: pathlib.Path, cache: Cache = no_cache) -> None:
    """Read the raw files, encode their texts, and write both into the run directory, unless that is done already.

    Slow steps go through `cache`, so that an interrupted start continues, and other runs reuse their results.

    Raises:
      UserError: the data cannot be read, split or encoded as the configuration asks.
    """
    layout = RunLayout(workdir)
    if layout.facts.exists():
        return
    begin = time.monotonic()
    interactions, report = load_interactions(config.data, layout.quarantine, cache)
    for line in report.lines:
        LOGGER.info("%s", line)
    train, digest = _split(interactions, config).train, interactions.sha256()
    read = time.monotonic()
    texts = _encode_texts(interactions, train, config, cache)
    texts.interactions.save(layout.data)
    _save_tokens(texts, layout, config.text.max_tokens, cache)
    facts = {
        "sha256": digest,
        "rows_read": report.rows_read,
        "duplicates": report.duplicates,
        "rejected": report.rejected,
        "notices": [*report.notices, *texts.notices],
        "noise_floor": report.noise_floor,
        "vocabulary": texts.vocabulary is not None,
        "vocabulary_fitted_on": texts.vocabulary.fitted_on if isinstance(texts.vocabulary, Vocabulary) else None,
        "bert": texts.bert,
        "seconds": {"reading": read - begin, "texts": time.monotonic() - read},
    }
    write_json(layout.facts, facts)  # the last file: when it exists, the folder is complete


class _EncodedTexts(NamedTuple):
    """The interactions with the vectors of their reviews, or the vocabulary that splits the reviews into tokens."""

    interactions: Interactions
    vocabulary: Vocabulary | WordPieces | None = None
    bert: str | None = None  # the fingerprint of the BERT that reads the texts
    notices: Sequence[str] = ()


def _encode_texts(
    interactions: Interactions, train: np.ndarray, config: DatasetSettings, cache: Cache
) -> _EncodedTexts:
    """Prepare the texts for the encoder of `config.text`. `train`: the rows that a vocabulary may be trained on."""
    text = config.text
    if not (text.enabled and interactions.has_text[train].any()):
        return _EncodedTexts(interactions)
    if text.encoder != "bert":
        words = vocabulary.train(interactions.text, text.vocabulary_size, rows=train)
        return _EncodedTexts(interactions, words)
    model = reviews.encoder(text.bert, Devices(config.devices.mapping, config.devices.count))
    if text.bert.pooling == reviews.ATTENTION:
        return _EncodedTexts(interactions, WordPieces.of(model, text.bert.finetune), model.fingerprint)
    interactions, notices = reviews.with_vectors(interactions, model, text, cache)
    return _EncodedTexts(interactions, None, model.fingerprint, notices)


def _save_tokens(texts: _EncodedTexts, layout: RunLayout, max_tokens: int, cache: Cache) -> None:
    """Write the vocabulary and the texts as its tokens; nothing without a vocabulary."""
    words, text = texts.vocabulary, texts.interactions.text
    if isinstance(words, WordPieces):
        words.save(layout.pieces)
        pieces.tokens_of(words, text, max_tokens, cache, layout.folder).save(layout.tokens)
    elif words is not None:
        words.save(layout.vocabulary)
        vocabulary.tokens_of(words, text, max_tokens, cache, layout.folder).save(layout.tokens)


def open_dataset(config: DatasetSettings, workdir: pathlib.Path) -> Dataset:
    """Open the data set of a run directory, without its raw files.

    Raises:
      UserError: one of its files is missing or damaged.
    """
    facts = _facts(workdir)
    ordered, parts = open_interactions(config, workdir)
    words = _vocabulary(config, RunLayout(workdir), facts)
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
    """Return the tokens of a run directory that has a vocabulary, in learning order.

    Raises:
      UserError: a file is missing or damaged.
    """
    folder = RunLayout(workdir).tokens
    tokens, rows = Tokens.load(folder), learning_order(parts)
    if len(tokens.cut) != len(rows):
        raise UserError(f"{folder}: {len(tokens.cut):,} texts for {len(rows):,} interactions; damaged")
    if len(tokens.ids) and not 0 <= tokens.ids.min() <= tokens.ids.max() < vocabulary_size:
        raise UserError(f"{folder}: tokens beyond the {vocabulary_size:,} of the vocabulary; damaged")
    return tokens if np.array_equal(rows, np.arange(len(rows))) else tokens.take(rows)


def open_vocabulary(config: DatasetSettings, workdir: pathlib.Path) -> Vocabulary | WordPieces | None:
    """Return the vocabulary of a run directory; None if its texts are not read as tokens.

    Raises:
      UserError: a file is missing or damaged.
    """
    return _vocabulary(config, RunLayout(workdir), _facts(workdir))


def _vocabulary(config: DatasetSettings, layout: RunLayout, facts: dict[str, Any]) -> Vocabulary | WordPieces | None:
    if not facts["vocabulary"]:
        return None
    if facts.get("bert"):
        return WordPieces.load(layout.pieces, lambda: reviews.trained_on(config.text.bert, facts["bert"]))
    return Vocabulary.load(layout.vocabulary)


def open_interactions(config: DatasetSettings, workdir: pathlib.Path) -> tuple[Interactions, Split]:
    """Return the interactions of a run directory in learning order, and their split; texts are not encoded.

    Raises:
      UserError: a file is missing or damaged.
    """
    interactions = Interactions.load(RunLayout(workdir).data)
    parts = _split(interactions, config)
    return in_learning_order(interactions, parts), parts


def _facts(workdir: pathlib.Path) -> dict[str, Any]:
    path = RunLayout(workdir).facts
    facts = read_json(path, FACT_KEYS)
    for name, kind in FACT_TYPES.items():
        if not isinstance(facts[name], kind):
            raise UserError(f"{path}: damaged; its {name} is {facts[name]!r}")
    return facts


def _split(interactions: Interactions, config: DatasetSettings) -> Split:
    return split_interactions(interactions, config.split.kind, config.split.validation, config.split.test, config.seed)
