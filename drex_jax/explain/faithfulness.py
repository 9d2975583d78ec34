"""Faithfulness of the explanations of a DReX run: the curves of `drex_jax.explain.curves` on its test interactions."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np

from drex_jax.common.errors import UserError
from drex_jax.data.synthetic.text import BLAME, PRAISE
from drex_jax.data.synthetic.world import World
from drex_jax.data.tokens import Tokens
from drex_jax.explain import curves
from drex_jax.explain.occlusion import Occlusion
from drex_jax.explain.profiles import KeywordProfiles
from drex_jax.runs.dataset import Dataset
from drex_jax.runs.layout import RunLayout

SIDES = ("user", "item")
SEED = 0


def measure_run(
    workdir: pathlib.Path, occlusion: Occlusion, dataset: Dataset, world: World | None, pairs: int
) -> dict[str, Any]:
    """Measure deletion and insertion curves of a run, for interactions and, with reviews, for keywords.

    Args:
      workdir: the run directory, which holds the keyword profiles.
      occlusion: over the run's model and interactions.
      dataset: the run's data.
      world: what synthetic data were made from; None for other data.
      pairs: how many test interactions to take, at most.

    Returns:
      `steps`, `pairs` (how many were taken) and, for each kind of parts ("interactions of the user" ...) that some
      pair has, what `curves.figures` returns.

    Raises:
      UserError: no test interaction has enough earlier ones, or the keyword profiles are damaged.
    """
    rng = np.random.default_rng(SEED)
    chosen = curves.choose_pairs(occlusion, sum(dataset.sizes[:2]), pairs, rng)
    if not chosen:
        least = curves.LEAST_INTERACTIONS
        raise UserError(f"{workdir}: no test interaction has {least} earlier ones of its user and of its item")
    effects: dict[str, curves.Effects | None] = {}
    for side in SIDES:
        questions = curves.interaction_questions(occlusion, chosen, side, rng)
        effects[f"interactions of the {side}"] = curves.measure(occlusion, questions)
    if dataset.events.tokens is not None:
        effects |= _keyword_effects(workdir, occlusion, dataset, world, chosen, rng)
    figures = {parts: curves.figures(found) for parts, found in effects.items() if found is not None}
    return {"steps": curves.STEPS, "pairs": len(chosen)} | figures


def _keyword_effects(
    workdir: pathlib.Path,
    occlusion: Occlusion,
    dataset: Dataset,
    world: World | None,
    chosen: list[curves.Pair],
    rng: np.random.Generator,
) -> dict[str, curves.Effects | None]:
    assert dataset.events.tokens is not None
    effects = {}
    found = KeywordProfiles.load(RunLayout(workdir).keywords)
    words, number = _words(dataset, dataset.events.tokens)
    named = [number.get(name, -1) for name in found.words]
    for side, profiles in zip(SIDES, (found.users, found.items), strict=True):
        own = [[named[word] for word in profile if word >= 0] for profile in profiles.word.tolist()]
        pools = {} if world is None else _pools(world, dataset, side, number)
        questions = curves.keyword_questions(occlusion, chosen, side, words, own, pools, rng)
        effects[f"keywords of the {side}"] = curves.measure(occlusion, questions)
    return effects


def _words(dataset: Dataset, tokens: Tokens) -> tuple[Tokens, dict[str, int]]:
    """Return the reviews with a word number for each token, and the number of each word."""
    assert dataset.vocabulary is not None
    words = dataset.vocabulary.words(tokens)
    return tokens._replace(ids=words.word), {name: number for number, name in enumerate(words.names)}


def _pools(world: World, dataset: Dataset, side: str, number: dict[str, int]) -> dict[str, list[list[int]]]:
    """Return other words to take, for each owner: of its true aspects, of sentiment, and of neither."""
    position = {name: place for place, name in enumerate(getattr(world, f"{side}_ids"))}
    owners = [position[name] for name in getattr(dataset.interactions, f"{side}_ids")]
    aspects = [[number[word] for word in words if word in number] for words in world.aspect_words]
    sentiment = [number[word] for word in (*PRAISE, *BLAME) if word in number]
    background = sorted(set(number.values()) - {word for words in (*aspects, sentiment) for word in words})
    truth = getattr(world, f"{side}_aspects")[owners].tolist()
    return {
        "true aspects": [[word for aspect in set(own) for word in aspects[aspect]] for own in truth],
        "sentiment": [sentiment] * len(owners),
        "background": [background] * len(owners),
    }
