"""Measure PyTorch on the same recurrence, as fast as we could make it without writing a gradient by hand.

The equations are those of `drex_jax.models.drex.recurrence`, with both cells reading both states. Loss and update are
those of tools/benchmarks/kernels.py. Features are projected by one learned matrix and a bias; start states are learned.
The loss is the mean square of the states before every interaction, plus the mean square of the last tables. There is
one Adam update a window. PyTorch's own autograd computes the gradients. Input projections are hoisted, a batch takes
one fused product (`addmm` onto its projected features), and batches are prepared outside the timing. A t-batch is a
level of the dependency graph, as in JODIE (Kumar et al., KDD 2019).

* `sequential`: one interaction at a time; states are kept as a list of rows, so that no table is ever copied.
* `t_batch_table`: t-batches over tables of all users and items, replaced out of place, as in a first implementation.
* `t_batch_compact`: only the rows of a window's users and items are gathered into its table, and replaced in place.

The latter two cut the gradient between windows of 1,000 interactions. Without the cut, the whole tables of 100,000
interactions took 17 GB and were no faster.

PyTorch is not a dependency of the package: it is imported only when this benchmark runs.

Letters: N interactions, D state size, F feature size, R table rows (users, then items), B interactions of a batch.
"""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import numpy as np

from drex_jax.common.cores import available_cores
from tools.benchmarks import levels, timing, torch_module
from tools.benchmarks.streams import Stream
from tools.benchmarks.table import Case, Row

SAMPLE = 5_000  # interactions of `sequential`
WINDOW = 1_000  # interactions between updates of the t-batches
AT_ITS_BEST = 11_000  # interactions a second that t_batch_compact trains on: default stream, two quiet cores
TRIAL = 2_000  # interactions of the trial that chooses the number of threads
LEARNING_RATE = 1e-3

Tensor = Any  # torch is imported only when needed, so its types cannot be named
# Parameters: features [F, 6D] and bias [6D], columns: the user's r, z, n, then the item's; user_own, user_partner,
# item_own and item_partner [D, 3D], columns r, z, n; start [2, D], the user's and the item's.
Params = dict[str, Tensor]


class _Window(NamedTuple):
    """A stretch of n interactions of the stream, in the order of their batches.

    Attributes:
      touched: int64 [r], the rows of the table that the window reads and writes.
      side: int64 [r], 0 for a user, 1 for an item.
      fresh: bool [r, 1], True for rows that no earlier window has: they begin with the learned start state.
      features: float32 [n, F].
      sizes: number of interactions of each batch.
      rows: for each batch int64 [2B], indices into `touched`: the user and the item of each interaction.
    """

    touched: Tensor
    side: Tensor
    fresh: Tensor
    features: Tensor
    sizes: list[int]
    rows: tuple[Tensor, ...]


def rows(case: Case) -> tuple[list[Row], list[str]]:
    """Return the three rows, and notes for the reader as lines.

    Raises:
      UserError: PyTorch is not installed.
    """
    torch = torch_module.load()
    sample, everything = case.stream.head(SAMPLE), case.stream
    found: list[Row] = []
    lines = [f"peer: PyTorch {torch.__version__} on the CPU, each row with 1 thread or one a core, whichever is faster"]
    for name, stream in (("sequential", sample), ("t_batch_table", everything), ("t_batch_compact", everything)):
        _set_threads(name, stream.head(TRIAL), case)
        found.append(_row(name, stream, case))
    reached = found[-1].train
    if reached is not None and reached.median < AT_ITS_BEST:
        lines.append(
            f"the peer is not at its best: t_batch_compact trains on {reached.median:,.0f} interactions/s here, and on "
            f"{AT_ITS_BEST:,} or more of the default stream on 2 quiet cores (load now {os.getloadavg()[0]:.1f})"
        )
    return found, lines


class Peer:
    """One way to run a stream through the recurrence with PyTorch.

    Args:
      name: `sequential`, `t_batch_table` or `t_batch_compact`.
      stream: N interactions.
      case: sizes and features; the first N features belong to the stream.

    Attributes:
      windows: the windows; after each the parameters are updated, and the gradient is cut.
      order: for each window int64 [n], its interactions in the order of their batches.
    """

    def __init__(self, name: str, stream: Stream, case: Case) -> None:
        window = len(stream) if name == "sequential" else WINDOW
        batched, compact = name != "sequential", name != "t_batch_table"
        self._run = {"sequential": _one_by_one, "t_batch_table": _whole_table, "t_batch_compact": _in_place}[name]
        self.torch = torch_module.load()
        self.size = case.state_size
        self._users = stream.num_users
        self._rows = stream.num_users + stream.num_items
        features = case.features()
        met = np.zeros(self._rows, bool)
        self.order: list[np.ndarray] = []
        self.windows: list[_Window] = []
        for begin in range(0, len(stream), window):
            part = slice(begin, begin + window)
            user, item = stream.user[part], stream.item[part].astype(np.int64) + stream.num_users
            level = levels.levels(user, stream.item[part]) if batched else np.arange(len(user))
            order = np.argsort(level, kind="stable")
            sizes = np.bincount(level)
            pairs = np.stack([user, item], axis=1)[order]  # [n, 2]
            touched = np.unique(pairs) if compact else np.arange(self._rows)
            places = self.torch.from_numpy(np.searchsorted(touched, pairs).reshape(-1))
            self.order.append(begin + order)
            self.windows.append(
                _Window(
                    touched=self.torch.from_numpy(touched),
                    side=self.torch.from_numpy((touched >= stream.num_users).astype(np.int64)),
                    fresh=self.torch.from_numpy(~met[touched, None]),
                    features=self.torch.from_numpy(features[part][order]),
                    sizes=sizes.tolist(),
                    rows=places.split((2 * sizes).tolist()),
                )
            )
            met[touched] = True

    @property
    def steps(self) -> int:
        """Return the number of batches of all windows, which run one after the other."""
        return sum(len(window.sizes) for window in self.windows)

    def beginning(self, case: Case) -> tuple[Params, Any]:
        """Return the initial parameters and their optimizer."""
        params = self.params(initial(case.state_size, case.feature_size))
        return params, self.torch.optim.Adam(params.values(), lr=LEARNING_RATE, fused=True)

    def params(self, values: dict[str, np.ndarray]) -> Params:
        """Return trainable copies of arrays."""
        return {name: self.torch.tensor(array, requires_grad=True) for name, array in values.items()}

    def forward(self, params: Params) -> tuple[Tensor, list[Tensor]]:
        """Return the table after the stream [R, D], and for each window the states before each interaction [2n, D].

        No gradient is recorded.
        """
        with self.torch.inference_mode():
            table, before = self._start(params), []
            for window in self.windows:
                after, seen = self._window(params, table, window)
                table[window.touched] = after
                before.append(seen)
        return table, before

    def train(self, params: Params, optimizer: Any) -> float:
        """Run one epoch, with one update for each window. Returns the sum of the windows' losses."""
        table, total = self._start(params), self.torch.zeros(())
        for window in self.windows:
            after, before = self._window(params, table, window)
            loss = before.square().mean() + after.square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            table[window.touched] = after.detach()
            total += loss.detach()
        return float(total)

    def _start(self, params: Params) -> Tensor:
        users, items = params["start"].detach().unsqueeze(1)
        return self.torch.cat([users.expand(self._users, -1), items.expand(self._rows - self._users, -1)])

    def _window(self, params: Params, table: Tensor, window: _Window) -> tuple[Tensor, Tensor]:
        torch, size = self.torch, self.size
        projection, bias = (
            torch.nn.functional.pad(params[name].view(-1, 2, 3 * size), (0, size)).view(-1, 8 * size)
            for name in ("features", "bias")
        )
        started = torch.nn.functional.embedding(window.side, params["start"])
        states = torch.where(window.fresh, started, table[window.touched])
        return self._run(_fused(torch, params), states, bias.addmm(window.features, projection), window)


def initial(state_size: int, feature_size: int) -> dict[str, np.ndarray]:
    """Return initial parameters: float32, uniform within 1 / sqrt(D), like those of PyTorch's own cells."""
    rng = np.random.default_rng(2)
    cells = ("user_own", "user_partner", "item_own", "item_partner")
    shapes = {"features": (feature_size, 6 * state_size), "bias": (6 * state_size,), "start": (2, state_size)}
    shapes |= dict.fromkeys(cells, (state_size, 3 * state_size))
    return {name: (rng.uniform(-1, 1, shape) / state_size**0.5).astype(np.float32) for name, shape in shapes.items()}


def _row(name: str, stream: Stream, case: Case) -> Row:
    peer = Peer(name, stream, case)
    params, optimizer = peer.beginning(case)
    return Row(
        implementation=name,
        framework="torch",
        dtype="float32",
        exact=True,
        bptt_windows=len(peer.windows),
        interactions=len(stream),
        depth=levels.depth(stream.user, stream.item),
        steps=peer.steps,
        forward=timing.measure(lambda: peer.forward(params), len(stream), case.repeats),
        train=timing.measure(lambda: peer.train(params, optimizer), len(stream), case.repeats),
    )


def _set_threads(name: str, stream: Stream, case: Case) -> None:
    """Use one thread for each core, or a single thread if that is faster, as it can be on a busy machine."""
    peer = Peer(name, stream, case)
    params, optimizer = peer.beginning(case)
    rates: dict[int, float] = {}
    for threads in (1, available_cores()):
        peer.torch.set_num_threads(threads)
        rates[threads] = timing.measure(
            lambda: peer.train(params, optimizer), len(stream), timing.ENOUGH_REPEATS
        ).highest
    peer.torch.set_num_threads(max(rates, key=lambda threads: rates[threads]))


def _fused(torch: Any, params: Params) -> Tensor:
    """Return the fused weights of both cells [2D, 8D], for states [u, i].

    Columns of each cell, the user's first: r, z, partner's part of n, own part of n.
    """
    size = params["start"].shape[1]
    zero = torch.zeros(size, size)

    def columns(side: str) -> tuple[Tensor, Tensor]:
        own, partner = params[f"{side}_own"], params[f"{side}_partner"]
        return torch.cat([own[:, : 2 * size], zero, own[:, 2 * size :]], 1), torch.cat([partner, zero], 1)

    (user_own, user_partner), (item_own, item_partner) = columns("user"), columns("item")
    return torch.cat([torch.cat([user_own, item_partner], 1), torch.cat([user_partner, item_own], 1)], 0)


def _step(weights: Tensor, states: Tensor, inputs: Tensor) -> Tensor:
    """Return the new states [2B, D] of a batch from its states [2B, D] and inputs [B, 8D].

    The expression has the fewest autograd nodes that we found.
    """
    size = states.shape[1]
    products = inputs.addmm(states.view(-1, 2 * size), weights).view(-1, 4 * size)
    gates, partner, own = products.split([2 * size, size, size], 1)
    r, z = gates.sigmoid().chunk(2, 1)
    n = partner.addcmul(r, own).tanh_()
    return n.lerp(states, z)


def _one_by_one(weights: Tensor, table: Tensor, inputs: Tensor, window: _Window) -> tuple[Tensor, Tensor]:
    torch = torch_module.load()
    states, before = list(table.split(1)), []
    for projected, (user, item) in zip(inputs.split(1), (r.tolist() for r in window.rows), strict=True):
        pair = torch.cat([states[user], states[item]])
        before.append(pair)
        states[user], states[item] = _step(weights, pair, projected).split(1)
    return torch.cat(states), torch.cat(before)


def _whole_table(weights: Tensor, table: Tensor, inputs: Tensor, window: _Window) -> tuple[Tensor, Tensor]:
    before = []
    for projected, rows in zip(inputs.split(window.sizes), window.rows, strict=True):
        states = table[rows]
        before.append(states)
        table = table.index_put((rows,), _step(weights, states, projected))
    return table, torch_module.load().cat(before)


def _in_place(weights: Tensor, table: Tensor, inputs: Tensor, window: _Window) -> tuple[Tensor, Tensor]:
    before = []
    for projected, rows in zip(inputs.split(window.sizes), window.rows, strict=True):
        states = table.index_select(0, rows)
        before.append(states)
        table.index_copy_(0, rows, _step(weights, states, projected))
    return table, torch_module.load().cat(before)
