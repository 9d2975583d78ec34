"""The section of keyword profiles with a search, for the users and items with most interactions."""

from __future__ import annotations

from typing import Any

import numpy as np

from drex_jax.common.errors import UserError
from drex_jax.explain.profiles import KeywordProfiles
from drex_jax.models.registry import entry_of
from drex_jax.report.run import Finished
from drex_jax.report.section import Section
from drex_jax.runs.layout import RunLayout

MOST = 2000  # users, and items, on the page


def keyword_profiles(run: Finished) -> Section:
    """Return the section; for a run without keywords it says why there are none."""
    title = "Keyword profiles"
    if not RunLayout(run.workdir).keywords.exists():
        return Section("keywords", title, [_none(run)])
    try:
        profiles = KeywordProfiles.load(RunLayout(run.workdir).keywords)
        data = embedded(run, profiles)
    except (UserError, ValueError, IndexError) as error:
        return Section("keywords", title, [f"The keyword profiles cannot be read: {error}"])
    counts = {side: len(data[side]) for side in ("users", "items")}
    all_of = {"users": run.interactions.num_users, "items": run.interactions.num_items}
    who = " and ".join(
        f"all {all_of[side]:,} {side}"
        if counts[side] == all_of[side]
        else f"the {counts[side]:,} of {all_of[side]:,} {side} with most interactions"
        for side in ("users", "items")
    )
    sentences = [
        "The words in the train reviews of a user or an item that the model attends to more than in the whole corpus, "
        "the strongest first.",
        f"Shown: {who}."
        + (" drex keywords prints all others." if any(counts[side] < all_of[side] for side in counts) else ""),
    ]
    return Section("keywords", title, sentences, profiles=data)


def _none(run: Finished) -> str:
    if not entry_of(run.results["model"]).texts:
        return f"{run.results['model']} reads no reviews, so there are no keywords."
    if not run.config.text.enabled:
        return "The run reads no texts (text.enabled=False), so there are no keywords."
    if not len(run.interactions) or not bool(run.interactions.has_text.any()):
        return "The data have no texts, so there are no keywords."
    return "The run directory has no keyword profiles."


def embedded(run: Finished, profiles: KeywordProfiles) -> dict[str, Any]:
    """Return the data of the search: `words`, and `users` and `items` as [id, interactions, [word, weight, ...]].

    At most `MOST` of each, those with most interactions first. A word is its number in `words`.
    """
    interactions, used, sides = run.interactions, {}, {}
    for side, ids, owner, found in (
        ("users", interactions.user_ids, interactions.user, profiles.users),
        ("items", interactions.item_ids, interactions.item, profiles.items),
    ):
        counts = np.bincount(owner, minlength=len(ids))
        chosen = np.argsort(-counts, kind="stable")[:MOST].tolist()
        sides[side] = []
        for number in chosen:
            pairs = zip(found.word[number].tolist(), found.weight[number].tolist(), strict=True)
            words = [
                part
                for word, weight in pairs
                if word >= 0
                for part in (used.setdefault(word, len(used)), round(weight, 1))
            ]
            sides[side].append([ids[number], int(counts[number]), words])
    return {"words": [profiles.words[word] for word in used], **sides}
