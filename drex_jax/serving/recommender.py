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
import datetime
import functools
import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, overload

import jax
import jax.numpy as jnp
import numpy as np

from drex_jax.common.errors import UserError
from drex_jax.common.padding import power_of_two
from drex_jax.data.interactions import Interactions
from drex_jax.models import scoring
from drex_jax.models.protocol import States
from drex_jax.runs.layout import RunLayout
from drex_jax.serving import arguments, saving, update_file
from drex_jax.serving.explanation import Explainer, Explanation
from drex_jax.serving.finished_run import FinishedRun, open_run
from drex_jax.serving.interaction_log import Ids
from drex_jax.serving.lists import Lists, Recommendation
from drex_jax.serving.review_reader import Reader
from drex_jax.serving.rows import Expected, Refusal, checked, id_of, require_whole, rows_of
from drex_jax.serving.update_file import UpdateFile
from drex_jax.serving.updaters import CannotUpdateError, Updater, updater_for

Id = str | int


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
        self._log, self._scorer, self._params = run.log, run.scorer, run.params
        self._users, self._items = run.log.users, run.log.items
        self._carry, self._moved = jax.tree.map(jnp.asarray, run.carry), False
        self._newcomers = run.scorer.newcomers(run.params, self._carry)
        self._reasons: Explainer | None = None
        self._reader = Reader(run.settings, RunLayout(run.folder).facts)
        self._applied = self._refused = 0  # since the last commit
        self._digests: list[str] = []  # of the tables that were applied since
        self._torn = False  # an update has ended half way

    @classmethod
    def load(cls, folder: str | pathlib.Path) -> Recommender:
        """The finished run in `folder` with its updates; of several seeds the first.

        Raises:
          UserError: there is no finished run, or it is damaged or of another version.
        """
        return cls(open_run(pathlib.Path(folder)))

    @property
    def _now(self) -> States:
        """Everyone's rows on the device; arrays that never change."""
        self._require_whole()
        if self._moved:
            self._carry, self._moved = (
                jax.tree.map(jnp.array, self._updater.carry),
                False,
            )  # a copy: those change in place
        return self._carry

    @property
    def _directions(self) -> jax.Array:
        """What items are compared by."""
        return self._scorer.directions(self._now.item)

    @functools.cached_property
    def _updater(self) -> Updater:
        return updater_for(self._run)

    @property
    def rating_range(self) -> tuple[float, float] | None:
        """The scale of predicted ratings; None: the model only ranks."""
        return self._log.base.rating_range if self._scorer.rates else None

    def knows_user(self, user: Id) -> bool:
        """Whether the run has met this user."""
        return self._users.number(id_of("user", user)) >= 0

    def knows_item(self, item: Id) -> bool:
        """Whether the run has met this item."""
        return self._items.number(id_of("item", item)) >= 0

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
          UserError: k is not from 1 to the number of items; a candidate is unknown; what should be an id, or a list of
            them, is none.
        """
        if arguments.is_list(user):
            return list(self.stream(user, k, exclude_seen, candidates))  # pyright: ignore[reportArgumentType]
        return next(self.stream([user], k, exclude_seen, candidates))  # pyright: ignore[reportArgumentType]

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
        lists, expected = self._lists, Expected.by(self._log.base)
        k, excluded = arguments.length(k, lists.num_items, "items"), lists.excluded(candidates)
        now, rows = float(self._log.last_moment), []
        for place, each in enumerate(arguments.listed("history", history)):
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
        if exclude_seen:
            excluded[met[met >= 0]] = True
        row = self._updater.fold_in(sorted(rows, key=lambda row: row.timestamp)) if rows else lists.newcomer
        return lists.of_row(row, k, excluded)

    def stream(
        self, users: Sequence[Id], k: int = 10, exclude_seen: bool = True, candidates: Iterable[Id] | None = None
    ) -> Iterator[list[Recommendation]]:
        """The lists of `recommend` one after the other, by the run as it is now; memory holds no more than the users.

        Raises:
          UserError: as `recommend`; at once, not when the first list is asked for.
        """
        lists, numbers = self._lists, self._numbers(self._users, "users", users)
        return lists.of(
            numbers, arguments.length(k, lists.num_items, "items"), exclude_seen, lists.excluded(candidates)
        )

    @property
    def _lists(self) -> Lists:
        rows, happened = self._now, len(self._log)
        return Lists(
            self._scorer,
            self._params,
            rows,
            self._newcomers[0],
            self._log,
            happened,
            len(self._items),
            met_alone=self._of_past,
        )

    def _numbers(self, known: Ids, name: str, ids: Iterable[Id]) -> np.ndarray:
        """int64 [n]: of ids; -1: unknown."""
        return np.array([known.number(each) for each in arguments.ids_of(name, ids)], np.int64)

    def predict(self, users: Sequence[Id], items: Sequence[Id]) -> np.ndarray:
        """The ratings that users would give to items, pair by pair, within the data's scale: float32 [n].

        Of a model that only ranks: scores, which order the items of one user.

        Raises:
          UserError: there are not as many items as users, or these are no lists of ids.
        """
        user, item = self._numbers(self._users, "users", users), self._numbers(self._items, "items", items)
        n = len(user)
        if n != len(item):
            raise UserError(f"predict needs pairs, not {n:,} users and {len(item):,} items")
        padding = (0, power_of_two(n) - n)  # few shapes to compile for
        user, item = (np.pad(numbers, padding, constant_values=-1) for numbers in (user, item))
        rows = self._rows(user, 0), self._rows(item, 1)
        predicted = np.asarray(scoring.scores(self._scorer, self._params, *rows))[:n]
        return predicted if self.rating_range is None else np.clip(predicted, *self.rating_range)

    def similar_items(self, item: Id, k: int = 10) -> list[Recommendation]:
        """The other items that are most alike by what the model has learned of them, with the cosine.

        Of DReX the states are compared, less the mean state; of other models the rows whose products are scores. Of
        an item whose row is zeros nothing is known (CRANE and LightGCN: new, met by new users alone): it is like no
        other, its list is empty, and it is in none.

        Raises:
          UserError: the item is unknown, or k is not from 1 to the number of other items.
        """
        number = self._items.number(id_of("item", item))
        if number < 0:
            raise UserError(f"the run has no item {item}")
        k = arguments.length(k, len(self._items) - 1, "other items")
        nearest, cosine = (np.asarray(each) for each in scoring.most_similar(self._directions, number, k))
        return self._lists.named(nearest, cosine)

    def explain(self, user: Id | None = None, item: Id | None = None) -> Explanation:
        """Why: keywords and past interactions of a user, of an item, or of a pair with what each did to it.

        Of DReX, each of the last 20 interactions of the user and of the item is left out in turn and the later ones are
        replayed without it (`drex_jax.explain.profiles.occlusion`); the first question replays the whole history once. Of
        CRANE, modality weights and the nearest items by content. A newcomer is explained by saying so.

        Raises:
          UserError: neither a user nor an item is given, or one that is no id; a view has nothing before it.
        """
        if user is None and item is None:
            raise UserError("explain needs a user, an item or both")
        who, what = None if user is None else id_of("user", user), None if item is None else id_of("item", item)
        self._require_whole()
        if not len(self._log):
            raise UserError("nothing had happened before this moment, and so there is nothing to explain")
        if self._reasons is None or not self._reasons.is_current:
            moving = None
            with contextlib.suppress(CannotUpdateError):
                moving = self._updater
            self._reasons = Explainer(self._run, moving)
        excluded = self._lists.excluded(None)
        return self._reasons.of(who, what, self._rows, self._now.item, excluded)

    def read(self, path: str | pathlib.Path) -> UpdateFile:
        """New interactions from a file: in the run's own format, or with columns of our names.

        Raises:
          UserError: there is no such file, it is of another format, or no row of it is good.
        """
        return update_file.read(pathlib.Path(path), self._run.settings, self._log.base)

    def update(self, interactions: Interactions | Iterable[Mapping[str, Any]]) -> UpdateReport:
        """Learns in memory from new interactions, one after the other, exactly as training would; `save` commits.

        New users and items are welcome, and so are rows without a rating, a text or a vector. Rows are taken in their
        order: in one call, in many or one by one the states are the same. A row is refused, and the others applied,
        where it is malformed, earlier than the last interaction of its user or its item, or one that was there already.
        So a row that is dated far in the future stands in the way of all that its user and its item do before then.
        DReX refines states; of CRANE and LightGCN the graph and the profiles grow and parameters stay. Where an update
        is interrupted (Ctrl-C, no memory), the object refuses to go on and the directory is as it was: load it again.

        Args:
          interactions: a table, or mappings with `user`, `item` and `timestamp` (seconds since 1970 or a `datetime`, in
            UTC where it names no zone), and what there is of `rating`, `text` and the names of the data's vectors; None
            and NaN are missing values.

        Raises:
          UserError: the model cannot be updated; `interactions` are neither; an update was interrupted before.
        """
        self._require_present()
        moving, expected, digests = self._updater, Expected.by(self._log.base), []
        if isinstance(interactions, Interactions):
            require_whole(interactions)
            digest = interactions.sha256()
            batch = self._batch_of(digest)
            if batch:
                reason = f"this very batch was applied before, {batch}"
                return UpdateReport(0, [Refusal(row, reason) for row in range(len(interactions))])
            digests.append(digest)
            right, refused = checked(rows_of(interactions), expected)
        else:
            right, refused = checked(arguments.listed("interactions", interactions), expected)
        right, unread = self._reader.read(right)
        self._torn = True
        kept, numbers, late = self._log.join(right)
        if kept:
            moving.advance(kept, numbers)
            self._moved = True
        self._applied += len(kept)
        self._refused += len(refused) + len(unread) + len(late)
        self._digests += digests
        self._torn = False
        return UpdateReport(len(kept), sorted([*refused, *unread, *late]))

    def _batch_of(self, digest: str) -> str:
        """Which batch a table was applied in; empty: in none."""
        if digest in self._digests:
            return "and not saved yet"
        found = (batch for batch in self._run.batches if digest in batch["sha256"])
        return next((f"as batch {batch['batch']} at {batch.get('at')}" for batch in found), "")

    def _require_whole(self) -> None:
        if self._torn:
            raise UserError("an update was interrupted half way: load the run again, which is as it was, and repeat it")

    def _require_present(self) -> None:
        """A view of the past is to look at, and so is a run whose update was interrupted."""
        if self._of_past:
            raise UserError("a view of an earlier moment cannot be updated or saved")
        self._require_whole()

    def save(self, folder: str | os.PathLike[str] | None = None) -> None:
        """Commits what `update` has applied: afterwards `load` finds it. All or nothing, whenever the process dies.

        Args:
          folder: another directory, which must not exist: it becomes a copy of the run, updates included (without
            training checkpoints), and from then on it is this object's own. None: the run's own.

        Raises:
          UserError: the directory is another's, or cannot be written; somebody else has updated the run since it was
            loaded, or is at it.
        """
        self._require_present()
        facts = {"applied": self._applied, "refused": self._refused, "sha256": self._digests}
        self._run = saving.save(self._run, folder, self._now, facts if self._applied else None)
        self._applied, self._refused, self._digests = 0, 0, []

    def as_of(self, moment: float | datetime.datetime) -> Recommender:
        """The run as it stood just before a moment, to ask what it would have answered; parameters are today's.

        States are replayed from the first interaction on. A model whose rows do not move has those it has; what users
        had met by then is what `recommend` leaves out, and an item that nobody had met is not recommended. Later
        updates of this object do not change the view, which itself cannot be updated or saved.

        Args:
          moment: seconds since 1970, or a `datetime`, in UTC where it names no zone.

        Raises:
          UserError: it is no moment.
        """
        then, carry = self._log.before(arguments.moment(moment)), self._now
        with contextlib.suppress(CannotUpdateError):  # its rows are the same at any moment
            carry = self._updater.as_of(then)
        return Recommender(self._run._replace(log=then, carry=carry), of_past=True)

    def _rows(self, numbers: np.ndarray, side: int) -> jax.Array:
        """The rows [n, E] of users (side 0) or items (1); a newcomer's for number -1."""
        return (scoring.taken if side else scoring.users)(self._now[side], self._newcomers[side], numbers)
