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

import functools
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, overload

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from drex_jax import checkpoint, config, scorers, train
from drex_jax.config import Config
from drex_jax.data.interactions import Interactions
from drex_jax.data.strings import Strings
from drex_jax.dataset import open_interactions
from drex_jax.errors import UserError
from drex_jax.files import read_json
from drex_jax.incoming import Expected, Refusal, checked, rows_of
from drex_jax.live import Live
from drex_jax.models.drex.refiner import Refiner
from drex_jax.models.drex.window import power_of_two
from drex_jax.models.protocol import Carry, Params
from drex_jax.scorers import Scorer

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


class _Ids:
    """The ids of one side, and those that came since: number n is the id at place n."""

    def __init__(self, ids: Strings):
        self._start, self._since = ids, []

    @functools.cached_property
    def _numbers(self) -> dict[str, int]:
        return {name: number for number, name in enumerate(self._start)}

    def __len__(self) -> int:
        return len(self._start) + len(self._since)

    def name(self, number: int) -> str:
        begun = len(self._start)
        return self._start[number] if number < begun else self._since[number - begun]

    def number(self, name: Id) -> int:
        """-1: there is none."""
        return self._numbers.get(str(name), -1)

    def add(self, name: str) -> None:
        self._numbers[name] = len(self)
        self._since.append(name)


class _Seen:
    """What each user has met: items item[begin[u] : begin[u + 1]] of user u at the start, and what came since."""

    def __init__(self, interactions: Interactions):
        order = np.argsort(interactions.user, kind="stable")
        self._begin = np.concatenate([[0], np.bincount(interactions.user, minlength=interactions.num_users).cumsum()])
        self._item = np.asarray(interactions.item)[order]
        self._since: dict[int, list[int]] = {}

    def add(self, user: int, item: int) -> None:
        self._since.setdefault(user, []).append(item)

    def rows(self, users: np.ndarray, padding: int) -> np.ndarray:
        """int32 [n, most]: each user's items, then `padding`; users -1 have none. `most` is a power of two."""
        lists = [self._of(user) for user in users.tolist()]
        most = power_of_two(max(map(len, lists)))
        return np.stack([np.pad(items, (0, most - len(items)), constant_values=padding) for items in lists])

    def _of(self, user: int) -> np.ndarray:
        begun = 0 <= user < len(self._begin) - 1
        items = self._item[self._begin[user] : self._begin[user + 1]] if begun else self._item[:0]
        return np.append(items, self._since.get(user, ())).astype(np.int32)


class Recommender:
    """A finished run. Letters: U users, I items, E row size."""

    def __init__(
        self,
        interactions: Interactions,
        scorer: Scorer,
        params: Params,
        carry: Carry,
        live: Callable[[], Live] | None = None,
    ):
        """Use `load`.

        Args:
          interactions: all that the run has seen, numbered as the rows are.
          scorer: of the run's model.
          params: its parameters.
          carry: everyone's rows, user [U, E] and item [I, E].
          live: makes what moves the states on; None where the model cannot be updated.
        """
        self._interactions, self._scorer, self._params, self._live_later = interactions, scorer, params, live
        self._users, self._items = _Ids(interactions.user_ids), _Ids(interactions.item_ids)
        self._carry, self._moved = jax.tree.map(jnp.asarray, carry), False
        self._newcomers = scorer.newcomers(params, self._carry)
        self._best = jax.jit(functools.partial(_best, scorer), static_argnums=(5,))
        self._pairs = jax.jit(scorer.pairs)

    @classmethod
    def load(cls, folder: str | pathlib.Path) -> Recommender:
        """The finished run in `folder`; of several seeds the first.

        Raises:
          UserError: there is no finished run, or it is damaged or of another version.
        """
        folder = pathlib.Path(folder)
        settings = _finished(folder)
        interactions, _ = open_interactions(settings, folder)
        scorer = scorers.scorer(settings.model.name, read_json(folder / train.SCORER, ()))
        arrays = checkpoint.load_arrays(folder / train.MODEL)
        try:
            carry = Carry(**arrays["carry"])
            shapes = [side.shape[0] for side in carry]
            params = arrays.get("params", {})
        except (KeyError, TypeError, AttributeError, IndexError):
            raise UserError(f"{folder / train.MODEL} is damaged: it should hold params and carry") from None
        if shapes != [interactions.num_users, interactions.num_items]:
            raise UserError(
                f"{folder / train.MODEL} has rows of {shapes[0]:,} users and {shapes[1]:,} items, and the history has "
                f"{interactions.num_users:,} and {interactions.num_items:,}: they are not of one run"
            )
        live = None
        if isinstance(scorer, Refiner):
            live = functools.partial(Live.of, scorer, params, carry, settings, folder)
        return cls(interactions, scorer, params, carry, live)

    @property
    def _now(self) -> Carry:
        """Everyone's rows on the device."""
        if self._moved:
            self._carry, self._moved = jax.tree.map(jnp.array, self._live.carry), False  # a copy: those change in place
        return self._carry

    @functools.cached_property
    def _seen(self) -> _Seen:
        return _Seen(self._interactions)

    @functools.cached_property
    def _live(self) -> Live:
        if self._live_later is None:
            raise UserError("a run of this model cannot be updated: it does not learn from single interactions")
        return self._live_later()

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

    def stream(
        self, users: Sequence[Id], k: int = 10, exclude_seen: bool = True, candidates: Iterable[Id] | None = None
    ) -> Iterator[list[Recommendation]]:
        """The lists of `recommend` one after the other, in memory that does not grow with their number."""
        num_items = len(self._items)
        if not 1 <= k <= num_items:
            raise UserError(f"k = {k}; it must be from 1 to the {num_items:,} items there are")
        barred = jnp.asarray(self._barred(candidates))
        return self._lists(users, k, exclude_seen, barred)

    def _barred(self, candidates: Iterable[Id] | None) -> np.ndarray:
        """Bool [I]: which items may not be recommended."""
        barred = np.zeros(len(self._items), bool)
        if candidates is None:
            return barred
        wanted = {str(item): self._items.number(item) for item in candidates}
        unknown = next((item for item, number in wanted.items() if number < 0), None)
        if unknown is not None:
            raise UserError(f"candidates: the run has no item {unknown}")
        barred[:] = True
        barred[list(wanted.values())] = False
        return barred

    def _lists(
        self, users: Sequence[Id], k: int, exclude_seen: bool, barred: jax.Array
    ) -> Iterator[list[Recommendation]]:
        num_items, name = len(self._items), self._items.name
        block = min(USERS, max(1, SCORES // num_items), len(users))
        for begin in range(0, len(users), max(block, 1)):
            numbers = np.array([self._users.number(user) for user in users[begin : begin + block]])
            padded = np.pad(numbers, (0, block - len(numbers)), constant_values=-1)
            seen = self._seen.rows(padded if exclude_seen else np.full(block, -1), num_items)
            found = self._best(self._params, self._rows(padded, 0), self._now.item, seen, barred, k)
            items, scores = (np.asarray(each) for each in found)
            for row in range(len(numbers)):
                pairs = zip(items[row].tolist(), scores[row].tolist(), strict=True)
                yield [Recommendation(name(item), score) for item, score in pairs if score > -np.inf]

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
        predicted = np.asarray(self._pairs(self._params, self._rows(user, 0), self._rows(item, 1)))[: len(users)]
        scale = self._interactions.rating_range
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
        nearest, cosine = (np.asarray(each) for each in _alike(self._now.item, number, k))
        return [Recommendation(self._items.name(n), c) for n, c in zip(nearest.tolist(), cosine.tolist(), strict=True)]

    def update(self, interactions: Interactions | Iterable[Mapping[str, Any]]) -> UpdateReport:
        """Refines the states in memory with new interactions, one after the other, exactly as training would.

        New users and items are welcome, and so are rows without a rating, a text or a vector. Rows are taken in their
        order: in one call, in many or one by one the states are the same. A row is refused, and the others applied,
        where it is malformed, earlier than the last interaction of its user or its item, or one that was there already.

        Args:
          interactions: a table, or mappings with `user`, `item` and `timestamp` (seconds since 1970), and what there is
            of `rating`, `text` and the names of the data's vectors.

        Raises:
          UserError: the model cannot be updated.
        """
        live, expected = self._live, Expected.by(self._interactions)
        rows = rows_of(interactions) if isinstance(interactions, Interactions) else interactions
        right, refused = checked(rows, expected)
        numbers, late = live.apply(right, self._users, self._items)
        for user, item in numbers:
            self._seen.add(user, item)
        self._moved |= bool(numbers)
        return UpdateReport(len(numbers), sorted([*refused, *late]))

    def _rows(self, numbers: np.ndarray, side: int) -> jax.Array:
        """The rows [n, E] of users (side 0) or items (1); a newcomer's for number -1."""
        return _taken(self._now[side], self._newcomers[side], numbers)


def _best(
    scorer: Scorer, params: Params, user: jax.Array, item: jax.Array, seen: jax.Array, barred: jax.Array, k: int
) -> tuple[jax.Array, jax.Array]:
    """The k best items of users [b, E] among [I, E], int32 [b, k], and their scores; -inf for what may not be."""
    scores = jnp.where(barred, -jnp.inf, scorer.rank(params, user, item))
    scores = scores.at[jnp.arange(len(user))[:, None], seen].set(-jnp.inf, mode="drop")
    best, found = lax.top_k(scores, k)
    return found, best


@functools.partial(jax.jit, static_argnums=2)
def _alike(rows: jax.Array, number: jax.Array, k: int) -> tuple[jax.Array, jax.Array]:
    unit = rows * lax.rsqrt((rows**2).sum(1, keepdims=True) + 1e-30)
    cosine = (unit @ unit[number]).at[number].set(-jnp.inf)
    best, found = lax.top_k(cosine, k)
    return found, best


@jax.jit
def _taken(rows: jax.Array, newcomer: jax.Array, numbers: jax.Array) -> jax.Array:
    return jnp.where((numbers >= 0)[:, None], rows[numbers], newcomer)


def _finished(folder: pathlib.Path) -> Config:
    """The configuration of a finished run.

    Raises:
      UserError: there is none.
    """
    if not (folder / train.CONFIG).exists():
        raise UserError(f"{folder} holds no run (no {train.CONFIG}); python -m drex_jax.main --config=... makes one")
    settings: Any = config.from_json(folder / train.CONFIG)
    if not (folder / train.RESULTS).exists():
        raise UserError(f"{folder} holds a run that is not finished (no {train.RESULTS}); run its command again")
    if not (folder / train.SCORER).exists():
        raise UserError(f"{folder} holds a run of an older version (no {train.SCORER}); train it again")
    return settings
