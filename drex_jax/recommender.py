"""A finished run as an object that answers: what to recommend, what somebody would rate, what is alike.

    from drex_jax import Recommender

    recommender = Recommender.load("runs/quickstart")
    recommender.recommend("user007", k=5)
    recommender.update([{"user": "user007", "item": "item003", "rating": 4, "timestamp": 1.8e9, "text": "as it ought"}])

Only the run directory is read, not the raw data. Ids are strings (integers are taken as their digits). A user or an
item that the run has never seen is no mistake: it has the row of a newcomer. What `update` is given refines the states
in memory, as training would.
"""

from __future__ import annotations

import contextlib
import functools
import pathlib
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, overload

import jax
import jax.numpy as jnp
import numpy as np

from drex_jax import reviews, scorers, update_file, updates
from drex_jax.data.interactions import Interactions
from drex_jax.data.modalities import REVIEW
from drex_jax.dataset import FACTS, HISTORY
from drex_jax.errors import UserError
from drex_jax.finished_run import FinishedRun, open_run
from drex_jax.incoming import Expected, Refusal, checked, rows_of
from drex_jax.live import CannotUpdateError, Live, live
from drex_jax.models.drex.window import power_of_two
from drex_jax.models.protocol import Carry
from drex_jax.reasons import Explanation, Reasons
from drex_jax.update_file import UpdateFile

Id = str | int
SCORES = 1 << 24  # that exist at a time
USERS = 1024  # at the most whose lists are made at a time


class Recommendation(NamedTuple):
    """One line of a list.

    Attributes:
      item: its id.
      score: of the model's ranking, higher is better; only its order within a list has a meaning.
    """

    item: str
    score: float


class UpdateReport(NamedTuple):
    """What became of the rows that `Recommender.update` was given.

    Attributes:
      applied: how many refined the states.
      refused: the others, in their order.
    """

    applied: int
    refused: list[Refusal]


class Recommender:
    """A finished run. Letters: U users, I items, E row size."""

    def __init__(self, run: FinishedRun, of_past: bool = False):
        """Use `load`. `of_past`: a view of an earlier moment, which cannot be updated."""
        self._run, self._of_past = run, of_past
        self._journal, self._scorer, self._params = run.journal, run.scorer, run.params
        self._users, self._items = run.journal.users, run.journal.items
        self._carry, self._moved = jax.tree.map(jnp.asarray, run.carry), False
        self._newcomers = run.scorer.newcomers(run.params, self._carry)
        self._reasons: Reasons | None = None
        reads_texts = REVIEW in run.journal.base.vectors
        self._reader = reviews.Reader(run.settings, run.folder / HISTORY / FACTS, reads_texts)
        self._applied = self._refused = 0  # since the last commit
        self._digests: list[str] = []  # of the tables that were applied since

    @classmethod
    def load(cls, folder: str | pathlib.Path) -> Recommender:
        """The finished run in `folder` with its updates; of several seeds the first.

        Raises:
          UserError: there is no finished run, or it is damaged or of another version.
        """
        return cls(open_run(pathlib.Path(folder)))

    @property
    def _now(self) -> Carry:
        """Everyone's rows on the device."""
        if self._moved:
            self._carry, self._moved = jax.tree.map(jnp.array, self._live.carry), False  # a copy: those change in place
        return self._carry

    @functools.cached_property
    def _live(self) -> Live:
        return live(self._run)

    def knows_user(self, user: Id) -> bool:
        """Whether the run has met this user."""
        return self._users.number(user) >= 0

    def knows_item(self, item: Id) -> bool:
        """Whether the run has met this item."""
        return self._items.number(item) >= 0

    @overload
    def recommend(
        self, user: Id, k: int = 10, exclude_seen: bool = True, candidates: Iterable[Id] | None = None
    ) -> list[Recommendation]: ...

    @overload
    def recommend(
        self, user: Sequence[Id], k: int = 10, exclude_seen: bool = True, candidates: Iterable[Id] | None = None
    ) -> list[list[Recommendation]]: ...

    def recommend(
        self, user: Id | Sequence[Id], k: int = 10, exclude_seen: bool = True, candidates: Iterable[Id] | None = None
    ) -> list[Recommendation] | list[list[Recommendation]]:
        """The items that a user would most likely want next, the best first.

        Args:
          user: an id, or a list of ids, for which there is a list of lists.
          k: the length of a list; shorter where fewer items are left.
          exclude_seen: leave out what the user has met.
          candidates: only these items may be recommended; None: all.

        Raises:
          UserError: k is not from 1 to the number of items, or a candidate is unknown.
        """
        if isinstance(user, str | int | np.integer):
            return next(self.stream([user], k, exclude_seen, candidates))
        return list(self.stream(user, k, exclude_seen, candidates))

    def recommend_for(
        self,
        history: Sequence[Id | Mapping[str, Any]],
        k: int = 10,
        exclude_seen: bool = True,
        candidates: Iterable[Id] | None = None,
    ) -> list[Recommendation]:
        """The list of somebody whose history is given here and never stored: a newcomer after these interactions.

        Args:
          history: ids of items, or mappings as `update` takes them, without `user`; the earliest first. Without a
            `timestamp` they happen at the last moment that the run knows of.
          k: as for `recommend`.
          exclude_seen: as for `recommend`.
          candidates: as for `recommend`.

        Raises:
          UserError: a row is malformed; the model cannot be updated; or as `recommend`.
        """
        barred, expected = self._barred(candidates), Expected.by(self._journal.base)
        self._require_k(k)
        now, rows = float(self._journal.last_moment), []
        for place, each in enumerate(history):
            given = dict(each) if isinstance(each, Mapping) else {"item": each}
            try:
                rows.append(expected.check({"timestamp": now, "user": "a newcomer"} | given))
            except UserError as error:
                raise UserError(f"history, row {place}: {error}") from None
        read, unread = self._reader.read(list(enumerate(rows)))
        for refusal in unread:
            raise UserError(f"history, row {refusal.row}: {refusal.reason}")
        rows = [row for _, row in read]
        met = np.array([self._items.number(row.item) for row in rows], np.int64)
        row = self._live.fold(sorted(rows, key=lambda row: row.timestamp)) if rows else self._newcomers[0]
        if exclude_seen:
            barred[met[met >= 0]] = True
        nobody = np.full((1, 1), len(self._items), np.int32)
        found = scorers.best(
            self._scorer, self._params, jnp.asarray(row)[None], self._now.item, nobody, jnp.asarray(barred), k
        )
        items, scores = (np.asarray(each) for each in found)
        return self._named(items[0], scores[0])

    def stream(
        self, users: Sequence[Id], k: int = 10, exclude_seen: bool = True, candidates: Iterable[Id] | None = None
    ) -> Iterator[list[Recommendation]]:
        """The lists of `recommend` one after the other, in memory that does not grow with their number."""
        self._require_k(k)
        barred = jnp.asarray(self._barred(candidates))
        return self._lists(users, k, exclude_seen, barred)

    def _require_k(self, k: int) -> None:
        if not 1 <= k <= len(self._items):
            raise UserError(f"k = {k}; it must be from 1 to the {len(self._items):,} items there are")

    def _barred(self, candidates: Iterable[Id] | None) -> np.ndarray:
        """Bool [I]: which items may not be recommended."""
        barred = np.zeros(len(self._items), bool)
        if self._of_past:
            barred = np.bincount(self._journal.item, minlength=len(barred)) == 0
        if candidates is None:
            return barred
        wanted = {str(item): self._items.number(item) for item in candidates}
        unknown = next((item for item, number in wanted.items() if number < 0), None)
        if unknown is not None:
            raise UserError(f"candidates: the run has no item {unknown}")
        others = np.ones(len(barred), bool)
        others[list(wanted.values())] = False
        return barred | others

    def _lists(
        self, users: Sequence[Id], k: int, exclude_seen: bool, barred: jax.Array
    ) -> Iterator[list[Recommendation]]:
        num_items = len(self._items)
        block = min(USERS, max(1, SCORES // num_items), len(users))
        for begin in range(0, len(users), max(block, 1)):
            numbers = np.array([self._users.number(user) for user in users[begin : begin + block]])
            padded = np.pad(numbers, (0, block - len(numbers)), constant_values=-1)
            seen = self._seen(padded if exclude_seen else np.full(block, -1), num_items)
            found = scorers.best(self._scorer, self._params, self._rows(padded, 0), self._now.item, seen, barred, k)
            items, scores = (np.asarray(each) for each in found)
            for row in range(len(numbers)):
                yield self._named(items[row], scores[row])

    def _named(self, items: np.ndarray, scores: np.ndarray) -> list[Recommendation]:
        """A list [k], without what may not be recommended, whose score is -inf."""
        pairs = zip(items.tolist(), scores.tolist(), strict=True)
        return [Recommendation(self._items.name(item), score) for item, score in pairs if score > -np.inf]

    def _seen(self, users: np.ndarray, padding: int) -> np.ndarray:
        """int32 [n, most]: the items that each user has met, then `padding`; users -1 have none."""
        lists = [self._journal.item[self._journal.rows_of_user(user)] for user in users.tolist()]
        most = power_of_two(max(map(len, lists)))
        return np.stack([np.pad(items, (0, most - len(items)), constant_values=padding) for items in lists])

    def predict(self, users: Sequence[Id], items: Sequence[Id]) -> np.ndarray:
        """The ratings that users would give to items, pair by pair, within the data's scale: float32 [n].

        Of a model that only ranks: scores, which order the items of one user.

        Raises:
          UserError: there are not as many items as users.
        """
        if len(users) != len(items):
            raise UserError(f"predict needs pairs, not {len(users):,} users and {len(items):,} items")
        user, item = (
            np.array([known.number(name) for name in names], np.int64)
            for known, names in ((self._users, users), (self._items, items))
        )
        size = power_of_two(len(user))  # few shapes to compile for
        padding = (0, size - len(user))
        user, item = (np.pad(numbers, padding, constant_values=-1) for numbers in (user, item))
        predicted = np.asarray(scorers.scores(self._scorer, self._params, self._rows(user, 0), self._rows(item, 1)))[
            : len(users)
        ]
        scale = self._journal.base.rating_range
        return np.clip(predicted, *scale) if self._scorer.rates and scale else predicted

    def similar_items(self, item: Id, k: int = 10) -> list[Recommendation]:
        """The other items whose rows point in the most similar direction, with the cosine.

        Raises:
          UserError: the item is unknown, or k is not from 1 to the number of other items.
        """
        number = self._items.number(item)
        if number < 0:
            raise UserError(f"the run has no item {item}")
        others = len(self._items) - 1
        if not 1 <= k <= others:
            raise UserError(f"k = {k}; it must be from 1 to the {others:,} other items there are")
        nearest, cosine = (np.asarray(each) for each in scorers.alike(self._now.item, number, k))
        return self._named(nearest, cosine)

    def explain(self, user: Id | None = None, item: Id | None = None) -> Explanation:
        """Why: keywords and past interactions of a user, of an item, or of a pair with what each did to its score.

        Of DReX, each of the last 20 interactions of the user and of the item is left out in turn and the later ones are
        replayed without it (`drex_jax.models.drex.occlusion`); the first question replays the whole history once. Of
        CRANE, modality weights and the nearest items by content. A newcomer is explained by saying so.

        Raises:
          UserError: neither a user nor an item is given.
        """
        if user is None and item is None:
            raise UserError("explain needs a user, an item or both")
        if self._reasons is None or not self._reasons.is_current:
            moving = None
            with contextlib.suppress(CannotUpdateError):
                moving = self._live
            self._reasons = Reasons(self._run, moving)
        score = None if user is None or item is None else float(self.predict([user], [item])[0])
        names = (None if each is None else str(each) for each in (user, item))
        return self._reasons.of(*names, rows=np.asarray(self._now.item), score=score)

    def read(self, path: str | pathlib.Path) -> UpdateFile:
        """New interactions from a file: in the run's own format, or with columns of our names.

        Raises:
          UserError: there is no such file, it is of another format, or no row of it is good.
        """
        return update_file.read(pathlib.Path(path), self._run.settings, self._journal.base)

    def update(self, interactions: Interactions | Iterable[Mapping[str, Any]]) -> UpdateReport:
        """Learns in memory from new interactions, one after the other, exactly as training would; `save` commits.

        New users and items are welcome, and so are rows without a rating, a text or a vector. Rows are taken in their
        order: in one call, in many or one by one the states are the same. A row is refused, and the others applied,
        where it is malformed, earlier than the last interaction of its user or its item, or one that was there already.
        DReX refines states; of CRANE and LightGCN the graph and the profiles grow and parameters stay.

        Args:
          interactions: a table, or mappings with `user`, `item` and `timestamp` (seconds since 1970), and what there is
            of `rating`, `text` and the names of the data's vectors.

        Raises:
          UserError: the model cannot be updated.
        """
        if self._of_past:
            raise UserError("a view of an earlier moment cannot be updated")
        moving, expected = self._live, Expected.by(self._journal.base)
        if isinstance(interactions, Interactions):
            digest = interactions.sha256()
            batch = self._batch_of(digest)
            if batch:
                reason = f"this very batch was applied before, {batch}"
                return UpdateReport(0, [Refusal(row, reason) for row in range(len(interactions))])
            self._digests.append(digest)
            right, refused = checked(rows_of(interactions), expected)
        else:
            right, refused = checked(interactions, expected)
        right, unread = self._reader.read(right)
        kept, numbers, late = self._journal.join(right)
        if kept:
            moving.advance(kept, numbers)
            self._moved = True
        self._applied += len(kept)
        self._refused += len(refused) + len(unread) + len(late)
        return UpdateReport(len(kept), sorted([*refused, *unread, *late]))

    def _batch_of(self, digest: str) -> str:
        """Which batch a table was applied in; empty: in none."""
        if digest in self._digests:
            return "and not saved yet"
        found = (batch for batch in self._run.batches if digest in batch["sha256"])
        return next((f"as batch {batch['batch']} at {batch.get('at')}" for batch in found), "")

    def save(self, folder: str | pathlib.Path | None = None) -> None:
        """Commits what `update` has applied: afterwards `load` finds it. All or nothing, whenever the process dies.

        Args:
          folder: another directory, which must not exist: it becomes a copy of the run, updates included (without
            training checkpoints). None: the run's own.

        Raises:
          UserError: the directory is another's, or somebody else has updated the run since it was loaded.
        """
        own = self._run.folder
        target = own if folder is None else pathlib.Path(folder)
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as temporary:
                copied = pathlib.Path(temporary, "run")
                shutil.copytree(own, copied, ignore=shutil.ignore_patterns("checkpoints"))
                self._commit(copied)
                copied.rename(target)
        elif target.samefile(own):
            self._commit(own)
        else:
            raise UserError(f"{target} exists already; name the run's own directory, {own}, or a new one")
        self._run = self._run._replace(folder=target, batches=updates.batches(target))
        self._applied, self._refused, self._digests = 0, 0, []

    def _commit(self, folder: pathlib.Path) -> None:
        if self._applied:
            facts = {"applied": self._applied, "refused": self._refused, "sha256": self._digests}
            updates.commit(folder, len(self._run.batches), self._journal.since_table(), self._now, **facts)

    def at(self, moment: float) -> Recommender:
        """The run as it stood just before a moment, to ask what it would have answered; parameters are today's.

        States are replayed from the first interaction on. A model whose rows do not move has those it has; what users
        had met by then is what `recommend` leaves out, and an item that nobody had met is not recommended.

        Args:
          moment: seconds since 1970.
        """
        then, carry = self._journal.before(moment), self._now
        with contextlib.suppress(CannotUpdateError):  # its rows are the same at any moment
            carry = self._live.at(then)
        return Recommender(self._run._replace(journal=then, carry=carry), of_past=True)

    def _rows(self, numbers: np.ndarray, side: int) -> jax.Array:
        """The rows [n, E] of users (side 0) or items (1); a newcomer's for number -1."""
        return scorers.taken(self._now[side], self._newcomers[side], numbers)
