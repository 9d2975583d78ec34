"""Runs that go on: what new interactions do to everyone's rows.

Letters: n interactions, U users, I items, E row size.
"""

from __future__ import annotations

import functools
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np

from drex_jax.common.errors import UserError
from drex_jax.data.events import Events, scale, scaled
from drex_jax.data.readers.chunk import Chunk
from drex_jax.data.strings import Strings
from drex_jax.data.tokens import Tokens
from drex_jax.models.crane.model import Crane
from drex_jax.models.drex import counters
from drex_jax.models.drex.core import Refiner
from drex_jax.models.drex.counters import History
from drex_jax.models.drex.replay import Replay
from drex_jax.models.pairwise import Pairwise
from drex_jax.models.protocol import Params, States
from drex_jax.runs import checkpoint
from drex_jax.runs.dataset import open_interactions, open_tokens, open_vocabulary
from drex_jax.serving.finished_run import FinishedRun
from drex_jax.serving.interaction_log import Appended, InteractionLog
from drex_jax.text.bert.pieces import WordPieces
from drex_jax.text.vocabulary import Vocabulary
from drex_jax.training import registry


class Updater(Protocol):
    """A run that learns from what comes after training."""

    @property
    def carry(self) -> States:
        """Everyone's rows now: arrays [U, E] and [I, E] that `advance` may change."""
        ...

    def advance(self, new: Appended) -> None:
        """Learn from interactions that were just appended to the log; there is at least one."""
        ...

    def fold_in(self, history: Chunk) -> np.ndarray:
        """Return the state [E] of a new user after a history in the order of time; nothing is learned from it."""
        ...

    def as_of(self, then: InteractionLog) -> States:
        """Everyone's rows at an earlier moment, when the journal was `then`."""
        ...


class CannotUpdateError(UserError):
    """The model learns in training alone."""


def updater_for(run: FinishedRun) -> Updater:
    """What moves a run on.

    Raises:
      CannotUpdateError: its model cannot be updated.
    """
    name = run.settings.model.name
    if isinstance(run.scorer, Refiner):
        return StateUpdater(run, run.scorer)
    if name in ("crane", "lightgcn"):
        return GraphUpdater(run)
    if name == "popularity":
        return CountUpdater(run.carry)
    raise CannotUpdateError(
        f"a run of the model {name} cannot be updated: its rows come from training alone (those of drex, crane, "
        "lightgcn and popularity can)"
    )


class StateUpdater:
    """Of DReX: interactions refine the states of their users and items, exactly as in training."""

    def __init__(self, run: FinishedRun, refiner: Refiner):
        self.refiner, self._params, self._log = refiner, run.params, run.log
        self._folder, self._settings = run.folder, run.settings
        self.vocabulary, self._max_tokens = open_vocabulary(run.settings, run.folder), run.settings.text.max_tokens
        log = run.log
        self._scales = {n: scale(v, log.num_train) for n, v in log.base.vectors.items()}
        start = History.start(len(log.users), len(log.items))
        _, past = counters.advance(self.events(log, encoded=False), start, refiner.options.bias)
        self._replay = Replay(refiner, run.params, run.carry, past)

    @property
    def carry(self) -> States:
        """NumPy arrays that the next `advance` changes."""
        return self._replay.carry

    def advance(self, new: Appended) -> None:
        """Refine the states of the users and items of new interactions."""
        log = self._log
        self._replay.advance(self._events_of(new.rows, new.user, new.item, len(log.users), len(log.items)))

    def fold_in(self, history: Chunk) -> np.ndarray:
        """Return a new user's state after a history, which also refines copies of the items' states."""
        items = self._log.items
        known = np.unique([number for name in history.item if (number := items.number(name)) >= 0]).astype(np.int64)
        local = {items.name(number): place for place, number in enumerate(known.tolist())}
        item = np.array([local.setdefault(name, len(local)) for name in history.item], np.int32)
        part = self._replay.part(np.zeros(0, np.int64), known)
        part.advance(self._events_of(history, np.zeros(len(item), np.int32), item, 1, len(local)))
        return part.carry.user[0]  # pyright: ignore[reportReturnType] (NumPy's)

    def as_of(self, then: InteractionLog) -> States:
        """A replay from the first interaction on."""
        past = History.start(len(then.users), len(then.items))
        auxiliary = counters.tables(past, self.refiner.options.bias)
        sides = zip(("user", "item"), auxiliary, strict=True)
        rows = (self.refiner.rows(self._params, side, known) for side, known in sides)
        replay = self._replay.restarted(States(*rows), past)
        replay.advance(self.events(then))
        return replay.carry

    def events(self, log: InteractionLog, encoded: bool = True) -> Events:
        """All rows of a journal as the model reads them; without texts and vectors where `encoded` is false."""
        table, vectors, tokens = log.table(), {}, None
        if encoded:
            vectors = {n: scaled(v, *self._scales[n]) for n, v in table.vectors.items()}
            tokens = None if self.vocabulary is None else self._tokens(self.vocabulary, log, table.text)
        return Events(
            user=table.user,
            item=table.item,
            timestamp=table.timestamp,
            rating=table.rating,
            tokens=tokens,
            vectors=vectors,
            num_users=len(log.users),
            num_items=len(log.items),
        )

    def _tokens(self, vocabulary: Vocabulary | WordPieces, log: InteractionLog, text: Strings) -> Tokens:
        """Of all texts of a journal: those of the run's own data were encoded long ago."""
        if log.base is not self._log.base:
            return vocabulary.encode(text, self._max_tokens)
        known = len(log.base)
        return Tokens.concatenate([self._encoded, vocabulary.encode(text.part(known, len(text)), self._max_tokens)])

    @functools.cached_property
    def _encoded(self) -> Tokens:
        """Of the texts that the run began with."""
        assert self.vocabulary is not None
        _, parts = open_interactions(self._settings, self._folder)
        return open_tokens(self._folder, parts, len(self.vocabulary))

    def _events_of(self, rows: Chunk, user: np.ndarray, item: np.ndarray, num_users: int, num_items: int) -> Events:
        return Events(
            user=user,
            item=item,
            timestamp=rows.timestamp,
            rating=rows.rating,
            tokens=None if self.vocabulary is None else self.vocabulary.encode(rows.text, self._max_tokens),
            vectors={
                name: scaled(rows.vector(name, len(mean)), mean, factor)
                for name, (mean, factor) in self._scales.items()
            },
            num_users=num_users,
            num_items=num_items,
        )


class GraphUpdater:
    """Of CRANE and LightGCN: new interactions join the graph and the users' profiles; parameters stay.

    Whoever came after training has an embedding of zeros, so that only its neighbours speak for it, and an item no
    features (our choices). Rows are made anew when they are next asked for.
    """

    def __init__(self, run: FinishedRun):
        self._params, self._settings, self._log = run.params, run.settings, run.log
        self._rows: States | None = None

    @property
    def carry(self) -> States:
        """Everyone's rows by the graph of train and all that came since."""
        if self._rows is None:
            log = self._log
            self._rows = self._grown(self._pairs(log), len(log.users), len(log.items))
        return self._rows

    def advance(self, new: Appended) -> None:
        """Forget the states, which are computed again when they are next asked for."""
        self._rows = None

    def fold_in(self, history: Chunk) -> np.ndarray:
        """Return the row of a new user in a graph that has its history; unknown items are left out."""
        log = self._log
        newcomer = len(log.users)
        known = [number for name in history.item if (number := log.items.number(name)) >= 0]
        user, item = self._pairs(log)
        user, item = np.append(user, np.full(len(known), newcomer)), np.append(item, known)
        return np.asarray(self._grown((user, item), newcomer + 1, len(log.items)).user[newcomer])

    def contents(self) -> tuple[tuple[str, ...], np.ndarray, np.ndarray] | None:
        """Modalities, their shares [M, I] in items' content, and the content [I, D]; None without (LightGCN)."""
        log = self._log
        model, params = self._model_of(self._pairs(log), len(log.users), len(log.items))
        if not isinstance(model, Crane):
            return None
        shares, content = model.modality_shares(params)
        return tuple(sorted(log.base.item_vectors)), np.asarray(shares), np.asarray(content)

    def as_of(self, then: InteractionLog) -> States:
        """The rows of the whole of train, with what of later rows was there then."""
        return self._grown(self._pairs(then), len(then.users), len(then.items))

    def _pairs(self, log: InteractionLog) -> tuple[np.ndarray, np.ndarray]:
        """Users and items of train and of what `log` has beside its base."""
        train, begun, base = self._log.num_train, len(log.base), self._log.base
        return np.append(base.user[:train], log.user[begun:]), np.append(base.item[:train], log.item[begun:])

    def _grown(self, pairs: tuple[np.ndarray, np.ndarray], num_users: int, num_items: int) -> States:
        """Everyone's rows by a graph of these pairs."""
        model, params = self._model_of(pairs, num_users, num_items)
        return model.start(params)

    def _model_of(
        self, pairs: tuple[np.ndarray, np.ndarray], num_users: int, num_items: int
    ) -> tuple[Pairwise, Params]:
        base = self._log.base
        more = num_items - base.num_items
        features = {
            name: np.pad(values, ((0, more), (0, 0)), constant_values=np.nan)
            for name, values in base.item_vectors.items()
        }
        n = len(pairs[0])
        user, item = (np.asarray(side, np.int32) for side in pairs)
        events = Events(
            user, item, np.zeros(n), np.full(n, np.nan, np.float32), None, {}, num_users, num_items, features
        )
        settings = self._settings
        model = registry.pairwise(settings.model.name, settings, events, (n, 0, 0), settings.seed)
        params = checkpoint.in_form(self._params, jax.eval_shape(model.init, jax.random.key(0)))
        of_users, of_items = np.split(np.asarray(self._params["table"]), [base.num_users])
        table = [np.pad(of_users, ((0, num_users - len(of_users)), (0, 0))), np.pad(of_items, ((0, more), (0, 0)))]
        return model, params | {"table": jnp.concatenate(table)}


class CountUpdater:
    """Of popularity: an item's row is the number of its interactions."""

    def __init__(self, carry: States):
        self._user, self._item = (np.array(side) for side in carry)

    @property
    def carry(self) -> States:
        """Counts."""
        return States(self._user, self._item)  # pyright: ignore[reportArgumentType] (NumPy's serve)

    def advance(self, new: Appended) -> None:
        """Count the new interactions of each item."""
        self._user, self._item = (
            np.pad(side, ((0, max(0, 1 + int(numbers.max()) - len(side))), (0, 0)))
            for side, numbers in ((self._user, new.user), (self._item, new.item))
        )
        np.add.at(self._item, new.item, 1.0)

    def fold_in(self, history: Chunk) -> np.ndarray:
        """Return the row of any user, which holds nothing."""
        return np.zeros_like(self._user[0])

    def as_of(self, then: InteractionLog) -> States:
        """Counts of then."""
        counts = np.bincount(then.item, minlength=len(self._item)).astype(np.float32)
        return States(self._user, counts[:, None])  # pyright: ignore[reportArgumentType] (NumPy's serve)
