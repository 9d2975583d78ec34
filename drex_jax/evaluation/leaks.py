"""The leak report of a run: what of validation and test it may have seen too early, told from what its directory holds.

Each check looks at what was made, not at how: the rows as a model reads them, the fingerprint of the texts that the
vocabulary was trained on, the words of the profiles, the ranks that the test metrics are made of.
"""

from __future__ import annotations

import collections
import pathlib
from typing import NamedTuple

import numpy as np

from drex_jax.common.errors import UserError
from drex_jax.data.interactions import Interactions
from drex_jax.explain.profiles import REVIEWS_AT_ONCE, KeywordProfiles
from drex_jax.runs.dataset import Dataset
from drex_jax.runs.layout import RunLayout
from drex_jax.runs.lists import read_lists
from drex_jax.text import vocabulary
from drex_jax.text.vocabulary import Vocabulary


class Check(NamedTuple):
    """One check of a run.

    Attributes:
      name: what would be a leak.
      found: a sentence for each leak; empty where there is none.
      unchecked: why something of it cannot be told; empty where nothing is left open.
    """

    name: str
    found: list[str]
    unchecked: str = ""


def checks(protocol: str, k_core: int, dataset: Dataset, workdir: pathlib.Path) -> list[Check]:
    """Run every check on all seeds and baselines that a run directory holds so far.

    Args:
      protocol: `strict` or `mmrec`, as the run was evaluated.
      k_core: as the data were filtered.
      dataset: of the run.
      workdir: its directory.

    Raises:
      UserError: a file of it is damaged.
    """
    interactions, sizes = dataset.interactions, dataset.sizes
    return [
        _future(dataset),
        Check("reviews in two parts", copies(interactions, sizes)),
        Check("users and items chosen with hindsight", core(k_core)),
        _vocabulary(dataset),
        _keywords(dataset, workdir),
        _lists(protocol, dataset, workdir),
    ]


def sentences(check: Check) -> list[str]:
    """Return the sentences of a check: every leak, and what is not checked."""
    return check.found + ([f"{check.name}: not checked, because {check.unchecked}"] if check.unchecked else [])


def describe(found: list[Check]) -> str:
    """Format a line for each check with its verdict, and its sentences below it."""
    lines = []
    for check in found:
        lines.append(f"{check.name}: {'LEAK' if check.found else 'not checked' if check.unchecked else 'no leak'}")
        lines += [f"  {sentence}" for sentence in sentences(check)]
    return "\n".join(lines)


def _future(dataset: Dataset) -> Check:
    name, time = "the future in train", dataset.interactions.timestamp
    if time.min() == time.max():
        return Check(name, [], "the data have no times: every interaction is at the same moment")
    return Check(name, future(dataset.split.kind, time, dataset.sizes))


def _vocabulary(dataset: Dataset) -> Check:
    name, facts = "test text in the vocabulary", dataset.facts
    if facts.get("bert"):
        return Check(name, [], "a BERT brings its own, and what that was trained on is not known here")
    if not isinstance(dataset.vocabulary, Vocabulary):
        return Check(name, [])
    if not facts.get("vocabulary_fitted_on"):
        return Check(name, [], "the run is of a version that did not record what it was trained on")
    train = vocabulary.fingerprint(dataset.interactions.text.part(0, dataset.sizes[0]))
    same = facts["vocabulary_fitted_on"] == train
    return Check(name, [] if same else ["the vocabulary was trained on other texts than those of train"])


def _keywords(dataset: Dataset, workdir: pathlib.Path) -> Check:
    name, events, train = "test text in keywords", dataset.events, dataset.sizes[0]
    if events.tokens is None or dataset.vocabulary is None:
        return Check(name, [])
    layout = RunLayout(workdir)
    folders = [model.keywords for model in layout.models() if model.keywords.is_dir()]
    if not folders:
        return Check(name, [], "" if layout.record.exists() else "no model of the run is finished yet")
    tokens, spelt = events.tokens.part(0, train), set()
    for begin in range(0, train, REVIEWS_AT_ONCE):
        spelt.update(dataset.vocabulary.words(tokens.part(begin, min(begin + REVIEWS_AT_ONCE, train))).names)
    found = []
    for folder in folders:
        profiles, where = KeywordProfiles.load(folder), folder.relative_to(workdir)
        foreign = set(profiles.words) - spelt
        if foreign:
            found.append(f"{where}: {len(foreign):,} words are in no train review, {min(foreign)!r} among them")
        for side, owner, count in (("user", events.user, events.num_users), ("item", events.item, events.num_items)):
            profile = profiles.users if side == "user" else profiles.items
            if len(profile.word) != count:
                raise UserError(f"{folder}: damaged; it has {len(profile.word):,} {side}s, and the data have {count:,}")
            reviewed = np.isin(np.arange(count), owner[:train][tokens.lengths > 0])
            told = np.count_nonzero(~reviewed & (profile.word >= 0).any(1))
            if told:
                found.append(f"{where}: {told:,} {side}s without a train review have keywords")
    return Check(name, found)


def _lists(protocol: str, dataset: Dataset, workdir: pathlib.Path) -> Check:
    name, item, train = "items recommended before they existed", dataset.events.item, dataset.sizes[0]
    files = [path for model in RunLayout(workdir).models() for path in sorted(model.lists.glob("*.npz"))]
    if not files:
        return Check(name, [], "no model of the run has been tested yet, or by a version that kept no lists")
    late = dataset.events.num_items - len(np.unique(item[:train]))
    found, unchecked = [], ""
    for path in files:
        lists, where = read_lists(path), path.relative_to(workdir)
        if "ranks" not in lists:  # of ratings alone
            continue
        if protocol == "mmrec" and "interaction" not in lists:  # all items are candidates
            if late:
                found.append(f"{where}: {late:,} candidates are not in train (protocol=mmrec)")
        elif not {"interaction", "item"} & lists.keys():
            unchecked = f"{where} is of a version that did not keep which items it ranked"
        else:
            try:
                early = ranked_before_first_seen(item, lists, train)
            except (KeyError, IndexError, ValueError, TypeError):
                raise UserError(f"{path}: damaged; its lists are not of the run's interactions") from None
            if early:
                found.append(f"{where}: {early:,} relevant items are ranked before their first interaction")
    return Check(name, found, unchecked)


def future(kind: str, time: np.ndarray, sizes: tuple[int, int, int]) -> list[str]:
    """Return a sentence for each part that begins before the part ahead of it ends.

    Args:
      kind: of split, for the sentences.
      time: float64 [n], of train, validation and test.
      sizes: how many of each there are.
    """
    sentences = []
    train, seen, everything = np.cumsum(sizes)
    for early, border, late, end in (
        ("train", train, "validation", seen),
        ("train and validation", seen, "test", everything),
    ):
        overlap = np.count_nonzero(time[:border] >= time[border:end].min())
        if overlap:
            sentences.append(
                f"split {kind} leaks the future: {overlap / border:.1%} of the {early} interactions are not "
                f"earlier than the first {late} interaction"
            )
    return sentences


def copies(interactions: Interactions, sizes: tuple[int, int, int]) -> list[str]:
    """Return a sentence if a user's review is on both sides of a boundary, for the same item or for another one.

    Args:
      interactions: from `modalities.in_learning_order`.
      sizes: how many train, validation and test interactions it holds.
    """
    part = np.repeat(np.arange(3), sizes)
    seen: dict[tuple[int, bytes], dict[int, set[int]]] = collections.defaultdict(lambda: collections.defaultdict(set))
    for row in _repeated(interactions).tolist():  # the parts in which a user said something, by item
        said = int(interactions.user[row]), interactions.text.bytes_at(row)
        seen[said][int(interactions.item[row])].add(int(part[row]))
    same = sum(len(parts) > 1 for items in seen.values() for parts in items.values())
    other = sum(len(items) > 1 and len(set().union(*items.values())) > 1 for items in seen.values())
    sentences = [f"{same:,} reviews stand on both sides of a boundary: same user, item and text"] if same else []
    if other:
        sentences.append(f"{other:,} texts stand on both sides of a boundary: same user, different items")
    return sentences


def _repeated(interactions: Interactions) -> np.ndarray:
    """Return the rows whose user has the same text in another row, and perhaps a few more."""
    rows = np.flatnonzero(interactions.has_text)
    users, text = interactions.user[rows].tolist(), interactions.text
    said = (hash((user, text.bytes_at(row))) for user, row in zip(users, rows.tolist(), strict=True))
    _, which, counts = np.unique(np.fromiter(said, np.int64, len(rows)), return_inverse=True, return_counts=True)
    return rows[counts[which] > 1]


def core(k: int) -> list[str]:
    """Return a sentence for a k-core: which users and items stay in it depends on later interactions."""
    return [f"data.k_core={k}: who is in the data at all depends on validation and test interactions too"] * (k > 1)


def ranked_before_first_seen(item: np.ndarray, lists: dict[str, np.ndarray], num_train: int) -> int:
    """Count the relevant items that were ranked before their first interaction, or among too many candidates.

    Args:
      item: int [n], of every interaction in the order of learning, numbered by first appearance in it.
      lists: as in `drex_jax.evaluation.evaluator.Tested.lists`: each at its `interaction`, or else at the end of train.
      num_train: the number of train interactions.
    """
    met = np.concatenate([[0], np.maximum.accumulate(item) + 1])  # items there are before each interaction
    if "interaction" in lists:
        moment = lists["interaction"][lists["lists"]]
        relevant = item[moment]
    else:
        moment, relevant = np.full(len(lists["ranks"]), num_train), lists["item"]
    ranks = lists["ranks"]
    return int(np.count_nonzero((ranks > 0) & ((relevant >= met[moment]) | (ranks > met[moment]))))
