"""What a run answers, as text for people or as JSON for programs."""

from __future__ import annotations

import collections
import json
import pathlib

from drex_jax import parallel
from drex_jax.command import Command
from drex_jax.config import Config
from drex_jax.reasons import Explanation, PastInteraction
from drex_jax.recommender import Recommender

SHOWN = 10  # refused rows, at the most


def answer(command: Command) -> str:
    """What a finished run says to a command.

    Raises:
      UserError: the run cannot be used, or cannot answer.
    """
    settings: Config = command.config
    parallel.keep_programs(parallel.cache_folder(settings.data.cache_dir) / "programs")
    recommender = Recommender.load(command.workdir)
    if command.mode == "update":
        assert command.interactions is not None
        return update(recommender, pathlib.Path(command.interactions), command.format)
    if command.mode == "explain":
        return explanation(recommender.explain(command.user, command.item), command.format)
    assert command.user is not None
    return recommendations(recommender, command.user, command.k, command.format)


def update(recommender: Recommender, path: pathlib.Path, form: str) -> str:
    """Applies a file of interactions to a run, commits it, and says what became of every row.

    Args:
      recommender: a loaded run.
      path: the file.
      form: `table` or `json`.

    Raises:
      UserError: the model cannot be updated, or the file cannot be read; nothing is changed then.
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
        answered = {"applied": report.applied, "refused": refused, "merged": read.merged, "rejected": read.rejected}
        return json.dumps(answered, ensure_ascii=False, indent=2)
    lines = [*read.lines, f"{report.applied:,} interactions applied, {len(refused):,} refused"]
    if not report.applied:
        lines[-1] += "; nothing was changed"
    for reason, count in collections.Counter(each["reason"] for each in read.rejected).most_common():
        lines.append(f"  {count:,} x no interaction: {reason}")
    reasons = {each["reason"] for each in refused}
    if len(refused) > len(reasons) == 1:
        return "\n".join([*lines, f"  all: {reasons.pop()}"])
    for each in refused[:SHOWN]:
        lines.append(f"  {_shown(each['user'])}, {_shown(each['item'])}: {each['reason']}")
    if len(refused) > SHOWN:
        lines.append(f"  and {len(refused) - SHOWN:,} more; --format=json lists them all")
    return "\n".join(lines)


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


def explanation(why: Explanation, form: str) -> str:
    """An explanation as `table` or `json`."""
    if form == "json":
        plain = why._asdict() | {
            name: [each._asdict() for each in value]
            for name, value in why._asdict().items()
            if isinstance(value, list) and name != "notes"
        }
        return json.dumps(plain, ensure_ascii=False, indent=2)
    asked = [f"{side} {_shown(name)}" for side, name in (("user", why.user), ("item", why.item)) if name is not None]
    lines = [" and ".join(asked) + ("" if why.score is None else f": score {why.score:.4f}")]
    words = (("user", why.user_keywords), ("item", why.item_keywords), ("both", why.overlap))
    lines += [
        f"keywords of {side}: {', '.join(f'{_shown(each.word)} ({each.weight:.2g})' for each in found)}"
        for side, found in words
        if found
    ]
    if why.modalities:
        lines.append(
            "modalities: " + ", ".join(f"{_shown(name)} {share:.0%}" for name, share in why.modalities.items())
        )
    if why.neighbours:
        alike = ", ".join(f"{_shown(each.item)} ({each.cosine:.2f})" for each in why.neighbours)
        lines.append(f"most alike{' of what the user has met' if why.user else ''}: {alike}")
    for side, found in (("user", why.user_interactions), ("item", why.item_interactions)):
        if found:
            order = ", by what they did to the score" if found[0].change is not None else ""
            order = ", by the attention to their reviews" if found[0].attention is not None else order
            lines += ["", f"last interactions of the {side}{order}", *(_past(each, side) for each in found)]
    if why.notes:
        lines += ["", *why.notes]
    return "\n".join(lines)


def _past(each: PastInteraction, side: str) -> str:
    """A line on an interaction of the `side`, which is not named."""
    change = "" if each.change is None else f"{each.change:+9.4f}{' ' if each.exact else '*'} "
    change += "" if each.attention is None else f"{each.attention:5.0%} "
    rating = "" if each.rating is None else f" rated {each.rating:g}"
    text = f": {_shown(each.text)}" if each.text else ""
    return f"  {change}{_shown(each.item if side == 'user' else each.user)}{rating}{text}"


def _shown(text: str) -> str:
    """Text of somebody else's on a terminal: what does not print is escaped."""
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)
