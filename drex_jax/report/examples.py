"""The section of example recommendations with reasons, for users with long, medium, short and no history."""

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
K = 5  # items of a list
NEAR = 2  # similar items given as a reason
SHARED = 4  # shared keywords given as a reason
QUOTED, REVIEWS = 240, 2  # characters of a review, and reviews of a user, that are shown
NEWCOMER = "a new user"
REASONS = (
    "A reason gives the keywords that the reviews of the user and of the item share, without words that are common "
    "everywhere. If there are none, it gives the most similar items among those the user has interacted with. Where "
    "the model supports it, a reason also gives the past interaction of the user or of the item that raises the "
    "predicted rating most (for a model that only ranks: the score). The number is by how much the prediction would be "
    "lower if this interaction were left out and all later ones were replayed. Shared keywords were measured, and they "
    "do not explain a predicted rating."
)


def examples_section(run: Finished) -> Section:
    """Return the section with lists for the users with the most, a median and the fewest interactions, and a new user.

    Each example is a dictionary: `who` (a description), `user` (an id, or None), `met` (the last reviews:
    [{`item`, `rating`, `text`}]), `list` [{`item`, `score`, `reason`}]. A score is text. A reason is a list of
    (text, True if the text is an id or a word of the data).
    """
    try:
        sentences, shown = _examples(run, Recommender.load(run.workdir))
    except UserError as error:
        return Section("examples", TITLE, [f"There are none: {error}"])
    return Section("examples", TITLE, sentences, examples=shown)


def _examples(run: Finished, recommender: Recommender) -> tuple[list[str], list[dict[str, Any]]]:
    """Return the sentences and the examples."""
    interactions, model = run.interactions, run.results["model"]
    count = np.bincount(interactions.user, minlength=interactions.num_users)
    order = np.argsort(-count, kind="stable")
    order = order[count[order] > 0]
    chosen: dict[int, str] = {}
    for index, who in (
        (0, "longest history"),
        (len(order) // 2, "median history"),
        (len(order) - 1, "shortest history"),
    ):
        if 0 <= index < len(order):
            chosen.setdefault(int(order[index]), who)
    shown = [_example(run, recommender, number, who) for number, who in chosen.items()]
    shown.append(_newcomer(run, recommender))
    rates = recommender.rating_range is not None
    order_of = (
        " A list is sorted by score; the predicted rating may come from another head and order items differently."
        * rates
    )
    sentences = [
        f"Recommendations of {model} after all interactions, without items the user already has.{order_of}",
        REASONS if model != "popularity" else "Everybody gets the items with most interactions.",
    ]
    return sentences, [one for one in shown if one["list"]]


def _example(run: Finished, recommender: Recommender, number: int, who: str) -> dict[str, Any]:
    interactions = run.interactions
    user = interactions.user_ids[number]
    rows = np.flatnonzero(np.asarray(interactions.user) == number)
    lines = []
    for item, score in _list(recommender, user, run):
        reason = [("it has many interactions", False)]
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
        reason = [(f"no history; the item has {count[run.item_numbers[item]]:,} interactions", False)]
        lines.append({"item": item, "score": _score(recommender, user, item, score), "reason": reason})
    return {"who": "a new user, unknown to the run", "user": None, "met": [], "list": lines}


def _list(recommender: Recommender, user: str, run: Finished) -> list[tuple[str, float]]:
    return [(one.item, one.score) for one in recommender.recommend(user, min(K, run.interactions.num_items))]


def _score(recommender: Recommender, user: str, item: str, score: float) -> str:
    rated = f", predicted rating {recommender.predict([user], [item])[0]:.2f}"
    return f"score {score:.4f}{rated if recommender.rating_range is not None else ''}"


def reason_of(why: Explanation) -> list[tuple[str, bool]]:
    """Return the reason for an item as a list of (text, True if the text is an id or a word of the data)."""
    if why.overlap:
        parts: list[tuple[str, bool]] = [("shared keywords: ", False)]
        for index, shared in enumerate(why.overlap[:SHARED]):
            parts += [(", ", False)] * bool(index) + [(shared.word, True)]
    elif why.neighbours:
        parts = [("similar to ", False)]
        for index, near in enumerate(why.neighbours[:NEAR]):
            parts += [(" and ", False)] * bool(index) + [(near.item, True), (f" (cosine {near.cosine:.2f})", False)]
        parts.append((" in the user's history", False))
    else:
        parts = [("no item in the user's history is similar", False)]
    sides = ((True, why.user_interactions), (False, why.item_interactions))
    moved = [(past.change, users, past) for users, side in sides for past in side if past.change is not None]
    change, users, most = max(moved, key=lambda one: one[0], default=(0.0, True, None))
    if most is None or change <= 0:
        return parts
    what = "predicted rating" if why.change_of == "rating" else "score"
    return [*parts, *_moved(what, change, most, users)]


def _moved(what: str, change: float, past: PastInteraction, users: bool) -> list[tuple[str, bool]]:
    """Describe the effect of a past interaction of the user (`users`), or of the item, on a rating or score."""
    whose, partner = ("the user's", past.item) if users else ("the item's", past.user)
    rated = "" if past.rating is None else f", rated {past.rating:g}"
    return [
        (f"; the {what} is raised most by {whose} interaction with ", False),
        (partner, True),
        (f"{rated} (+{change:.3f})", False),
    ]


def _quoted(text: str) -> str:
    """Return a review for display: HTML entities decoded, white space collapsed, and cut to `QUOTED` characters."""
    text = " ".join(html.unescape(text).split())
    return text if len(text) <= QUOTED else text[:QUOTED].rsplit(" ", 1)[0] + " \u2026"
