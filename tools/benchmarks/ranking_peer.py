"""Train LightGCN and FREEDOM with PyTorch for the same epochs, as fast as we could make it without custom kernels.

Each update does the work of the public implementations: it multiplies the whole graph with all embeddings, takes a
batch of train interactions with one uniform negative each (drawn again while it is in train), computes the BPR loss,
and makes one Adam update of all parameters, which are dense.

* LightGCN (He et al., SIGIR 2020): the mean of the embeddings and of each layer's product with the symmetrically
  normalised graph; L2 on the batch's own embeddings.
* FREEDOM (Zhou and Shen, MM 2023): each epoch keeps a sample of the interactions, drawn without replacement by the
  weights of their edges, and normalises it again. LightGCN's mean is taken on the sample. Items add their product with
  a frozen graph of the nearest neighbours by features. Users are also compared with projected features; the projections
  and the features are trained as well.

Three optimisations save time and change no number: only the features of a batch's items are projected; means are taken
only of a batch's rows, which are gathered at once; Adam is PyTorch's fused one.

There are three ways to multiply a sparse matrix (`LAYOUTS`):

* `coo`: `torch.sparse.mm` and PyTorch's own gradient of it, as in the public code;
* `coo_transposed`: the transposed matrix is made once and the gradient is a product with it;
* `csr`: the same in compressed rows. (PyTorch's own gradient transposes at every call, which is many times slower.)

PyTorch is not a dependency of the package: it is imported only when this benchmark runs.

Letters: n interactions, b interactions of a batch, U users, I items, D embedding size, F feature width, k neighbours,
M modalities.
"""

from __future__ import annotations

import dataclasses
import itertools
import warnings
from typing import Any, NamedTuple

import numpy as np

from drex_jax.common.errors import UserError
from tools.benchmarks import torch_module

LAYOUTS = ("coo", "coo_transposed", "csr")
MODELS = ("lightgcn", "freedom")
SPREAD = 1e-2  # standard deviation of the initial embeddings
BLOCK = 2048  # items whose similarities to all others are in memory at once

Tensor = Any  # torch is imported only when needed, so its types cannot be named


class Train(NamedTuple):
    """The training data of a model.

    Attributes:
      user, item: int64 [n], each pair once.
      num_users: U.
      num_items: I.
      features: float32 [I, F] for each modality.
    """

    user: np.ndarray
    item: np.ndarray
    num_users: int
    num_items: int
    features: tuple[np.ndarray, ...] = ()


@dataclasses.dataclass(frozen=True)
class PeerOptions:
    """The constants of both models; the configuration's `ranker` has the same fields."""

    size: int = 64
    batch_size: int = 2048
    layers: int = 2
    l2: float = 1e-4
    learning_rate: float = 1e-3
    neighbours: int = 10
    edge_dropout: float = 0.8
    feature_weight: float = 1e-3
    first_modality: float = 0.1


class Matrix:
    """A sparse matrix, for products with dense matrices.

    Args:
      rows, columns, values: int64, int64 and float32 tensors of the entries; values of one (row, column) are added.
      shape: shape of the matrix.
      layout: one of `LAYOUTS`.
      symmetric: True if the matrix equals its transpose.
    """

    def __init__(
        self, rows: Tensor, columns: Tensor, values: Tensor, shape: tuple[int, int], layout: str, symmetric: bool
    ) -> None:
        torch = torch_module.load()

        def held(first: Tensor, second: Tensor, shape: tuple[int, ...]) -> Tensor:
            place = torch.stack([first, second])
            matrix = torch.sparse_coo_tensor(place, values, shape, check_invariants=False).coalesce()
            if layout != "csr":
                return matrix
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta", UserWarning)
                return matrix.to_sparse_csr()

        self._matrix = held(rows, columns, shape)
        self._product = torch.sparse.mm
        if layout != "coo":
            backward = self._matrix if symmetric else held(columns, rows, shape[::-1])
            self._product = _product_with_gradient(torch, backward)

    def __matmul__(self, dense: Tensor) -> Tensor:
        return self._product(self._matrix, dense)


def _product_with_gradient(torch: Any, transposed: Tensor) -> Any:
    """Return a sparse product whose gradient is a product with the given transposed matrix."""

    class Product(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, matrix: Tensor, dense: Tensor) -> Tensor:
            return torch.sparse.mm(matrix, dense)

        @staticmethod
        def backward(ctx: Any, *gradients: Tensor) -> tuple[None, Tensor]:
            return None, torch.sparse.mm(transposed, gradients[0])

    return Product.apply


class Peer:
    """LightGCN or FREEDOM in training.

    Args:
      name: `lightgcn` or `freedom`.
      data: the training data.
      options: constants of the model.
      layout: one of `LAYOUTS`.
      seed: seed of all random draws.

    Attributes:
      params: tensors by name: `table` [U + I, D]; for FREEDOM also `features0` [I, F], `weight0` [F, D] and so on
        (a bias would cancel in every difference of scores).

    Raises:
      UserError: PyTorch is not installed; FREEDOM has no features; or a user has every item in train, and so no
        negative.
    """

    def __init__(self, name: str, data: Train, options: PeerOptions, layout: str, seed: int = 0) -> None:
        torch = torch_module.load()
        self.torch, self.name, self.data, self.options, self._layout = torch, name, data, options, layout
        if name == "freedom" and not data.features:
            raise UserError("freedom needs item features, and the data set has none")
        if np.bincount(data.user, minlength=1).max() >= data.num_items:
            raise UserError("a user has every item in train, so that there is no negative for them")
        self._random = torch.Generator().manual_seed(seed)
        self._user, self._item = torch.from_numpy(data.user), torch.from_numpy(data.item)
        self._pairs = (self._user * data.num_items + self._item).sort().values
        rows = data.num_users + data.num_items
        self.params: dict[str, Tensor] = {
            "table": SPREAD * torch.randn(rows, options.size, generator=self._random),
        }
        self._edges = self._normalised(self._user, self._item)
        if name == "freedom":
            for number, features in enumerate(data.features):
                width = features.shape[1]
                spread = (6 / (width + options.size)) ** 0.5  # Glorot initialisation
                weight = spread * (2 * torch.rand(width, options.size, generator=self._random) - 1)
                self.params |= {
                    f"features{number}": torch.tensor(features),
                    f"weight{number}": weight,
                }
            self.items = Matrix(*_neighbour_graph(torch, data.features, options), layout, symmetric=False)
        else:
            self.graph = self._bipartite(self._user, self._item, self._edges)
        for tensor in self.params.values():
            tensor.requires_grad_(True)
        self.optimizer = torch.optim.Adam(self.params.values(), lr=options.learning_rate, fused=True)

    @property
    def updates(self) -> int:
        """Return the number of updates of an epoch."""
        return -(-len(self.data.user) // self.options.batch_size)

    def epoch(self, limit: int | None = None) -> float:
        """Run one epoch, or its first `limit` updates. Return the mean of their losses."""
        self.begin_epoch()
        torch, total, done = self.torch, self.torch.zeros(()), 0
        order = torch.randperm(len(self._user), generator=self._random)
        users, items = self._user[order], self._item[order]
        negatives = self.negatives(users)
        batches = zip(*(column.split(self.options.batch_size) for column in (users, items, negatives)), strict=True)
        for batch in itertools.islice(batches, limit):
            loss = self.loss(*batch)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            total += loss.detach()
            done += 1
        return float(total) / done

    def begin_epoch(self) -> None:
        """Sample the interactions of FREEDOM's graph for an epoch."""
        if self.name == "freedom":
            kept = int(len(self._user) * (1 - self.options.edge_dropout))
            chosen = self.torch.multinomial(self._edges, kept, generator=self._random)
            user, item = self._user[chosen], self._item[chosen]
            self.graph = self._bipartite(user, item, self._normalised(user, item))

    def negatives(self, users: Tensor) -> Tensor:
        """Draw an item for each user that is not in the user's train part, int64 [n]."""
        torch, items = self.torch, self.data.num_items
        found = torch.randint(items, users.shape, generator=self._random)
        again = torch.arange(len(users))
        while len(again):
            pairs = users[again] * items + found[again]
            place = torch.searchsorted(self._pairs, pairs).clamp_(max=len(self._pairs) - 1)
            again = again[self._pairs[place] == pairs]
            found[again] = torch.randint(items, again.shape, generator=self._random)
        return found

    def loss(self, users: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
        """Return the loss of a batch; each argument is int64 [b]."""
        torch, params, options = self.torch, self.params, self.options
        items = torch.cat([positives, negatives])
        rows = torch.cat([users, items + self.data.num_users])
        final = self._sums().index_select(0, rows) / (options.layers + 1)
        user, item = final.split([len(users), len(items)])
        if self.name == "lightgcn":
            own = params["table"].index_select(0, rows)
            return _bpr(torch, user, item) + options.l2 * own.square().sum() / len(users)
        item = item + (self.items @ params["table"][self.data.num_users :]).index_select(0, items)
        loss = _bpr(torch, user, item)
        for number in range(len(self.data.features)):
            projected = params[f"features{number}"].index_select(0, items) @ params[f"weight{number}"]
            loss = loss + options.feature_weight * _bpr(torch, user, projected)
        return loss

    def tables(self) -> tuple[Tensor, Tensor]:
        """Return (users [U, D], items [I, D]), whose products rank the items, on the current graph."""
        with self.torch.inference_mode():
            final = self._sums() / (self.options.layers + 1)
            users, items = final.split([self.data.num_users, self.data.num_items])
            if self.name == "freedom":
                items = items + self.items @ self.params["table"][self.data.num_users :]
        return users, items

    def _sums(self) -> Tensor:
        """Return the sum of the embeddings and of each layer, [U + I, D]."""
        total = layer = self.params["table"]
        for _ in range(self.options.layers):
            layer = self.graph @ layer
            total = total + layer
        return total

    def _normalised(self, user: Tensor, item: Tensor) -> Tensor:
        """Return 1 / sqrt(degree of the user * degree of the item) of each edge, float32 [n]."""
        of_users, of_items = (each.bincount().to(self.torch.float32) for each in (user, item))
        return (of_users[user] * of_items[item]).rsqrt()

    def _bipartite(self, user: Tensor, item: Tensor, values: Tensor) -> Matrix:
        users, items = user, item + self.data.num_users
        both = self.torch.cat([users, items]), self.torch.cat([items, users]), self.torch.cat([values, values])
        rows = self.data.num_users + self.data.num_items
        return Matrix(*both, (rows, rows), self._layout, symmetric=True)


def _bpr(torch: Any, user: Tensor, items: Tensor) -> Tensor:
    """Return the mean of -log sigmoid(positive - negative); `user` [b, D], `items` [2b, D], positives first."""
    positive, negative = items.view(2, *user.shape)
    return torch.nn.functional.softplus((user * (negative - positive)).sum(1)).mean()


def _neighbour_graph(
    torch: Any, features: tuple[np.ndarray, ...], options: PeerOptions
) -> tuple[Tensor, Tensor, Tensor, tuple[int, int]]:
    """Return the rows, columns and values [M I k] of the graph of items, and its shape.

    The graph is the weighted sum of the modalities' graphs. In each, an item's neighbours are the k items of highest
    cosine, itself included, each with weight 1 / k.
    """
    count = len(features[0])
    neighbours = min(options.neighbours, count)
    first = options.first_modality if len(features) > 1 else 1.0
    weights = [first, *[(1 - first) / max(len(features) - 1, 1)] * (len(features) - 1)]
    columns, values = [], []
    for each, weight in zip(features, weights, strict=True):
        rows = torch.nn.functional.normalize(torch.from_numpy(each))
        found = [(block @ rows.T).topk(neighbours).indices for block in rows.split(BLOCK)]
        columns.append(torch.cat(found).view(-1))
        values.append(torch.full((count * neighbours,), weight / neighbours))
    row = torch.arange(count).repeat_interleave(neighbours).repeat(len(features))
    return row, torch.cat(columns), torch.cat(values), (count, count)
