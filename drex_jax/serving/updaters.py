"""Online updates of a finished run: what new interactions do to the rows of users and items.

Letters: n interactions, U users, I items, E row size.
"""

from __future__ import annotations

import abc
import functools
from collections.abc import Callable, Sequence
from typing import Any, cast

import jax
import numpy as np

from drex_jax.common.errors import UserError
from drex_jax.common.side import Side
from drex_jax.data.events import Events, scale, scaled
from drex_jax.data.readers.chunk import Chunk
from drex_jax.data.strings import Strings
from drex_jax.data.tokens import Tokens
from drex_jax.explain.occlusion import Occlusion
from drex_jax.models.drex import counters
from drex_jax.models.drex.counters import History
from drex_jax.models.drex.model import DReX
from drex_jax.models.drex.replay import Replay
from drex_jax.models.entry import Updates
from drex_jax.models.pairwise import Pairwise, TrainPairs, final_rows
from drex_jax.models.protocol import Params, States
from drex_jax.models.registry import entry_of, updatable
from drex_jax.runs import checkpoint
from drex_jax.runs.dataset import open_interactions, open_tokens, open_vocabulary
from drex_jax.serving.finished_run import FinishedRun
from drex_jax.serving.interaction_log import Appended, InteractionLog
from drex_jax.text.bert.pieces import WordPieces
from drex_jax.text.vocabulary import Vocabulary

Contents = tuple[tuple[str, ...], np.ndarray, np.ndarray]


class Updater(abc.ABC):
    """A finished run that learns from interactions after training, and what it can say of their influence.

    Attributes:
      vocabulary: of the texts that it reads; None: it reads none.
    """

    vocabulary: Vocabulary | WordPieces | None = None

    @property
    @abc.abstractmethod
    def states(self) -> States:
        """All rows now: arrays [U, E] and [I, E] that `advance` may change."""

    @abc.abstractmethod
    def advance(self, new: Appended) -> None:
        """Learn from interactions that were just appended to the log; there is at least one."""

    @abc.abstractmethod
    def fold_in(self, history: Chunk) -> np.ndarray:
        """Return the row [E] of a new user after a history in the order of time; nothing is learned from it."""

    @abc.abstractmethod
    def as_of(self, then: InteractionLog) -> States:
        """Return all rows at an earlier moment, when the interaction log was `then`."""

    def occlusion(self) -> Occlusion | None:
        """Return what answers how single interactions moved a score; None: the model cannot tell."""
        return None

    def contents(self) -> Contents | None:
        """Return modalities, their shares [M, I] in items' content, and the content [I, D]; None: items have none."""
        return None


class CannotUpdateError(UserError):
    """The model learns in training alone."""


def updater_for(run: FinishedRun) -> Updater:
    """Return what applies new interactions to a run.

    Raises:
      CannotUpdateError: its model cannot be updated.
    """
    name = run.settings.model.name
    updates = entry_of(name).updates
    if updates is None:
        *most, last = updatable()
        raise CannotUpdateError(
            f"a run of the model {name} cannot be updated: its rows come from training alone (those of "
            f"{', '.join(most)} and {last} can)"
        )
    return UPDATERS[updates](run)


class StateUpdater(Updater):
    """Interactions refine the states of their users and items, exactly as in training (DReX)."""

    def __init__(self, run: FinishedRun):
        self._model = cast(DReX, run.model)
        self._params, self._log = run.params, run.log
        self._folder, self._settings = run.folder, run.settings
        self.vocabulary, self._max_tokens = open_vocabulary(run.settings, run.folder), run.settings.text.max_tokens
        log = run.log
        self._scales = {n: scale(v, log.num_train) for n, v in log.base.vectors.items()}
        start = History.start(len(log.users), len(log.items))
        _, past = counters.advance(self.events(log, encoded=False), start, self._model.options.bias)
        self._replay = Replay(self._model, run.params, run.states, past)

    @property
    def states(self) -> States:
        """NumPy arrays that the next `advance` changes."""
        return self._replay.states

    def advance(self, new: Appended) -> None:
        """Refine the states of the users and items of new interactions."""
        log = self._log
        self._replay.advance(self._events_of(new.rows, new.user, new.item, len(log.users), len(log.items)))

    def fold_in(self, history: Chunk) -> np.ndarray:
        """Return a new user's row after a history, which also refines copies of the items' states."""
        items = self._log.items
        known = np.unique([number for name in history.item if (number := items.number(name)) >= 0]).astype(np.int64)
        local = {items.name(number): place for place, number in enumerate(known.tolist())}
        item = np.array([local.setdefault(name, len(local)) for name in history.item], np.int32)
        part = self._replay.part(np.zeros(0, np.int64), known)
        part.advance(self._events_of(history, np.zeros(len(item), np.int32), item, 1, len(local)))
        return part.states.user[0]  # pyright: ignore[reportReturnType] (NumPy's)

    def as_of(self, then: InteractionLog) -> States:
        """Replay from the first interaction on."""
        past = History.start(len(then.users), len(then.items))
        auxiliary = counters.tables(past, self._model.options.bias)
        rows = (self._model.rows(self._params, side, known) for side, known in zip(Side, auxiliary, strict=True))
        replay = self._replay.restarted(States(*rows), past)
        replay.advance(self.events(then))
        return replay.states

    def occlusion(self) -> Occlusion:
        """Return what replays the log without some of it."""
        return Occlusion(self._model, self._params, self.events(self._log))

    def events(self, log: InteractionLog, encoded: bool = True) -> Events:
        """Return all rows of a log as the model reads them; without texts and vectors where `encoded` is false."""
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
        """Return the tokens of all texts of a log; those of the run's own data are already encoded."""
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


class PairUpdater(Updater):
    """New interactions join the train pairs, of which graphs and profiles are made; parameters stay.

    Newcomers have no trained parameters and new items no features (our choices; `Pairwise.grown`). Rows are computed
    when they are next asked for.
    """

    def __init__(self, run: FinishedRun):
        entry = entry_of(run.settings.model.name)
        self._kind: type[Pairwise] = entry.load()
        self._groups, self._params, self._log = entry.groups_of(run.settings), run.params, run.log
        self._known = cast(Pairwise, run.model).sizes
        self._rows: States | None = None

    @property
    def states(self) -> States:
        """All rows by the pairs of train and all that came since."""
        if self._rows is None:
            self._rows = self._rows_of(self._pairs(self._log))
        return self._rows

    def advance(self, new: Appended) -> None:
        """Forget the rows, which are computed again when they are next asked for."""
        self._rows = None

    def fold_in(self, history: Chunk) -> np.ndarray:
        """Return the row of a new user in a graph that has its history; unknown items are left out."""
        known = [number for name in history.item if (number := self._log.items.number(name)) >= 0]
        return np.asarray(self._rows_of(self._pairs(self._log, known)).user[-1])

    def contents(self) -> Contents | None:
        """Return the shares of modalities, of models whose items have refined content (CRANE)."""
        model, constants, params = self._grown(self._pairs(self._log))
        found = model.modality_shares(params, constants)
        if found is None:
            return None
        shares, content = map(np.asarray, found)
        return tuple(sorted(self._log.base.item_vectors)), shares, content

    def as_of(self, then: InteractionLog) -> States:
        """Return the rows by all train pairs and those later ones that were there then."""
        return self._rows_of(self._pairs(then))

    def _pairs(self, log: InteractionLog, newcomer: Sequence[int] | None = None) -> TrainPairs:
        """Return the train pairs, those `log` has added, and, if given, those of one more user with these items."""
        train, begun, base = self._log.num_train, len(log.base), self._log.base
        num_users, num_items, more = len(log.users), len(log.items), [] if newcomer is None else list(newcomer)
        user = np.concatenate([base.user[:train], log.user[begun:], np.full(len(more), num_users, np.int64)])
        item = np.concatenate([base.item[:train], log.item[begun:], np.array(more, np.int64)])
        missing = ((0, num_items - base.num_items), (0, 0))
        features = {name: np.pad(values, missing, constant_values=np.nan) for name, values in base.item_vectors.items()}
        return TrainPairs.of(user, item, num_users + (newcomer is not None), num_items, features)

    def _rows_of(self, pairs: TrainPairs) -> States:
        model, constants, params = self._grown(pairs)
        return final_rows(model, params, constants)

    def _grown(self, pairs: TrainPairs) -> tuple[Pairwise, Any, Params]:
        """Return the model, its constants and its parameters for more pairs than those of training."""
        model, constants = self._kind.over(pairs, *self._groups)
        params = checkpoint.in_form(self._params, jax.eval_shape(model.init, jax.random.key(0)))
        return model, jax.tree.map(np.asarray, constants), model.grown(params, self._known)


class CountUpdater(Updater):
    """An item's row is the number of its interactions (popularity)."""

    def __init__(self, run: FinishedRun):
        self._user, self._item = (np.array(side) for side in run.states)

    @property
    def states(self) -> States:
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
        """Return the counts of that moment."""
        counts = np.bincount(then.item, minlength=len(self._item)).astype(np.float32)
        return States(self._user, counts[:, None])  # pyright: ignore[reportArgumentType] (NumPy's serve)


UPDATERS: dict[Updates, Callable[[FinishedRun], Updater]] = {
    Updates.STATES: StateUpdater,
    Updates.PAIRS: PairUpdater,
    Updates.COUNTS: CountUpdater,
}
