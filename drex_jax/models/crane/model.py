"""CRANE as we build it from the paper's abstract and figure; docs/faithfulness.md separates its choices from ours.

Each user and item has two views. The behaviour view averages embeddings that are propagated over the user-item graph.
The content view of an item is its modalities, refined by recursive cross-modal attention and propagated over a graph of
the most similar items. The content view of a user starts from the mean content of the items that it liked, and is
refined in the same way with separate weights. A score is the inner product of the sums of both views. The loss is BPR,
a contrastive loss between the views, and L2.

The profile of a user contains the items that training scores for this user. A model that recognises an item by its
features can therefore memorise the item from the profile instead of generalising to new items. So in training the
profile of each pair leaves the pair's own item out (our choice; docs/results.md gives the effect).

Letters: U users, I items, M modalities, F features of a modality, D row size, B pairs of a batch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np

from drex_jax.devices.axis import Axis
from drex_jax.models import losses
from drex_jax.models.crane import attention
from drex_jax.models.crane.settings import CraneSettings
from drex_jax.models.graph.item_item import item_features
from drex_jax.models.graph.neighbours import nearest
from drex_jax.models.graph.propagation import Graph, directed, incidence, propagate
from drex_jax.models.graph.user_item import Behaviour, BehaviourGraph, averaged, embeddings, grown_table
from drex_jax.models.pairwise import Pairs, Pairwise, Rows, TableSizes, TrainPairs
from drex_jax.models.protocol import Params
from drex_jax.models.settings import RankerSettings


class Profiles(NamedTuple):
    """The items that users liked.

    Attributes:
      items: the matrix [U, I] of the train pairs; its product with a table sums the rows of the items that users liked.
      count: float32 [M, U], for each modality the number of liked items that have it.
    """

    items: Graph
    count: Any


class Constants(NamedTuple):
    """The arrays that never change.

    Attributes:
      behaviour: the graph of users and items.
      features: standardised features by modality, float32 [I, F]; zeros where an item lacks the modality.
      present: bool [M, I], true where an item has a modality.
      profiles: the profiles of all users; None if the variant uses none.
      semantic: the graph of items by their features; None if it is built from refined content, or not used.
    """

    behaviour: Behaviour
    features: Sequence[Any]
    present: Any
    profiles: Profiles | None
    semantic: Graph | None


class Graphs(NamedTuple):
    """The graphs of an epoch.

    Attributes:
      behaviour: the result of `BehaviourGraph.of_epoch`.
      semantic: the graph of items by refined content; () if it is not used or is a constant.
    """

    behaviour: Any
    semantic: Any


@dataclasses.dataclass(frozen=True)
class Crane(Pairwise):
    """The `paper` variant.

    Attributes:
      crane: the settings of CRANE.
      graph: the graph of users and items.
      widths: F of each modality.
    """

    settings: RankerSettings
    crane: CraneSettings
    graph: BehaviourGraph
    widths: tuple[int, ...]

    @classmethod
    def over(cls, pairs: TrainPairs, *groups: Any) -> tuple[Self, Constants]:
        """Return the model and its constants. Raises `UserError` if the data have no item features."""
        settings, crane = groups
        raw = item_features(pairs.features, "CRANE")
        features = [_standardised(values, there) for values, there in zip(raw.values, raw.present, strict=True)]
        graph, behaviour = BehaviourGraph.over(pairs, settings.edge_dropout)
        semantic = None
        if crane.semantic_graph and not crane.graph_epochs:
            both = np.concatenate(features, axis=1)
            semantic = jax.jit(item_graph, static_argnums=2)(both, raw.present.any(0), settings.neighbours)
        profiles = None
        if crane.user_profiles:
            profiles = _profiles(pairs.user, pairs.item, pairs.num_users, raw.present)
        widths = tuple(values.shape[1] for values in features)
        model = cls(settings, TableSizes.of(pairs), crane, graph, widths)
        return model, Constants(behaviour, features, raw.present, profiles, semantic)

    def init(self, key: jax.Array) -> Params:
        """Return the embeddings `table` [U + I, D]; `project`, [F, D] by modality; the rounds `item` and `user`."""
        keys = jax.random.split(key, 4)
        widths, size, rounds = self.widths, self.settings.size, self.crane.rounds
        each = zip(jax.random.split(keys[1], len(widths)), widths, strict=True)
        params = {
            "table": embeddings(keys[0], self.sizes.users, self.sizes.items, size),
            "project": [jax.random.normal(key, (width, size)) / np.sqrt(width) for key, width in each],
            "item": attention.init_rounds(keys[2], rounds, len(widths), size),
        }
        if self.crane.user_profiles:
            params["user"] = attention.init_rounds(keys[3], rounds, len(widths), size)
        return params

    def projected(self, params: Params, constants: Constants) -> jax.Array:
        """Return the features of items in the common space, standardised: [M, I, D], zeros for missing modalities."""
        each = [values @ weight for values, weight in zip(constants.features, params["project"], strict=True)]
        contents, present = jnp.stack(each), constants.present
        return attention.standardise(contents, present, attention.moments(contents, present))

    def content(self, params: Params, constants: Constants, projected: jax.Array) -> jax.Array:
        """Return the refined content of items, [I, D]."""
        refined = attention.refine(params["item"], projected, constants.present)
        return attention.mean_direction(refined, constants.present)

    def modality_shares(self, params: Params, constants: Constants) -> tuple[jax.Array, jax.Array]:
        """Return the share of each modality in the content of items, and the content.

        Returns:
          Shares, [M, I]: the inner product of a modality's refined content with the direction of the item, scaled to
          sum 1 if the item has any modality (a modality that points away is negative). The content, [I, D].
        """
        refined = attention.refine(params["item"], self.projected(params, constants), constants.present)
        content = attention.mean_direction(refined, constants.present)
        parts = (refined * content).sum(2)
        total = parts.sum(0)
        return jnp.where(total > 0, parts / jnp.where(total > 0, total, 1.0), 0.0), content

    def user_content(
        self, params: Params, total: jax.Array, count: jax.Array, counted: jax.Array | None = None
    ) -> jax.Array:
        """Return the refined content of users, [n, D].

        Args:
          params: the model's parameters.
          total: [M, n, D], sums of the projected features of the items that users liked.
          count: [M, n], for each modality the number of these items that have it.
          counted: bool [n], the users over which correlations are taken; None: all.
        """
        liked = count > 0
        mean = jnp.where(liked[:, :, None], total / jnp.maximum(count, 1)[:, :, None], 0.0)
        return attention.mean_direction(attention.refine(params["user"], mean, liked, counted), liked)

    def semantic(self, constants: Constants, carry: Graphs, content: jax.Array) -> jax.Array:
        """Return the content of items in the semantic view, [I, D]: the content of their neighbours."""
        if not self.crane.semantic_graph:
            return content
        return propagate(constants.semantic if constants.semantic is not None else carry.semantic, content)

    def carried(self, params: Params, constants: Constants, key: jax.Array) -> Graphs:
        """Return the epoch's graph of users and items, and the graph of items by their current content."""
        return Graphs(self.graph.of_epoch(constants.behaviour, key), self.settled(params, constants).semantic)

    def settled(self, params: Params, constants: Constants) -> Graphs:
        """Return the whole graph of users and items, and the graph of items by their content."""
        if not self.crane.semantic_graph or constants.semantic is not None:
            return Graphs((), ())
        content = self.content(params, constants, self.projected(params, constants))
        return Graphs((), item_graph(content, constants.present.any(0), self.settings.neighbours))

    def renews(self, epoch: int) -> bool:
        """Return True if the graph of items is rebuilt in this epoch."""
        return not self.crane.graph_epochs or epoch % self.crane.graph_epochs == 0

    def recarried(self, params: Params, constants: Constants, carry: Graphs, key: jax.Array) -> Graphs:
        """Return a new sample of the graph of users and items, and the unchanged graph of items."""
        return Graphs(self.graph.of_epoch(constants.behaviour, key), carry.semantic)

    def grown(self, params: Params, known: TableSizes) -> dict[str, Any]:
        """Return the parameters with zero embeddings for new users and items: their rows come from neighbours alone."""
        return params | {"table": grown_table(params["table"], known, self.sizes)}

    def all_rows(self, params: Params, constants: Constants, carry: Graphs) -> tuple[jax.Array, jax.Array]:
        """Return the sums of both views of all users and items."""
        table = averaged(constants.behaviour, carry.behaviour, params["table"], self.settings.layers)
        user, item = table[: self.sizes.users], table[self.sizes.users :]
        projected = self.projected(params, constants)
        content = self.content(params, constants, projected)
        if constants.profiles is not None:
            total = _split(propagate(constants.profiles.items, _joined(projected)), len(projected))
            user = user + self.user_content(params, total, constants.profiles.count)
        return user, item + self.semantic(constants, carry, content)

    def rows(
        self, params: Params, constants: Constants, carry: Graphs, pairs: Pairs, key: jax.Array, axis: Axis
    ) -> Rows:
        """Return the sums of both views, and the contrastive loss between them.

        In training, the correlations of users are taken over the distinct users of the batch, because the content of
        other users is not computed.
        """
        table = averaged(constants.behaviour, carry.behaviour, params["table"], self.settings.layers)
        nodes = self.nodes(pairs)
        user, item, negative = (table[node] for node in nodes)
        projected = self.projected(params, constants)
        content = self.content(params, constants, projected)
        semantic = self.semantic(constants, carry, content)
        users, items, valid = (axis.all_gather(each) for each in (pairs.user, pairs.item, pairs.valid))
        contrasts = []
        if self.crane.contrastive_weight:
            known = valid & jnp.any(constants.present, axis=0)[items]
            contrasts.append(self._contrast(item, semantic[items], items, known, axis))
        if constants.profiles is not None:
            total, count = self._profiles_of(constants, projected, users, items)
            distinct = losses.first_occurrences(users, valid)
            user_content = self.user_content(params, total, count, distinct)
            if self.crane.contrastive_weight:
                known = valid & (count > 0).any(0)
                contrasts.append(self._contrast(user, user_content, users, known, axis))
            user = user + axis.shard(user_content)
        contrast = jnp.stack(contrasts).sum() if contrasts else jnp.zeros(())
        return Rows(
            user=user,
            item=item + semantic[pairs.item],
            negative=negative + semantic[pairs.negative],
            penalised=[params["table"][node] for node in nodes],
            loss=self.crane.contrastive_weight * contrast,
            figures={"contrastive_loss": contrast} if contrasts else {},
        )

    def _profiles_of(
        self, constants: Constants, projected: jax.Array, users: jax.Array, items: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Return the projected profiles of the users of pairs [B], without each pair's item.

        Returns:
          Sums of projected features, [M, B, D], and numbers of items, [M, B].
        """
        assert constants.profiles is not None
        joined = _joined(projected)
        total = propagate(constants.profiles.items, joined)[users]
        count = constants.profiles.count[:, users]
        if self.crane.leave_one_out:
            total = total - joined[items]
            count = count - jnp.asarray(constants.present)[:, items]
        return _split(total, len(projected)), count

    def _contrast(
        self, behaviour: jax.Array, content: jax.Array, numbers: jax.Array, valid: jax.Array, axis: Axis
    ) -> jax.Array:
        """Return this device's share of the InfoNCE loss between both views of a batch's distinct users or items.

        The anchors are in the first `anchors` rows of the batch, the candidates in all rows. This estimates the mean
        over all anchors at a part of the cost.

        Args:
          behaviour: [B / devices, D], the behaviour view of this device's rows.
          content: [B, D], the content view of all rows.
          numbers: [B], the numbers of the users or items.
          valid: bool [B], false for padding.
          axis: the devices that share the batch.
        """
        first = losses.first_occurrences(numbers, valid)
        look = first & (jnp.arange(len(first)) < self.crane.anchors)  # the same rows on any number of devices
        rows = slice(-(-self.crane.anchors // axis.size) * axis.size)
        return losses.info_nce(
            axis.shard(axis.all_gather(behaviour)[rows]),
            axis.shard(content[rows]),
            content,
            axis.shard(look[rows]),
            first,
            self.crane.temperature,
            axis,
        )


def _joined(contents: jax.Array) -> jax.Array:
    """Reshape [M, n, D] to [n, M D]."""
    return jnp.concatenate(list(contents), axis=1)


def _split(contents: jax.Array, modalities: int) -> jax.Array:
    """Reshape [n, M D] to [M, n, D]."""
    return jnp.stack(jnp.split(contents, modalities, axis=1))


def item_graph(content: jax.Array, present: jax.Array, neighbours: int) -> Graph:
    """Return the graph that averages each item's nearest items by cosine: `content` [I, D], `present` bool [I]."""
    neighbour, similarity = nearest(content, neighbours, valid=present, include_self=False)
    weight = jnp.isfinite(similarity).astype(jnp.float32)
    return directed(neighbour, weight / jnp.maximum(weight.sum(1, keepdims=True), 1))


def _standardised(values: np.ndarray, present: np.ndarray) -> np.ndarray:
    """Standardise the columns of the present rows (bool [I]); zeros elsewhere. Returns float32 [I, F]."""
    known = values[present]
    known -= known.mean(0, np.float64).astype(np.float32)
    deviation = np.sqrt((known**2).mean(0, np.float64)).astype(np.float32)
    scaled = np.zeros(values.shape, np.float32)
    scaled[present] = known / np.where(deviation > 0, deviation, 1)
    return scaled


def _profiles(user: np.ndarray, item: np.ndarray, num_users: int, present: np.ndarray) -> Profiles:
    """Return the profiles of all users, from the train pairs."""
    counts = [np.bincount(user, there[item], num_users).astype(np.float32) for there in present]
    return Profiles(incidence(user, item, num_users, present.shape[1]), np.stack(counts))
