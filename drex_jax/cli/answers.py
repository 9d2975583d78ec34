"""Answers of a finished run, as text for people or as JSON for programs."""

from __future__ import annotations

import collections
import datetime
import json
import pathlib
from typing import Any

from drex_jax.cli.command import Command
from drex_jax.common.spelling import printable
from drex_jax.common.tables import format_table
from drex_jax.devices import mesh
from drex_jax.serving.explanation import Explanation, PastInteraction
from drex_jax.serving.recommender import Recommender

MOST_REFUSED = 10  # refused rows in a text
MOST_INTERACTIONS = 5  # interactions of a user or an item in a text
MOST_CHARACTERS = 60  # characters of a review in a text
EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
MOVED = {"rating": "the predicted rating", "score": "the score"}
ABOUT_SCORE = "score orders the list: higher is better, and only the order has a meaning"


def answer(command: Command) -> str:
    """Return the answer of a finished run to a command of mode recommend, explain or update.

    Raises:
      UserError: the run cannot be used, or has no answer.
    """
    mesh.keep_programs(mesh.cache_folder(command.settings.data.cache_dir) / "programs")
    recommender = Recommender.load(command.workdir)
    if command.mode == "update":
        assert command.interactions is not None
        return update(recommender, pathlib.Path(command.interactions), command.format)
    if command.mode == "explain":
        return explanation(recommender.explain(command.user, command.item), command.format)
    assert command.user is not None
    return recommendations(recommender, command.user, command.k, command.format)


def update(recommender: Recommender, path: pathlib.Path, form: str) -> str:
    """Apply a file of interactions to a run, save the run, and report what became of every row.

    Args:
      recommender: a loaded run.
      path: the file of interactions.
      form: `table` or `json`.

    Raises:
      UserError: the model cannot be updated, or the file cannot be read; the run is unchanged then.
    """
    read = recommender.read(path)
    table = read.interactions
    report = recommender.update(table)
    recommender.save()
    refused = [
        {
            "user": table.user_ids[table.user[each.row]],
            "item": table.item_ids[table.item[each.row]],
            "timestamp": float(table.timestamp[each.row]),
            "reason": each.reason,
        }
        for each in report.refused
    ]
    if form == "json":
        return _json({"applied": report.applied, "refused": refused, "merged": read.merged, "rejected": read.rejected})
    lines = [*read.lines, f"{report.applied:,} interactions applied, {len(refused):,} refused"]
    if not report.applied:
        lines[-1] += "; nothing was changed"
    for reason, count in collections.Counter(each["reason"] for each in read.rejected).most_common():
        line = min(each["line"] for each in read.rejected if each["reason"] == reason)
        lines.append(f"  {count:,} x no interaction: {reason} ({'first at ' if count > 1 else ''}line {line:,})")
    reasons = {each["reason"] for each in refused}
    if len(refused) > len(reasons) == 1:
        return "\n".join([*lines, f"  all: {reasons.pop()}"])
    for each in refused[:MOST_REFUSED]:
        lines.append(f"  {printable(str(each['user']))}, {printable(str(each['item']))}: {each['reason']}")
    if len(refused) > MOST_REFUSED:
        lines.append(f"  and {len(refused) - MOST_REFUSED:,} more; --format=json lists them all")
    return "\n".join(lines)


def recommendations(recommender: Recommender, user: str, k: int, form: str) -> str:
    """Return the recommendations for a user.

    Args:
      recommender: a loaded run.
      user: id of the user; an unknown user gets the cold-start list, and the text says so.
      k: how many items.
      form: `table` or `json`.

    Raises:
      UserError: there are fewer items.
    """
    found, known = recommender.recommend(user, k), recommender.knows_user(user)
    scale = recommender.rating_range
    ratings: list[float | None] = [None] * len(found)
    if scale is not None:
        ratings = recommender.predict([user] * len(found), [each.item for each in found]).tolist()
    if form == "json":
        items = [each._asdict() | {"rating": rating} for each, rating in zip(found, ratings, strict=True)]
        answered = {"user": user, "known": known, "rating_range": scale, "recommendations": items}
        return _json(answered)
    who = printable(user) if known else f"{printable(user)}, an unknown user: the cold-start list"
    rows, about = [("rank", "item", "score", "rating")], ABOUT_SCORE
    for place, (each, rating) in enumerate(zip(found, ratings, strict=True), 1):
        shown = "" if rating is None else f"{rating:.2f}"
        rows.append((str(place), printable(each.item), f"{each.score:.4f}", shown))
    if scale is None:
        rows = [row[:3] for row in rows]
    else:
        about += f"; rating is the predicted one, of {_of(scale)}"
    return "\n".join([f"for {who}", "", *format_table(rows, right=(0, 2, 3)), "", about])


def explanation(why: Explanation, form: str) -> str:
    """Return an explanation; `form` is `table` or `json`."""
    if form == "json":
        plain = why._asdict() | {
            name: [each._asdict() for each in value]
            for name, value in why._asdict().items()
            if isinstance(value, list) and name != "notes"
        }
        return _json(plain)
    asked = [f"{side} {printable(name)}" for side, name in (("user", why.user), ("item", why.item)) if name is not None]
    lines = [" and ".join(asked)]
    if why.score is not None:
        rating = ""
        if why.rating is not None and why.rating_range is not None:
            rating = f"predicted rating {why.rating:.2f} of {_of(why.rating_range)}; "
        place = f"place {why.rank:,} of {why.num_items:,} items, met ones included"
        lines.append(f"{rating}score {why.score:.4f}, {place}")
    lines.append("")
    words = (("user", why.user_keywords), ("item", why.item_keywords), ("both", why.overlap))
    lines += [
        f"keywords of {side}: {', '.join(f'{printable(each.word)} ({each.weight:.2g})' for each in found)}"
        for side, found in words
        if found
    ]
    if why.user_keywords and why.item_keywords and not why.overlap:
        lines.append("keywords of both: none")
    if why.modalities:
        lines.append(
            "modalities: " + ", ".join(f"{printable(name)} {share:.0%}" for name, share in why.modalities.items())
        )
    if why.neighbours:
        close = ", ".join(f"{printable(each.item)} ({each.cosine:.2f})" for each in why.neighbours)
        lines.append(f"most alike{' of what the user has met' if why.user else ''}: {close}")
    for side, found in (("user", why.user_interactions), ("item", why.item_interactions)):
        if found:
            order = "the newest first"
            if why.change_of is not None:
                order = f"by what each did to {MOVED[why.change_of]}, via the {side}'s state"
            elif found[0].attention is not None:
                order = "by the attention to their reviews"
            lines += ["", f"last interactions of the {side}, {order}"]
            lines += [_past(each, side) for each in found[:MOST_INTERACTIONS]]
            if len(found) > MOST_INTERACTIONS:
                lines.append(f"  and {len(found) - MOST_INTERACTIONS} more; --format=json lists them all")
    if why.notes:
        lines += ["", *why.notes]
    return "\n".join(lines)


def _past(each: PastInteraction, side: str) -> str:
    """Return a line on an interaction of the `side`, which itself is not named in it."""
    change = "" if each.change is None else f"{each.change:+8.4f}{' ' if each.exact else '*'} "
    change += "" if each.attention is None else f"{each.attention:5.0%} "
    day = f"{_day(each.timestamp)} " if each.timestamp else ""  # of data without times it is 0
    rating = "" if each.rating is None else f" rated {each.rating:g}"
    text = each.text if len(each.text) <= MOST_CHARACTERS else f"{each.text[: MOST_CHARACTERS - 1]}…"
    text = f": {printable(text)}" if text else ""
    return f"  {change}{day}{printable(each.item if side == 'user' else each.user)}{rating}{text}"


def _day(seconds: float) -> str:
    return f"{EPOCH + datetime.timedelta(seconds=seconds):%Y-%m-%d}"


def _of(scale: tuple[float, float]) -> str:
    return f"{scale[0]:g}..{scale[1]:g}"


def _json(value: Any) -> str:
    """Return JSON in ASCII, which every terminal and pipe keeps as it is."""
    return json.dumps(value, indent=2)
