"""Measure how many of a profile's top five words name an aspect that the synthetic world gave the user or item.

    python -m tools.benchmarks.keyword_precision --workdir=runs/quickstart

The profiles of a finished run on synthetic data are compared with TF-IDF profiles of the same reviews.
"""

from __future__ import annotations

import pathlib
import sys

import numpy as np

from drex_jax.cli.exit_status import exit_code
from drex_jax.cli.flags import Parser
from drex_jax.common.errors import UserError
from drex_jax.data.synthetic.world import generate_world
from drex_jax.explain import keywords
from drex_jax.explain.profiles import KeywordProfiles
from drex_jax.runs.dataset import Dataset, open_dataset
from drex_jax.runs.layout import RunLayout
from drex_jax.training.settings import read_settings
from tools.benchmarks.tfidf import tfidf_profiles

TOP = 5


def precision(words: np.ndarray, aspect_of: np.ndarray, truth: np.ndarray, owners: np.ndarray) -> float:
    """Return the mean share of the `TOP` words of `owners` (`words` int [owners, >= TOP]) with an aspect in `truth`."""
    named = np.where(words[owners, :TOP] >= 0, aspect_of[words[owners, :TOP]], -1)  # [n, TOP]
    return float((named[:, :, None] == truth[owners][:, None, :]).any(2).mean())


def compare(workdir: pathlib.Path) -> dict[str, tuple[float, float]]:
    """Return {side: (precision of the run's profiles, precision of TF-IDF)} over all owners with a train review.

    Raises:
      UserError: the run is damaged, or was not trained on synthetic reviews.
    """
    config = read_settings(RunLayout(workdir).config)
    if config.data.format != "synthetic":
        raise UserError(f"{workdir}: its data are not synthetic, so there is no truth to compare with")
    found = KeywordProfiles.load(RunLayout(workdir).keywords)
    dataset = open_dataset(config, workdir)
    world = generate_world(**config.data.synthetic.arguments())
    aspects = {word: number for number, words in enumerate(world.aspect_words) for word in words}
    aspect_of = np.array([aspects.get(word, -2) for word in found.words])
    baseline = _tfidf(dataset)
    train = slice(0, dataset.sizes[0])
    answers = {}
    for side, profiles in (("user", found.users), ("item", found.items)):
        ids = getattr(world, f"{side}_ids")
        position = {name: number for number, name in enumerate(ids)}
        known = getattr(dataset.interactions, f"{side}_ids")
        truth = getattr(world, f"{side}_aspects")[[position[name] for name in known]]
        owners = np.unique(getattr(dataset.events, side)[train][dataset.interactions.has_text[train]])
        answers[side] = (
            precision(profiles.word, aspect_of, truth, owners),
            precision(baseline[side].word, aspect_of, truth, owners),
        )
    return answers


def _tfidf(dataset: Dataset) -> dict[str, keywords.Profiles]:
    """Make TF-IDF profiles of the train reviews; every token counts once."""
    assert dataset.vocabulary is not None
    assert dataset.events.tokens is not None
    train = dataset.sizes[0]
    tokens = dataset.events.tokens.part(0, train)
    words = dataset.vocabulary.words(tokens)  # numbered as in the run's profiles: from train reviews only
    uniform = np.ones(len(tokens.ids), np.float32)
    counts = keywords.evidence(words.word, words.first, tokens.offsets, uniform, np.arange(train), len(words.names))
    sides = {
        "user": (dataset.events.user, dataset.events.num_users),
        "item": (dataset.events.item, dataset.events.num_items),
    }
    return {side: tfidf_profiles(counts, owner[:train], n, TOP) for side, (owner, n) in sides.items()}


def main() -> None:
    """Run the command."""
    parser = Parser("python -m tools.benchmarks.keyword_precision", __doc__)
    parser.add_argument("--workdir", type=pathlib.Path, required=True, help="a finished run on synthetic reviews")
    for side, (ours, tfidf) in compare(parser.parse_args().workdir).items():
        print(f"{side}s: precision@{TOP} {ours:.3f}, TF-IDF {tfidf:.3f} (synthetic data)")


if __name__ == "__main__":
    sys.exit(exit_code(main))
