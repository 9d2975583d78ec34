"""Example recommendations with reasons: for a handful of users, from much history to none."""

from __future__ import annotations

import html
from typing import Any

import numpy as np

from drex_jax.common.errors import UserError
from drex_jax.report.run import Finished
from drex_jax.report.section import Section
from drex_jax.serving.explanation import Explanation, PastInteraction
from drex_jax.serving.recommender import Recommender

TITLE = "Example recommendations"
K = 5  # items a list
NEAR = 2  # items alike that are named as a reason
SHARED = 4  # keywords named as a reason
QUOTED, REVIEWS = 240, 2  # characters of a review, and reviews of a user
NEWCOMER = "a newcomer"
REASONS = (
    "A reason names the words that both the user's and the item's reviews dwell on, less those that everybody writes, "
    "or else the items the user has met that are most alike: what the model has learned to go together. Where the "
    "model can be asked, it also names the past interaction of the user or of the item that raises the predicted "
    "rating most (of a model that only ranks, the score): without it, and all that came later replayed, that would be "
    "lower by the number shown. Measured, shared words do not explain a predicted rating."
)


def examples_section(run: Finished) -> Section:
    """Lists for the user with most interactions, one in the middle, one with the fewest, and somebody new.

    Each example is a dictionary: `who` (a sentence part), `user` (an id, or None), `met` (the last reviews:
    [{`item`, `rating`, `text`}]), `list` [{`item`, `score`, `reason`}], where a score is text and a reason
    is [(text, whether it is an id or a word of the data)].
    """
    try:
        sentences, shown = _examples(run, Recommender.load(run.workdir))
    except UserError as error:
        return Section("examples", TITLE, [f"There are none: {error}"])
    return Section("examples", TITLE, sentences, examples=shown)


def _examples(run: Finished, recommender: Recommender) -> tuple[list[str], list[dict[str, Any]]]:
    """The sentences and the examples."""
    interactions, model = run.interactions, run.results["model"]
    count = np.bincount(interactions.user, minlength=interactions.num_users)
    order = np.argsort(-count, kind="stable")
    order = order[count[order] > 0]
    chosen: dict[int, str] = {}
    for place, who in ((0, "most history"), (len(order) // 2, "a middling history"), (len(order) - 1, "least history")):
        if 0 <= place < len(order):
            chosen.setdefault(int(order[place]), who)
    shown = [_example(run, recommender, number, who) for number, who in chosen.items()]
    shown.append(_newcomer(run, recommender))
    rates = recommender.rating_range is not None
    order_of = " The score orders a list; the rating beside it, if another head predicts it, need not agree." * rates
    sentences = [
        f"What {model} recommends after all the data, without what a user has met.{order_of}",
        REASONS if model != "popularity" else "Everybody gets what most have met.",
    ]
    return sentences, [one for one in shown if one["list"]]


def _example(run: Finished, recommender: Recommender, number: int, who: str) -> dict[str, Any]:
    interactions = run.interactions
    user = interactions.user_ids[number]
    rows = np.flatnonzero(np.asarray(interactions.user) == number)
    lines = []
    for item, score in _list(recommender, user, run):
        reason = [("many have met it", False)]
        if run.results["model"] != "popularity":
            reason = reason_of(recommender.explain(user, item))
        lines.append({"item": item, "score": _score(recommender, user, item, score), "reason": reason})
    last = sorted(rows.tolist(), key=lambda row: (bool(interactions.text.lengths[row]), row))[-REVIEWS:]
    reviews = [
        {
            "item": interactions.item_ids[int(interactions.item[row])],
            "rating": None if np.isnan(interactions.rating[row]) else f"{interactions.rating[row]:g}",
            "text": _quoted(interactions.text[row]),
        }
        for row in reversed(last)
    ]
    interactions_of = f"{len(rows):,} interaction{'s' if len(rows) > 1 else ''}"
    return {"who": f"{who}: {interactions_of}", "user": user, "met": reviews, "list": lines}


def _newcomer(run: Finished, recommender: Recommender) -> dict[str, Any]:
    user = NEWCOMER
    while recommender.knows_user(user):
        user += "."
    interactions = run.interactions
    count = np.bincount(interactions.item, minlength=interactions.num_items)
    lines = []
    for item, score in _list(recommender, user, run):
        reason = [(f"no history to go by; met {count[run.item_numbers[item]]:,} times", False)]
        lines.append({"item": item, "score": _score(recommender, user, item, score), "reason": reason})
    return {"who": "somebody the run has never met", "user": None, "met": [], "list": lines}


def _list(recommender: Recommender, user: str, run: Finished) -> list[tuple[str, float]]:
    return [(each.item, each.score) for each in recommender.recommend(user, min(K, run.interactions.num_items))]


def _score(recommender: Recommender, user: str, item: str, score: float) -> str:
    rated = f", predicted rating {recommender.predict([user], [item])[0]:.2f}"
    return f"score {score:.4f}{rated if recommender.rating_range is not None else ''}"


def reason_of(why: Explanation) -> list[tuple[str, bool]]:
    """Why an item is in a list: [(text, whether it is an id or a word of the data)], as `examples` has it."""
    if why.overlap:
        parts: list[tuple[str, bool]] = [("both speak of ", False)]
        for place, shared in enumerate(why.overlap[:SHARED]):
            parts += [(", ", False)] * bool(place) + [(shared.word, True)]
    elif why.neighbours:
        parts = [("like ", False)]
        for place, near in enumerate(why.neighbours[:NEAR]):
            parts += [(" and ", False)] * bool(place) + [(near.item, True), (f" (cosine {near.cosine:.2f})", False)]
        parts.append((", which the user has met", False))
    else:
        parts = [("nothing the user has met is like it", False)]
    sides = ((True, why.user_interactions), (False, why.item_interactions))
    moved = [(each.change, users, each) for users, side in sides for each in side if each.change is not None]
    change, users, most = max(moved, key=lambda one: one[0], default=(0.0, True, None))
    if most is None or change <= 0:
        return parts
    what = "predicted rating" if why.change_of == "rating" else "score"
    return [*parts, *_moved(what, change, most, users)]


def _moved(what: str, change: float, each: PastInteraction, users: bool) -> list[tuple[str, bool]]:
    """What a past interaction, one of the user's or else one of the item's, did to a rating or score."""
    who = ("the user's", each.item) if users else ("its", each.user)
    rated = "" if each.rating is None else f", rated {each.rating:g}"
    return [
        (f"; the {what} is raised most by {who[0]} meeting with ", False),
        (who[1], True),
        (f"{rated} (+{change:.3f})", False),
    ]


def _quoted(text: str) -> str:
    """A review as a reader expects it: entities are their characters, white space is single, a long one is cut."""
    text = " ".join(html.unescape(text).split())
    return text if len(text) <= QUOTED else text[:QUOTED].rsplit(" ", 1)[0] + " \u2026"
