"""Keyword profiles for a page that can be searched: those of whoever has most interactions."""

from __future__ import annotations

from typing import Any

import numpy as np

from drex_jax.common.errors import UserError
from drex_jax.explain.profiles import KeywordProfiles
from drex_jax.report.run import Finished
from drex_jax.report.section import Section
from drex_jax.runs.layout import RunLayout

MOST = 2000  # users, and as many items, on a page


def keyword_profiles(run: Finished) -> Section:
    """The section; a run without keywords says why there are none."""
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
        "The words of somebody's own train reviews that the model attends to beyond what the whole corpus has anyway, "
        "the strongest first.",
        f"Here are {who}."
        + (" drex keywords prints any other." if any(counts[side] < all_of[side] for side in counts) else ""),
    ]
    return Section("keywords", title, sentences, profiles=data)


def _none(run: Finished) -> str:
    if run.results["model"] != "drex":
        return f"{run.results['model']} reads no reviews, so there are no keywords."
    if not run.config.text.enabled:
        return "The run was made without texts (text.enabled=False), so there are no keywords."
    if not len(run.interactions) or not bool(run.interactions.has_text.any()):
        return "The data have no texts, so there are no keywords."
    return "The run directory has no keyword profiles."


def embedded(run: Finished, profiles: KeywordProfiles) -> dict[str, Any]:
    """What the page's search reads: `words`, and of `users` and `items` [id, interactions, [word, weight, ...]] each.

    Those with most interactions first, at most `MOST` a side; words are numbers of `words`, weights have one decimal.
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
