"""Example recommendations with reasons: for a handful of users, from much history to none."""

from __future__ import annotations

import html
from typing import Any

import numpy as np

from drex_jax.errors import UserError
from drex_jax.explain import KeywordProfiles
from drex_jax.recommender import Recommender
from drex_jax.report.finished import Finished
from drex_jax.report.section import Section

K = 5  # items a list
NEAR = 500  # items alike that are looked through for one the user has met
SHARED = 4  # keywords named as a reason
QUOTED, REVIEWS = 240, 2  # characters of a review, and reviews of a user
NEWCOMER = "a newcomer"


def examples(run: Finished, profiles: KeywordProfiles | None) -> Section:
    """Lists for the user with most interactions, one in the middle, one with the fewest, and somebody new.

    Each example is a dictionary: `who` (a sentence part), `user` (an id, or None), `met` (the last reviews:
    [{`item`, `rating`, `text`}]), `list` [{`item`, `score`, `reason`}] and `rates` (scores are ratings), where a reason
    is [(text, whether it is an id or a word of the data)].
    """
    title = "Example recommendations"
    try:
        recommender = Recommender.load(run.workdir)
    except UserError as error:
        return Section("examples", title, [f"There are none: {error}"])
    interactions, model = run.interactions, run.results["model"]
    count = np.bincount(interactions.user, minlength=interactions.num_users)
    order = np.argsort(-count, kind="stable")
    order = order[count[order] > 0]
    chosen: dict[int, str] = {}
    for place, who in ((0, "most history"), (len(order) // 2, "a middling history"), (len(order) - 1, "least history")):
        if 0 <= place < len(order):
            chosen.setdefault(int(order[place]), who)
    rates = "mse" in run.results["test"].get(run.way, {})
    shown = [_example(run, recommender, profiles, number, who, rates) for number, who in chosen.items()]
    shown.append(_newcomer(run, recommender, rates))
    order_of = " The order is the ranking's; the predicted rating beside it is another head's." * rates
    sentences = [
        f"What {model} recommends after all the data, without what a user has met.{order_of}",
        "Reasons are what the user's and the item's keywords share, or else the items the user has met whose rows are "
        "nearest to the item's. They say what the model has learned to be alike, not how it computed a score."
        if model != "popularity"
        else "Everybody gets what most have met.",
    ]
    return Section("examples", title, sentences, examples=[one for one in shown if one["list"]])


def _example(
    run: Finished, recommender: Recommender, profiles: KeywordProfiles | None, number: int, who: str, rates: bool
) -> dict[str, Any]:
    interactions = run.interactions
    user = interactions.user_ids[number]
    rows = np.flatnonzero(np.asarray(interactions.user) == number)
    met = dict.fromkeys(interactions.item_ids[item] for item in np.asarray(interactions.item)[rows].tolist())
    lines = []
    for item, score in _list(recommender, user, run):
        reason = _reason(run, recommender, profiles, number, item, met)
        lines.append({"item": item, "score": _score(recommender, user, item, score, rates), "reason": reason})
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
    return {"who": f"{who}: {interactions_of}", "user": user, "met": reviews, "list": lines, "rates": rates}


def _newcomer(run: Finished, recommender: Recommender, rates: bool) -> dict[str, Any]:
    user = NEWCOMER
    while recommender.knows_user(user):
        user += "."
    interactions = run.interactions
    count = np.bincount(interactions.item, minlength=interactions.num_items)
    lines = []
    for item, score in _list(recommender, user, run):
        reason = [(f"no history to go by; met {count[run.item_numbers[item]]:,} times", False)]
        lines.append({"item": item, "score": _score(recommender, user, item, score, rates), "reason": reason})
    return {"who": "somebody the run has never met", "user": None, "met": [], "list": lines, "rates": rates}


def _list(recommender: Recommender, user: str, run: Finished) -> list[tuple[str, float]]:
    return [(each.item, each.score) for each in recommender.recommend(user, min(K, run.interactions.num_items))]


def _score(recommender: Recommender, user: str, item: str, score: float, rates: bool) -> str:
    return f"{recommender.predict([user], [item])[0]:.2f}" if rates else f"{score:.3f}"


def _reason(
    run: Finished,
    recommender: Recommender,
    profiles: KeywordProfiles | None,
    user: int,
    item: str,
    met: dict[str, None],
) -> list[tuple[str, bool]]:
    if run.results["model"] == "popularity":
        return [("many have met it", False)]
    shared = [] if profiles is None else shared_keywords(profiles, user, run.item_numbers[item])
    if shared:
        parts: list[tuple[str, bool]] = [("both speak of ", False)]
        for place, word in enumerate(shared):
            parts += [(", ", False)] * bool(place) + [(word, True)]
        return parts
    others = run.interactions.num_items - 1
    alike = recommender.similar_items(item, min(NEAR, others)) if others else []
    near = [each for each in alike if each.item in met][:2]
    if not near:
        return [("nothing the user has met is near it", False)]
    parts = [("near ", False)]
    for place, each in enumerate(near):
        parts += [(" and ", False)] * bool(place) + [(each.item, True), (f" (cosine {each.score:.3f})", False)]
    return [*parts, (", which the user has met", False)]


def shared_keywords(profiles: KeywordProfiles, user: int, item: int) -> list[str]:
    """The words of both profiles, by the smaller of their shares in them; at most `SHARED`."""

    def share(word: np.ndarray, weight: np.ndarray) -> dict[int, float]:
        total = float(weight.sum()) or 1.0
        return {one: own / total for one, own in zip(word.tolist(), weight.tolist(), strict=True) if one >= 0}

    users = share(profiles.users.word[user], profiles.users.weight[user])
    items = share(profiles.items.word[item], profiles.items.weight[item])
    both = sorted(users.keys() & items.keys(), key=lambda word: (-min(users[word], items[word]), word))
    return [profiles.words[word] for word in both[:SHARED]]


def _quoted(text: str) -> str:
    """A review as a reader expects it: entities are their characters, white space is single, a long one is cut."""
    text = " ".join(html.unescape(text).split())
    return text if len(text) <= QUOTED else text[:QUOTED].rsplit(" ", 1)[0] + " \u2026"
