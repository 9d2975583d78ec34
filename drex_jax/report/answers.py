"""What a run answers, as text for people or as JSON for programs."""

from __future__ import annotations

import json

from drex_jax.recommender import Recommender


def recommendations(recommender: Recommender, user: str, k: int, form: str) -> str:
    """The list for a user.

    Args:
      recommender: a loaded run.
      user: whose; one the run has never met gets a newcomer's list, and the text says so.
      k: how many items.
      form: `table` or `json`.

    Raises:
      UserError: there are not so many items.
    """
    found, known = recommender.recommend(user, k), recommender.knows_user(user)
    if form == "json":
        items = [{"item": each.item, "score": each.score} for each in found]
        return json.dumps({"user": user, "known": known, "recommendations": items}, ensure_ascii=False, indent=2)
    who = _shown(user) if known else f"{_shown(user)}, whom this run has never met: a newcomer's list"
    rows = [("rank", "item", "score")]
    rows += [(str(place), _shown(each.item), f"{each.score:.4f}") for place, each in enumerate(found, 1)]
    rank, item, score = (max(len(row[column]) for row in rows) for column in range(3))
    lines = (f"{row[0]:>{rank}}  {row[1]:<{item}}  {row[2]:>{score}}" for row in rows)
    return "\n".join([f"for {who}", "", *lines])


def _shown(text: str) -> str:
    """Text of somebody else's on a terminal: what does not print is escaped."""
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)
