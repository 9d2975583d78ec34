"""Compare DReX's loss and gradients with a twin that runs one interaction at a time, also with missing data."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from drex_jax.data.events import Events
from drex_jax.models.drex.network import Head, NetworkOptions
from drex_jax.text import encoder as text_encoder

DAY = 86400.0


def dense(p, x):
    return x @ p["kernel"] + p.get("bias", 0.0)


class Twin:
    """The model in its simplest form: dictionaries of states, one interaction at a time, plain autodiff."""

    def __init__(self, model, events: Events):
        self.model, self.events, self.o, self.net = model, events, model.options, model.options.network

    def start(self, params, side, number):
        state = params["network"][f"{side}_start"]
        table = params.get(f"{side}_offset")
        return state if table is None or number >= len(table) else state + table[number]

    def features(self, params, k, gaps, counts, biases):
        o, net, p = self.o, self.net, params["network"]["fusion"]
        values = {}
        rating = (self.events.rating[k] - o.rating_mean) / o.rating_deviation
        if net.rating_modality:
            surprise = rating - sum(biases) / o.rating_deviation
            values["rating"] = np.array([rating, surprise] if net.residual else [rating], np.float32)
        if net.time_modality:
            days = [0.0 if math.isnan(gap) else math.log1p(gap / DAY) / 4 for gap in gaps]
            first = [float(math.isnan(gap)) for gap in gaps]
            values["time"] = np.array([*days, *first, *(math.log1p(count) / 4 for count in counts)], np.float32)
        for name in net.vector_modalities:
            values[name] = self.events.vectors[name][k]
        if net.vocabulary_size:
            tokens = self.events.tokens
            ids = tokens.ids[tokens.offsets[k] : tokens.offsets[k + 1]]
            values["text"] = jnp.full(net.feature_size, jnp.nan)
            if len(ids):
                encoded, _ = text_encoder.encode_chunk(
                    net.text_encoder, params["text"], np.pad(ids, (0, 6 - len(ids)))[None]
                )
                values["text"] = encoded[0]
        if not values:
            values["event"] = np.ones(1, np.float32)
        parts, bits = [], []
        for name in sorted(values):
            absent = bool(np.isnan(jax.lax.stop_gradient(values[name])).any()) if name != "text" else not len(ids)
            encoder = p[f"{name}_encoder"]
            parts.append(p[f"{name}_null"] if absent else jax.nn.gelu(dense(encoder, values[name])))
            bits.append(0.0 if absent else 1.0)
        return jax.nn.gelu(dense(p["fuse"], jnp.concatenate([*parts, jnp.array(bits)])))

    def update(self, params, x, own_state, other_state, side):
        p, size = params["network"]["cells"], self.net.state_size
        own = p[f"{side}_own"]
        partner = p[f"{side}_partner"] if self.net.partner else jnp.zeros_like(own)
        x = (x @ p["features"] + p["bias"]).reshape(3, 2, size)[:, int(side == "item")]
        r = jax.nn.sigmoid(x[0] + own_state @ own[:, :size] + other_state @ partner[:, :size])
        both = slice(size, 2 * size)
        z = jax.nn.sigmoid(x[1] + own_state @ own[:, both] + other_state @ partner[:, both])
        n = jnp.tanh(x[2] + other_state @ partner[:, 2 * size :] + r * (own_state @ own[:, 2 * size :]))
        return z * own_state + (1 - z) * n

    def head(self, params, name, user, item):
        """Return the score of two sides, each (state, bias, count)."""
        p = params["network"][f"{name}_head"]

        def row(side):
            state, bias, count = side
            return jnp.concatenate([state, jnp.array([bias, math.log1p(count)])]) if self.net.residual else state

        u, i = row(user), row(item)
        score = (dense(p["user_bias"], u) + dense(p["item_bias"], i))[0]
        product = dense(p["user_projection"], u) * dense(p["item_projection"], i)
        if self.net.head == "dot":
            return score + product.sum() / math.sqrt(self.net.state_size)
        hidden = dense(p["user_hidden"], u) + dense(p["item_hidden"], i) + dense(p["product_hidden"], product)
        return score + dense(p["out"], jax.nn.gelu(hidden))[0]

    def losses(self, params, begins, batches):
        """Return the loss of each window; no gradient flows into earlier windows."""
        events, o, bias = self.events, self.o, self.o.bias
        state, last, sums, rated, count = {}, {}, {}, {}, {}

        def see(side, number):
            who = side, int(number)
            shrinkage = bias.user_shrinkage if side == "user" else bias.item_shrinkage
            mean = sums[who] / (rated[who] + shrinkage) if rated.get(who) else 0.0
            value = state[who] if who in state else self.start(params, *who)
            return value, mean, count.get(who, 0)

        losses = []
        for begin, end, batch in zip(begins[:-1], begins[1:], batches, strict=True):
            state = {who: jax.lax.stop_gradient(value) for who, value in state.items()}
            errors, softmax, pairs = [], [], []
            for k in range(begin, end):
                user, item = see("user", events.user[k]), see("item", events.item[k])
                if o.rating_weight and not math.isnan(events.rating[k]):
                    base = (user[1] + item[1]) / o.rating_deviation if self.net.residual else 0.0
                    target = (events.rating[k] - o.rating_mean) / o.rating_deviation
                    errors.append((self.head(params, "rating", user, item) + base - target) ** 2)
                if batch.negatives is not None:
                    own = self.head(params, "ranking", user, item)
                    size, scores = len(batch.window.item), []
                    for at, valid in zip(*(column[k - begin] for column in batch.negatives), strict=True):
                        if valid:
                            number = batch.window.item[at] if at < size else at - size
                            scores.append(self.head(params, "ranking", user, see("item", number)))
                    if scores:
                        softmax.append(jax.nn.logsumexp(jnp.stack([own, *scores])) - own)
                        pairs += [-jax.nn.log_sigmoid(own - score) for score in scores]
                sides = ("user", int(events.user[k])), ("item", int(events.item[k]))
                gaps = [max(events.timestamp[k] - last[who], 0) if who in last else math.nan for who in sides]
                biases = [user[1], item[1]]
                x = self.features(params, k, gaps, [user[2], item[2]], biases)
                state[sides[0]] = self.update(params, x, user[0], item[0], "user")
                state[sides[1]] = self.update(params, x, item[0], user[0], "item")
                for who, other in zip(sides, biases[::-1], strict=True):
                    last[who] = events.timestamp[k]
                    count[who] = count.get(who, 0) + 1
                    if not math.isnan(events.rating[k]):
                        sums[who] = sums.get(who, 0.0) + float(events.rating[k]) - bias.mean - other
                        rated[who] = rated.get(who, 0) + 1
            ranking = softmax if o.ranking_loss == "sampled_softmax" else pairs
            total = o.rating_weight * sum(errors) / max(len(errors), 1)
            losses.append(total + o.ranking_weight * sum(ranking) / max(len(ranking), 1))
        return losses


def assert_trees_close(actual, expected, tolerance):
    actual, expected = jax.tree.flatten_with_path(actual)[0], jax.tree.leaves(expected)
    for (path, a), e in zip(actual, expected, strict=True):
        scale = max(1.0, float(np.abs(e).max(initial=0)))
        np.testing.assert_allclose(a, e, rtol=0, atol=tolerance * scale, err_msg=jax.tree_util.keystr(path))


@pytest.mark.parametrize(
    ("windows", "reviewed", "options"),
    [
        (2, 0.3, {"ranking_weight": 0.7, "residual": True}),
        (2, 0.0, {"ranking_weight": 0.7, "residual": True, "ranking_loss": "bpr", "head": "mlp", "width": 2}),
        (1, 0.0, {"ranking_weight": 0.7, "partner": False, "offsets": False, "width": 8}),
    ],
)
def test_loss_and_gradient_against_a_twin(make_events, make_drex, train_losses, windows, reviewed, options):
    """Float32 sums in another order differ by at most 5e-5 of the largest value, after chains of up to 11 updates."""
    events = make_events(11, seed=3, users=3, items=4, reviewed=reviewed)
    stream, params = make_drex(events, bptt_windows=windows, **options)
    results, _ = train_losses(stream, params)
    begins = np.linspace(0, 11, windows + 1).round().astype(int)
    batches = list(stream.batches(0))
    twin = Twin(stream.model, events)
    losses, pull = jax.vjp(lambda p: twin.losses(p, begins, batches), params)
    for (loss, _, _), expected in zip(results, losses, strict=True):
        assert float(loss) == pytest.approx(float(expected), rel=2e-5)
    summed = jax.tree.map(lambda *gradients: sum(gradients), *(gradient for _, _, gradient in results))
    assert_trees_close(summed, pull([jnp.ones_like(loss) for loss in losses])[0], 5e-5)


def test_missing_rows_of_every_modality(make_events, make_drex):
    """Values and gradients are finite with ratings, reviews or vectors missing in some rows or in all."""
    events = make_events(20, rated=1.0, reviewed=0.999, pictured=1.0)
    stream, params = make_drex(events, ranking_weight=0.5, residual=True)
    (batch,) = stream.batches(0)
    step = jax.jit(jax.value_and_grad(stream.model.loss, has_aux=True))
    seen = set()
    for parts in itertools.product(("none", "some", "all"), repeat=3):
        window = batch.window
        missing = [
            {"none": np.zeros(20, bool), "some": np.arange(20) % 3 == 1, "all": np.ones(20, bool)}[p] for p in parts
        ]
        rating = np.where(missing[0], np.nan, window.rating).astype(np.float32)
        picture = np.where(missing[2][:, None], np.nan, window.vectors["picture"])
        gone = [np.append(missing[1], True)[row] for row in window.text.row]
        text = window.text._replace(
            ids=tuple(np.where(g[..., None], 0, ids) for g, ids in zip(gone, window.text.ids, strict=True)),
            row=tuple(np.where(g, 20, row).astype(np.int32) for g, row in zip(gone, window.text.row, strict=True)),
        )
        window = window._replace(rating=rating, vectors={"picture": picture}, text=text)
        (loss, (carry, sums)), gradient = step(
            params, stream.start(params), batch._replace(window=window), jax.random.key(0)
        )
        for leaf in jax.tree.leaves((loss, carry, sums, gradient)):
            assert np.isfinite(leaf).all(), parts
        assert (sums["rating_loss"] == 0) == (parts[0] == "all")
        nulls = gradient["network"]["fusion"]
        for name, part in zip(("rating", "text", "picture"), parts, strict=True):
            assert bool(np.any(nulls[f"{name}_null"])) == (part != "none"), (name, parts)
            assert bool(np.any(nulls[f"{name}_encoder"]["kernel"])) == (part != "all"), (name, parts)
        seen.add(float(loss))
    assert len(seen) == 27
    assert step._cache_size() == 1


@pytest.mark.parametrize("parts", ["", "rating", "text time picture"])
def test_networks_of_some_modalities(make_events, make_drex, train_losses, parts):
    """Networks of any modalities agree with the twin, even with no modality at all."""
    events = make_events(16, reviewed=0.5 if "text" in parts else 0.0)
    options = {"rating_modality": "rating" in parts, "time_modality": "time" in parts}
    vectors = ("picture",) if "picture" in parts else ()
    stream, params = make_drex(events, vector_modalities=vectors, ranking_weight=0.5, **options)
    names = {name.removesuffix("_null") for name in params["network"]["fusion"] if name.endswith("_null")}
    assert names == (set(parts.split()) or {"event"})
    ((loss, _, gradient),) = train_losses(stream, params)[0]
    assert np.isfinite(float(loss))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    assert np.abs(gradient["network"]["fusion"]["fuse"]["kernel"]).max() > 0


def test_data_without_ratings_learn_to_rank(make_events, make_drex, train_losses, replay):
    events = make_events(20, rated=0.0)
    stream, params = make_drex(
        events, (14, 3, 3), rating=False, rating_modality=False, rating_weight=0.0, ranking_weight=1.0
    )
    assert not stream.model.rates
    assert "rating_head" not in params["network"]
    ((loss, sums, gradient),) = train_losses(stream, params)[0]
    assert set(sums) == {"ranking_loss"}
    assert np.isfinite(float(loss))
    assert np.abs(gradient["network"]["user_start"]).max() > 0
    carry, trace = replay(stream, params)
    assert np.isfinite(stream.model.rank(params, trace.user_before, carry.item)).all()


@pytest.mark.parametrize("head", ["dot", "mlp"])
@pytest.mark.parametrize("residual", [False, True])
def test_pairs_are_all_pairs(head, residual):
    rng = np.random.default_rng(0)
    user, item = jnp.asarray(rng.normal(size=(4, 6))), jnp.asarray(rng.normal(size=(5, 6)))
    module = Head(NetworkOptions(state_size=4, head=head, hidden_size=7, residual=residual))
    variables = module.init(jax.random.key(0), user, item[:4])
    expected = [[module.apply(variables, u[None], i[None])[0] for i in item] for u in user]
    pairs = module.apply(variables, user, item, method="pairs")
    np.testing.assert_allclose(pairs, expected, atol=1e-5)
    assert np.std(pairs) > 1e-3
    moved = module.apply(variables, user.at[:, 4:].add(1.0), item, method="pairs")
    assert bool((np.abs(moved - pairs) > 1e-6).any()) == residual  # only a residual head reads the auxiliary columns


def test_ranks_by_ratings_without_a_ranking_head(make_events, make_drex, replay):
    """Scores equal predicted ratings up to a constant for each user, so the order is the same."""
    stream, params = make_drex(make_events(20), (14, 3, 3), residual=True)
    carry, _ = replay(stream, params)
    scores = stream.model.rank(params, carry.user[:3], carry.item) * stream.model.options.rating_deviation
    rates = [stream.model.rate(params, jnp.broadcast_to(row, carry.item.shape), carry.item) for row in carry.user[:3]]
    differences = np.asarray(scores) - np.asarray(rates)
    np.testing.assert_allclose(differences, differences[:, :1].repeat(len(carry.item), 1), atol=1e-5)


@pytest.mark.parametrize("partner", [False, True])
def test_partner_off_cuts_the_other_side(make_events, make_drex, replay, partner):
    """Without the partner, a change of the items' states does not change any user's state."""
    events = make_events(20)
    stream, params = make_drex(events, partner=partner)
    assert ("user_partner" in params["network"]["cells"]) == partner
    other = jax.tree.map(jnp.copy, params)
    other["network"]["item_start"] += 1.0
    before, after = replay(stream, params)[0], replay(stream, other)[0]
    assert bool((np.abs(before.user - after.user) > 1e-5).any()) == partner
    assert np.abs(before.item - after.item).max() > 1e-3


def test_newcomers_get_the_shared_vector_and_no_offset(make_events, make_drex, replay):
    events = make_events(40, users=14, items=14)
    border = 12
    stream, params = make_drex(events, (border, 14, 14))
    met = int(events.user[:border].max()) + 1
    assert params["user_offset"].shape == (met, 4)
    assert met < events.num_users - 1
    start = stream.start(params)
    shared = np.asarray(params["network"]["user_start"])
    np.testing.assert_array_equal(start.user[met:, :4], np.broadcast_to(shared, (events.num_users - met, 4)))
    np.testing.assert_allclose(start.user[:met, :4], shared + params["user_offset"], rtol=1e-6)
    _, trace = replay(stream, params)
    newcomers = 0
    for k in range(border, 40):
        if events.user[k] not in events.user[:k]:
            np.testing.assert_array_equal(trace.user_before[k, :4], shared)
            newcomers += 1
    assert newcomers


def test_dropped_offsets_leave_the_shared_vector(make_events, make_drex, train_losses):
    events = make_events(20)
    stream, params = make_drex(events, offset_dropout=1.0)
    without = dict(params) | {name: jnp.zeros_like(params[name]) for name in ("user_offset", "item_offset")}
    ((loss, _, gradient),) = train_losses(stream, params)[0]
    ((bare, _, _),) = train_losses(stream, without)[0]
    assert loss == bare
    assert not np.asarray(gradient["user_offset"]).any()
    some, params = make_drex(events, offset_dropout=0.5)
    ((_, _, gradient),) = train_losses(some, params)[0]
    kept = np.abs(gradient["user_offset"]).max(1) > 0
    assert 0 < kept.sum() < len(kept)


def test_the_number_of_windows_and_the_width_change_no_state(make_events, make_drex, replay):
    """Windows and lanes affect only the order of the computation; 2e-6 is rounding."""
    events = make_events(37, users=12, items=12)
    expected = None
    for windows, width in ((1, 1), (3, 4), (25, 16)):
        stream, params = make_drex(events, (25, 6, 6), bptt_windows=windows, width=width, residual=True)
        found = replay(stream, params)
        expected = expected or found
        assert_trees_close(found, expected, 2e-6)


def test_training_and_replay_leave_the_same_states(make_events, make_drex, train_losses):
    stream, params = make_drex(make_events(31), bptt_windows=3, residual=True, ranking_weight=1.0)
    _, carry = train_losses(stream, params)
    assert_trees_close(carry, stream.observe(params, stream.start(params), stream.segments()[0])[0], 2e-6)


def test_item_after_is_the_row_right_after(make_events, make_drex, replay):
    """The item row after an interaction equals that of a replay that ends there."""
    events = make_events(16)
    stream, params = make_drex(events, residual=True)
    _, trace = replay(stream, params)
    for k in (0, 7, 15):
        shorter, _ = make_drex(events[: k + 1], residual=True)
        cut = {
            name: value[: getattr(shorter.model.options, f"known_{name.split('_')[0]}s")]
            for name, value in params.items()
            if name.endswith("offset")
        }
        carry, _ = replay(shorter, params | cut)
        np.testing.assert_allclose(trace.item_after[k], carry.item[events.item[k]], atol=2e-6)


def test_negatives_differ_by_epoch_and_only_by_epoch(make_events, make_drex):
    stream, _ = make_drex(make_events(20), ranking_weight=1.0)
    (a,), (b,), (c,) = (list(stream.batches(epoch)) for epoch in (0, 0, 1))
    np.testing.assert_array_equal(a.negatives.state, b.negatives.state)
    assert (a.negatives.state != c.negatives.state).any()


@pytest.mark.parametrize("head", ["dot", "mlp"])
def test_overfits(make_events, make_drex, head):
    """On ratings that each pair repeats, full-history training brings the loss below 1% of its start."""
    events = make_events(30, rated=1.0, reviewed=0.0, pictured=0.0)
    events.rating[:] = 1 + (3 * events.user + 5 * events.item) % 5
    stream, _ = make_drex(events, state_size=8, feature_size=8, vector_modalities=(), vocabulary_size=0, head=head)
    params = stream.init(jax.random.key(0))
    optimizer = optax.adam(2e-2)
    state = optimizer.init(params)
    (batch,) = stream.batches(0)

    @jax.jit
    def step(params, state):
        (_, (_, sums)), gradient = jax.value_and_grad(stream.model.loss, has_aux=True)(
            params, stream.start(params), batch, jax.random.key(0)
        )
        updates, state = optimizer.update(gradient, state)
        return optax.apply_updates(params, updates), state, sums["rating_loss"]

    losses = []
    for _ in range(300):
        params, state, loss = step(params, state)
        losses.append(float(loss))
    assert losses[-1] < losses[0] / 100
