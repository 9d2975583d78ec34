"""How faithful the explanations of a finished DReX run are: `drex_jax.explain.curves` over its test, as tables for people."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np

from drex_jax.common.errors import UserError
from drex_jax.data.synthetic.text import BLAME, PRAISE
from drex_jax.data.synthetic.world import generate_world
from drex_jax.data.tokens import Tokens
from drex_jax.explain import curves
from drex_jax.explain.occlusion import Occlusion
from drex_jax.explain.profiles import KeywordProfiles
from drex_jax.models.drex.core import Refiner
from drex_jax.runs.dataset import Dataset, open_dataset
from drex_jax.runs.layout import RunLayout
from drex_jax.serving.finished_run import open_run
from drex_jax.training.settings import read_settings

SIDES = ("user", "item")
SEED = 0
INTERACTIONS = {"score": ("most", "least", "random"), "change": ("for", "against", "random")}  # shown of each measure
KEYWORD_ORDERS = {"score": None, "state": None}  # all orders


def measured(workdir: pathlib.Path, pairs: int) -> dict[str, Any]:
    """All figures of a run.

    Raises:
      UserError: there is no finished DReX run, or it is damaged, or too small for a pair.
    """
    config = read_settings(RunLayout(workdir).config)
    if config.model.name != "drex":
        raise UserError(f"{workdir}: a run of {config.model.name}; only DReX is explained")
    run = open_run(workdir)
    assert isinstance(run.scorer, Refiner)
    dataset = open_dataset(config, workdir)
    occlusion = Occlusion(run.scorer, run.params, dataset.events)
    rng = np.random.default_rng(SEED)
    chosen = curves.choose_pairs(occlusion, sum(dataset.sizes[:2]), pairs, rng)
    if not chosen:
        least = curves.LEAST_INTERACTIONS
        raise UserError(f"{workdir}: no test interaction has {least} earlier ones of its user and of its item")
    answers: dict[str, Any] = {"run": str(workdir), "data": config.data.name, "steps": curves.STEPS}
    for side in SIDES:
        questions = curves.interaction_questions(occlusion, chosen, side, rng)
        answers[f"interactions of the {side}"] = curves.measure(occlusion, questions)
    if dataset.events.tokens is not None:
        found = KeywordProfiles.load(RunLayout(workdir).keywords)
        words, number = _words(dataset, dataset.events.tokens)
        named = [number.get(name, -1) for name in found.words]
        for side, profiles in zip(SIDES, (found.users, found.items), strict=True):
            own = [[named[word] for word in of if word >= 0] for of in profiles.word.tolist()]
            pools = _pools(config, dataset, side, number)
            questions = curves.keyword_questions(occlusion, chosen, side, words, own, pools, rng)
            answers[f"keywords of the {side}"] = curves.measure(occlusion, questions)
    figures = {key: curves.figures(value) for key, value in answers.items() if isinstance(value, curves.Effects)}
    return {key: answers[key] for key in ("run", "data", "steps")} | {"pairs": len(chosen)} | figures


def _words(dataset: Dataset, tokens: Tokens) -> tuple[Tokens, dict[str, int]]:
    """The reviews as word numbers, token by token, and the number of each word."""
    assert dataset.vocabulary is not None
    words = dataset.vocabulary.words(tokens)
    return tokens._replace(ids=words.word), {name: number for number, name in enumerate(words.names)}


def _pools(config: Any, dataset: Dataset, side: str, number: dict[str, int]) -> dict[str, list[list[int]]]:
    """Of synthetic data: words of each owner's true aspects, and words of none at all."""
    if config.data.format != "synthetic":
        return {}
    world = generate_world(**config.data.synthetic.arguments())
    position = {name: place for place, name in enumerate(getattr(world, f"{side}_ids"))}
    owners = [position[name] for name in getattr(dataset.interactions, f"{side}_ids")]
    aspects = [[number[word] for word in words if word in number] for words in world.aspect_words]
    sentiment = [number[word] for word in (*PRAISE, *BLAME) if word in number]
    background = sorted(set(number.values()) - {word for words in (*aspects, sentiment) for word in words})
    truth = getattr(world, f"{side}_aspects")[owners].tolist()
    return {
        "true aspects": [[word for aspect in set(of) for word in aspects[aspect]] for of in truth],
        "sentiment": [sentiment] * len(owners),
        "background": [background] * len(owners),
    }


def describe(answers: dict[str, Any]) -> str:
    """Tables for people."""
    facts = f"{answers['data']}, {answers['pairs']:,} test pairs, {curves.DRAWS} random draws each"
    lines = [f"{answers['run']}: {facts}"]
    for title, found in answers.items():
        if not isinstance(found, dict):
            continue
        taken = ", ".join(f"{name} {count:.1f}" for name, count in found["removed"].items())
        lines += ["", f"{title}: {found['pairs']:,} pairs; taken away at the last step: {taken}"]
        steps = "".join(f"{f'k={k}':>8}" for k in answers["steps"])
        for measure, orders in (KEYWORD_ORDERS if title.startswith("keywords") else INTERACTIONS).items():
            lines.append(f"{measure:<7}{'way':<10}{'order':<13}{steps}   {'area (interval)':<29}less that of random")
            for way in curves.WAYS:
                shown = {order: one for order, one in found[measure][way].items() if orders is None or order in orders}
                lines += [_line(way, order, one) for order, one in shown.items()]
    return "\n".join(lines)


def _line(way: str, order: str, one: dict[str, list[float]]) -> str:
    curve = "".join(f"{value:8.4f}" for value in one["curve"])
    area, less = ("{:+.4f} ({:+.4f} to {:+.4f})".format(*one[key]) for key in ("area", "against_random"))
    return f"{'':<7}{way:<10}{order:<13}{curve}   {area}{'' if order == 'random' else f'  {less}'}"
