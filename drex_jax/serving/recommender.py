"""The public interface of a finished run: recommendations, predictions, explanations and updates."""

from __future__ import annotations

import datetime
import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, overload

import numpy as np

from drex_jax.common.errors import UserError
from drex_jax.common.padding import power_of_two
from drex_jax.common.side import Side
from drex_jax.data.interactions import Interactions
from drex_jax.data.readers.chunk import Chunk
from drex_jax.models import scoring
from drex_jax.runs.layout import RunLayout
from drex_jax.serving import rows
from drex_jax.serving.explanation import Explainer, Explanation
from drex_jax.serving.finished_run import open_run
from drex_jax.serving.interaction_log import Ids
from drex_jax.serving.lists import Recommendation
from drex_jax.serving.live_run import LiveRun, UpdateReport
from drex_jax.serving.review_reader import ReviewReader
from drex_jax.serving.rows import Refusal, RowSchema
from drex_jax.serving.update_file import UpdateFile, read_update_file

Id = str | int


class Recommender:
    """A finished run that answers questions and learns from new interactions.

    Ids are strings; an integer stands for its decimal digits. An unknown user or item is not an error: it is treated as
    a cold start. Only the run directory is read, not the raw data, and nothing is written but by `save`.

    Example:
      >>> from drex_jax import Recommender
      >>> recommender = Recommender.load("runs/quickstart")
      >>> len(recommender.recommend("user007", k=5))
      5
      >>> row = {"user": "user007", "item": "item003", "rating": 4, "timestamp": 1.8e9, "text": "as it ought"}
      >>> recommender.update([row]).applied
      1
      >>> recommender.save()
    """

    def __init__(self, live: LiveRun):
        """Use `load`."""
        self._live = live
        self._schema = RowSchema.of(live.run.log.base)
        self._reviews = ReviewReader(live.run.settings, RunLayout(live.run.folder).facts)
        self._explainer: Explainer | None = None

    @classmethod
    def load(cls, folder: str | pathlib.Path) -> Recommender:
        """Open the finished run in a directory, with its saved updates; if it has several seeds, the first.

        Args:
          folder: the run directory (`--workdir` of the command line).

        Raises:
          UserError: `folder` holds no finished run, or one that is damaged or of another version.
        """
        return cls(LiveRun(open_run(pathlib.Path(folder))))

    @property
    def _users(self) -> Ids:
        return self._live.run.log.users

    @property
    def _items(self) -> Ids:
        return self._live.run.log.items

    @property
    def rating_range(self) -> tuple[float, float] | None:
        """The lowest and the highest rating that `predict` returns; None if the model only ranks."""
        run = self._live.run
        return run.log.base.rating_range if run.model.rates else None

    def knows_user(self, user: Id) -> bool:
        """True if the run has an interaction of this user.

        Raises:
          UserError: `user` is not an id.
        """
        return self._users.number(rows.id_of("user", user)) >= 0

    def knows_item(self, item: Id) -> bool:
        """True if the run has an interaction with this item.

        Raises:
          UserError: `item` is not an id.
        """
        return self._items.number(rows.id_of("item", item)) >= 0

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
        """Return the items that a user is most likely to want next, the best first.

        Args:
          user: an id, or a list of ids.
          k: length of the list; it is shorter if fewer items are left.
          exclude_seen: leave out the items that the user has interacted with.
          candidates: ids of the only items that may be recommended; None: all items.

        Returns:
          Pairs of item and score, in decreasing order of score. Scores of different users do not compare. For a list
          of ids, a list of such lists.

        Raises:
          UserError: `k` is not from 1 to the number of items, a candidate is unknown, or an argument is not an id or a
            list of ids.

        Example:
          >>> best = recommender.recommend("user007", k=3)
          >>> [each.score for each in best] == sorted((each.score for each in best), reverse=True)
          True
          >>> [len(each) for each in recommender.recommend(["user007", "user008"], k=3)]
          [3, 3]
        """
        if rows.is_list(user):
            return list(self.stream(user, k, exclude_seen, candidates))  # pyright: ignore[reportArgumentType]
        return next(self.stream([user], k, exclude_seen, candidates))  # pyright: ignore[reportArgumentType]

    def recommend_for(
        self,
        history: Sequence[Id | Mapping[str, Any]],
        k: int = 10,
        exclude_seen: bool = True,
        candidates: Iterable[Id] | None = None,
    ) -> list[Recommendation]:
        """Return the recommendations of a new user with a history that is given here and not stored.

        Args:
          history: ids of items, or mappings as in `update` without `user`, the earliest first. Without `timestamp` an
            interaction is at the last moment of the run.
          k: as in `recommend`.
          exclude_seen: leave out the items of the history.
          candidates: as in `recommend`.

        Raises:
          UserError: a row of the history breaks a rule, or the model cannot be updated; or as in `recommend`.

        Example:
          >>> len(recommender.recommend_for(["item003", {"item": "item004", "rating": 5}], k=3))
          3
        """
        lists = self._live.lists()
        k, excluded = rows.list_length(k, lists.num_items, "items"), lists.excluded(candidates)
        past = self._history(history)
        if exclude_seen:
            numbers = np.array([self._items.number(item) for item in past.item], np.int64)
            excluded[numbers[numbers >= 0]] = True
        row = self._live.updater.fold_in(past) if len(past) else lists.cold_start
        return lists.of_row(row, k, excluded)

    def _history(self, history: Sequence[Id | Mapping[str, Any]]) -> Chunk:
        """Return the history of a new user as columns in the order of time."""
        default: dict[str, object] = {"timestamp": self._live.run.log.last_moment, "user": "a new user"}
        given: list[Id | Mapping[str, Any]] = rows.as_list("history", history)
        mappings = [{**default, **(each if isinstance(each, Mapping) else {"item": each})} for each in given]
        checked = self._reviews.read(rows.check_mappings(mappings, self._schema))
        for refusal in sorted(checked.refused):
            raise UserError(f"history, row {refusal.row}: {refusal.reason}")
        return checked.rows.take(np.argsort(checked.rows.timestamp, kind="stable"))

    def stream(
        self, users: Sequence[Id], k: int = 10, exclude_seen: bool = True, candidates: Iterable[Id] | None = None
    ) -> Iterator[list[Recommendation]]:
        """Yield the lists of `recommend` for many users, one after the other, in little memory.

        All lists are of the run as it is when this is called, whatever is updated meanwhile. Arguments and errors are
        those of `recommend`; errors are raised by the call, not by the first list.

        Example:
          >>> for user, best in zip(["user007", "user008"], recommender.stream(["user007", "user008"], k=1)):
          ...     print(user, len(best))
          user007 1
          user008 1
        """
        lists, numbers = self._live.lists(), self._numbers(self._users, "users", users)
        k = rows.list_length(k, lists.num_items, "items")
        return lists.of(numbers, k, exclude_seen, lists.excluded(candidates))

    def _numbers(self, known: Ids, name: str, ids: Iterable[Id]) -> np.ndarray:
        """Return the numbers of ids, int64 [n]; -1 if unknown."""
        return np.array([known.number(each) for each in rows.ids_of(name, ids)], np.int64)

    def predict(self, users: Sequence[Id], items: Sequence[Id]) -> np.ndarray:
        """Return the ratings that users would give to items.

        Args:
          users: n ids.
          items: n ids; the pairs are (users[0], items[0]), (users[1], items[1]) and so on.

        Returns:
          float32 [n], ratings within `rating_range`. If the model only ranks: scores, which compare within one user.

        Raises:
          UserError: the two lists differ in length, or an argument is not a list of ids.

        Example:
          >>> recommender.predict(["user007", "user007"], ["item003", "item004"]).shape
          (2,)
        """
        user, item = self._numbers(self._users, "users", users), self._numbers(self._items, "items", items)
        n = len(user)
        if n != len(item):
            raise UserError(f"predict needs pairs, not {n:,} users and {len(item):,} items")
        padding = (0, power_of_two(n) - n)  # few shapes to compile for
        user, item = (np.pad(numbers, padding, constant_values=-1) for numbers in (user, item))
        live, run = self._live, self._live.run
        pairs = live.rows(user, Side.USER), live.rows(item, Side.ITEM)
        predicted = np.asarray(scoring.scores(run.model, run.params, *pairs))[:n]
        return predicted if self.rating_range is None else np.clip(predicted, *self.rating_range)

    def similar_items(self, item: Id, k: int = 10) -> list[Recommendation]:
        """Return the items most similar to one by what the model has learned, with the cosine as their score.

        For DReX these are the states less their mean; for other models the rows whose products are scores. An item
        whose row is zeros (CRANE and LightGCN: a new item with interactions of new users alone) is similar to no other.

        Args:
          item: an id.
          k: length of the list.

        Raises:
          UserError: the item is unknown, or `k` is not from 1 to the number of other items.

        Example:
          >>> "item003" in [each.item for each in recommender.similar_items("item003", k=5)]
          False
        """
        number = self._items.number(rows.id_of("item", item))
        if number < 0:
            raise UserError(f"the run has no item {item}")
        k = rows.list_length(k, len(self._items) - 1, "other items")
        directions = self._live.run.model.directions(self._live.states.item)
        nearest, cosine = map(np.asarray, scoring.most_similar(directions, number, k))
        return self._live.lists().named(nearest, cosine)

    def explain(self, user: Id | None = None, item: Id | None = None) -> Explanation:
        """Explain a user, an item, or the score of a pair: keywords, past interactions and what each of them changed.

        For DReX, each of the last 20 interactions of the user and of the item is left out in turn, and the later ones
        are replayed without it (`drex_jax.explain.occlusion`); the first call replays the whole history once. For CRANE
        there are the weights of modalities and the items with the most similar content. If an id is unknown, the
        explanation says so.

        Args:
          user: an id; None: explain the item alone.
          item: an id; None: explain the user alone.

        Raises:
          UserError: neither is given, one is not an id, or this is a view before the first interaction.

        Example:
          >>> why = recommender.explain("user007", "item003")
          >>> why.user, why.item, 1 <= why.rank <= why.num_items
          ('user007', 'item003', True)
        """
        if user is None and item is None:
            raise UserError("explain needs a user, an item or both")
        user_id = None if user is None else rows.id_of("user", user)
        item_id = None if item is None else rows.id_of("item", item)
        live, states = self._live, self._live.states
        if not len(live.run.log):
            raise UserError("nothing had happened before this moment, and so there is nothing to explain")
        if self._explainer is None or not self._explainer.is_current:
            self._explainer = Explainer(live.run, live.updater_or_none)
        return self._explainer.of(user_id, item_id, live.rows, states.item, live.lists().excluded(None))

    def read(self, path: str | pathlib.Path) -> UpdateFile:
        """Read a file of new interactions for `update`.

        Args:
          path: a file in the format of the run's data, or a CSV, TSV, JSON lines or Parquet file with the columns
            `user item rating timestamp text` and those of the data's vectors, as far as it has them.

        Raises:
          UserError: the file is missing, has another format, is cut short or damaged, or has no good row.
        """
        return read_update_file(pathlib.Path(path), self._live.run.settings, self._live.run.log.base)

    def update(self, interactions: Interactions | Iterable[Mapping[str, Any]]) -> UpdateReport:
        """Learn from new interactions, in memory; `save` commits them.

        The rows are applied in their order: in one call, in several or one by one, the result is the same. New users
        and items are added; ratings, texts and vectors may be missing. A row is refused, and the others are applied, if
        a value of it breaks a rule that files of data have to keep as well, if it is earlier than the last interaction
        of its user or its item, or if the run has the same interaction already. (So a row that is dated far in the
        future bars all earlier ones of its user and its item.)

        DReX refines the states of users and items exactly as in training. For CRANE and LightGCN the graph and the
        profiles grow, for popularity the counts, and parameters stay. If a call is interrupted (Ctrl-C, no memory),
        this object refuses all further calls; the run directory is unchanged and can be loaded again.

        Args:
          interactions: a table, such as `read(path).interactions`, or mappings with `user`, `item` and `timestamp`
            (seconds since 1970, or a `datetime`, in UTC where it names no time zone), and optionally `rating`, `text`
            and the data's vectors by name. None and NaN are missing values.

        Returns:
          The number of rows applied, and the rows refused with their positions and reasons.

        Raises:
          UserError: the model cannot be updated, this is a view, an earlier call was interrupted, or `interactions` is
            neither a table nor a list.

        Example:
          >>> new = {"user": "user007", "item": "a new item", "timestamp": 1.9e9}
          >>> recommender.update([new, new | {"rating": 99}])
          UpdateReport(applied=1, refused=[Refusal(row=1, reason='rating outside 1..5: 99')])
        """
        live, sha256 = self._live, None
        live.require_present()
        live.pending  # noqa: B018 (raises)
        live.updater  # noqa: B018 (raises)
        if isinstance(interactions, Interactions):
            sha256 = interactions.sha256()
            batch = live.batch_of(sha256)
            if batch:
                reason = f"this very batch was applied before, {batch}"
                return UpdateReport(0, [Refusal(row, reason) for row in range(len(interactions))])
            checked = rows.check_table(interactions, self._schema)
        else:
            checked = rows.check_mappings(rows.as_list("interactions", interactions), self._schema)
        return live.apply(self._reviews.read(checked), sha256)

    def save(self, folder: str | os.PathLike[str] | None = None) -> None:
        """Commit what `update` has applied, all or nothing, so that `load` finds it.

        Args:
          folder: a new directory, which becomes a copy of the run with its updates (but without training checkpoints)
            and the directory of this object from then on. None: the run's own directory.

        Raises:
          UserError: the directory exists and is not the run's own, or cannot be written; or another process has updated
            the run since it was loaded, or is doing so.
        """
        self._live.save(folder)

    def as_of(self, moment: float | datetime.datetime) -> Recommender:
        """Return a view of the run just before a moment, to ask what it would have answered then.

        The states are those of that moment, replayed from the first interaction on; the parameters are today's. The
        states of a model that cannot be updated are today's too. `recommend` leaves out what users had interacted with
        by then, and items without an interaction by then. Later updates do not change the view, which itself cannot be
        updated or saved.

        Args:
          moment: seconds since 1970, or a `datetime`, in UTC where it names no time zone.

        Raises:
          UserError: `moment` is neither.

        Example:
          >>> recommender.as_of(0).recommend("user007")
          []
        """
        return Recommender(self._live.as_of(rows.moment_of(moment)))
