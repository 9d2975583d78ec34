"""The side-by-side tool for rankers: PyTorch computes the equations, and the tool reports the measurements."""

import itertools
import json
import pathlib
from typing import ClassVar

import numpy as np
import pytest

from tools.benchmarks import ranking_data, ranking_peer, ranking_race, ranking_speed, ranking_worker
from tools.benchmarks.ranking_peer import Matrix, Peer, PeerOptions, Train

SIZES = PeerOptions(size=4, batch_size=8, neighbours=3, layers=2, l2=0.3, feature_weight=0.7, first_modality=0.2)
USERS, ITEMS = 7, 9


@pytest.fixture(scope="module")
def torch():
    module = pytest.importorskip("torch", reason="PyTorch is not installed: no peer to check")
    threads = module.get_num_threads()
    module.set_num_threads(1)  # several threads would wait for each other on a busy machine
    yield module
    module.set_num_threads(threads)


def make_train(features: int = 2) -> Train:
    rng = np.random.default_rng(4)
    user, item = np.nonzero(rng.random((USERS, ITEMS)) < 0.4)
    arrays = tuple(rng.standard_normal((ITEMS, 5 + number), np.float32) for number in range(features))
    return Train(user.astype(np.int64), item.astype(np.int64), USERS, ITEMS, arrays)


@pytest.mark.parametrize("layout", ranking_peer.LAYOUTS)
@pytest.mark.parametrize("symmetric", [True, False])
def test_a_sparse_product_and_its_gradient_equal_the_dense_ones(torch, layout: str, symmetric: bool) -> None:
    rng = np.random.default_rng(0)
    rows, columns = rng.integers(6, size=(2, 20))
    values = rng.standard_normal(20).astype(np.float32)
    shape = (6, 6) if symmetric else (6, 8)
    if symmetric:
        rows, columns, values = np.r_[rows, columns], np.r_[columns, rows], np.r_[values, values]
    dense = np.zeros(shape, np.float32)
    np.add.at(dense, (rows, columns), values)  # values of one (row, column) are added
    matrix = Matrix(*map(torch.from_numpy, (rows, columns, values)), shape, layout, symmetric)
    table = torch.randn(shape[1], 3, requires_grad=True)
    weight = torch.randn(6, 3)
    product = matrix @ table
    np.testing.assert_allclose(product.detach(), dense @ table.detach().numpy(), atol=1e-5)
    (product * weight).sum().backward()
    np.testing.assert_allclose(table.grad, dense.T @ weight.numpy(), atol=1e-5)


def bipartite(user: np.ndarray, item: np.ndarray) -> np.ndarray:
    """Return the dense symmetric graph of users and items; an edge is 1 / sqrt(degree * degree)."""
    matrix = np.zeros((USERS + ITEMS, USERS + ITEMS))
    matrix[user, USERS + item] = matrix[USERS + item, user] = 1
    degree = np.maximum(matrix.sum(1), 1)
    return matrix / np.sqrt(degree[:, None] * degree)


def neighbours(features: np.ndarray) -> np.ndarray:
    """Return the dense graph of the nearest items by cosine."""
    matrix = np.zeros((ITEMS, ITEMS))
    for item in range(ITEMS):
        cosine = [features[item] @ other / np.linalg.norm(features[item]) / np.linalg.norm(other) for other in features]
        matrix[item, np.argsort(cosine)[-SIZES.neighbours :]] = 1 / SIZES.neighbours
    return matrix


def bpr(user: np.ndarray, positive: np.ndarray, negative: np.ndarray) -> float:
    return float(
        np.mean([-np.log(1 / (1 + np.exp(-(u @ (p - n))))) for u, p, n in zip(user, positive, negative, strict=True)])
    )


def expected_loss(name: str, params: dict[str, np.ndarray], graph: np.ndarray, data: Train, batch: np.ndarray) -> float:
    table = params["table"]
    final = (table + graph @ table + graph @ graph @ table) / 3
    users, items = final[:USERS], final[USERS:]
    user, positive, negative = batch
    if name == "lightgcn":
        own = [table[user], table[USERS + positive], table[USERS + negative]]
        penalty = SIZES.l2 * sum((rows**2).sum() for rows in own) / len(user)
        return bpr(users[user], items[positive], items[negative]) + penalty
    first, second = map(neighbours, data.features)
    items = items + (0.2 * first + 0.8 * second) @ table[USERS:]
    loss = bpr(users[user], items[positive], items[negative])
    for number in range(2):
        projected = params[f"features{number}"] @ params[f"weight{number}"]
        loss += SIZES.feature_weight * bpr(users[user], projected[positive], projected[negative])
    return loss


@pytest.mark.parametrize("layout", ranking_peer.LAYOUTS)
@pytest.mark.parametrize("name", ranking_peer.MODELS)
def test_the_loss_equals_that_of_dense_numpy(torch, name: str, layout: str) -> None:
    data = make_train()
    peer = Peer(name, data, SIZES, layout)
    kept = data.user, data.item
    if name == "freedom":
        draw = torch.Generator()
        draw.set_state(peer._random.get_state())
        degree = bipartite(*kept)[kept[0], USERS + kept[1]]
        chosen = torch.multinomial(
            torch.from_numpy(degree).float(), int(len(data.user) * (1 - SIZES.edge_dropout)), generator=draw
        )
        kept = data.user[chosen], data.item[chosen]
        assert len(kept[0]) == len(data.user) // 5
    peer.begin_epoch()
    with torch.no_grad():
        for tensor in peer.params.values():
            tensor.add_(torch.randn(tensor.shape))  # large enough that every term matters
    batch = np.random.default_rng(1).integers((USERS, ITEMS, ITEMS), size=(8, 3)).T
    params = {key: tensor.detach().numpy().astype(np.float64) for key, tensor in peer.params.items()}
    loss = peer.loss(*map(torch.from_numpy, np.ascontiguousarray(batch)))
    assert loss.item() == pytest.approx(expected_loss(name, params, bipartite(*kept), data, batch), rel=1e-5)
    loss.backward()
    assert all(tensor.grad is not None and tensor.grad.abs().sum() > 0 for tensor in peer.params.values())


@pytest.mark.parametrize("name", ranking_peer.MODELS)
def test_layouts_train_alike_and_the_loss_falls(torch, name: str) -> None:
    losses = {}
    for layout in ranking_peer.LAYOUTS:
        peer = Peer(name, make_train(), PeerOptions(size=4, batch_size=8, learning_rate=0.05), layout)
        losses[layout] = [peer.epoch() for _ in range(10)]
        assert losses[layout][-1] < losses[layout][0]
    for layout in ranking_peer.LAYOUTS[1:]:
        np.testing.assert_allclose(losses[layout], losses["coo"], rtol=1e-4)


def test_negatives_are_not_in_train_and_all_others_come(torch) -> None:
    data = make_train()
    peer = Peer("lightgcn", data, SIZES, "coo")
    users = torch.arange(USERS).repeat(400)
    drawn = set(zip(users.tolist(), peer.negatives(users).tolist(), strict=True))
    train = set(zip(data.user.tolist(), data.item.tolist(), strict=True))
    assert drawn == set(itertools.product(range(USERS), range(ITEMS))) - train


def test_a_made_up_data_set_has_its_size(tmp_path: pathlib.Path) -> None:
    ranking_data.write(tmp_path / "set", ranking_data.Size(60, 20, 540))
    rows = np.loadtxt(tmp_path / "set" / "made_up.inter", int, skiprows=1)
    assert len(np.unique(rows[:, :2], axis=0)) == len(rows) == 540
    train = rows[rows[:, 2] == 0]
    assert set(train[:, 0]) == set(range(60))
    assert set(train[:, 1]) == set(range(20))
    assert set(rows[:, 2]) == {0, 1, 2}
    assert np.load(tmp_path / "set" / "text_feat.npy").shape == (20, 128)


def test_a_set_without_features_gets_random_ones_beside_it(tmp_path: pathlib.Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "a.inter").write_text("userID\titemID\tx_label\n0\t3\t0\n1\t7\t0\n")
    assert ranking_data.with_features(tmp_path / "copy", source)
    assert np.load(tmp_path / "copy" / "image_feat.npy").shape == (8, 128)
    assert [path.name for path in source.iterdir()] == ["a.inter"]
    assert not ranking_data.with_features(tmp_path / "again", tmp_path / "copy")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--model=lightgcn"], "--model=lightgcn"),
        (["--models=gcn"], "gcn"),
        (["--implementations=csc"], "coo_transposed"),
        (["--tasks=test"], "evaluate"),
        (["--repeats=0"], "'0'"),
        (["--items=5,many", "--scaling"], "many"),
        (["--data=nowhere"], "nowhere"),
        (["--scaling", "--json=nowhere/a.json"], "nowhere"),
        ([], "DREX_JAX_DATA"),
    ],
)
def test_a_mistake_is_told_in_one_line(
    arguments: list[str], named: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.delenv("DREX_JAX_DATA", raising=False)
    assert ranking_speed.run(arguments) == 2
    printed = capsys.readouterr()
    assert printed.err.count("\n") == 1
    assert named in printed.err
    assert not printed.out


def test_a_folder_without_a_data_set_is_a_mistake(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture) -> None:
    assert ranking_speed.run([f"--data={tmp_path}", "--implementations=ours"]) == 2
    assert str(tmp_path) in capsys.readouterr().err


class FakeWorker:
    """A worker whose times depend on its epoch's number; the one named `coo` fails in its second counted epoch."""

    log: ClassVar[list] = []

    def __init__(self, **job) -> None:
        self.name, self.epochs, self.facts = job["implementation"], 0, {}

    def run(self, updates: int | None = None) -> float:
        self.log.append((self.name, updates))
        self.epochs += 1
        if self.name == "coo" and self.epochs == 3:
            raise ranking_race.BrokenError("ended by signal 9")
        return {"ours": 2.0, "coo": 8.0, "csr": 1.0}[self.name] * (1 if self.epochs < 4 else 10)

    def close(self) -> None:
        self.log.append((self.name, "closed"))


def test_epochs_alternate_and_one_that_breaks_down_leaves_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranking_race, "Worker", FakeWorker)
    monkeypatch.setattr(ranking_race, "PAUSE", 0.0)
    monkeypatch.setattr(FakeWorker, "log", [])
    names = ("ours", "coo", "csr")
    jobs = [{"implementation": name} for name in names]
    rows = ranking_race.race(jobs, lambda implementation: ranking_race.Row("d", 5, "train", "m", implementation), 3, 7)
    assert FakeWorker.log[:6] == [(name, 7) for name in names] + [(name, None) for name in names]
    assert FakeWorker.log[6:] == [
        *(("ours", None), ("coo", None), ("coo", "closed"), ("csr", None)),
        *(("ours", None), ("csr", None), ("ours", "closed"), ("csr", "closed")),
    ]
    assert [row.seconds for row in rows] == [[2, 2, 20], [8], [1, 1, 10]]
    assert [row.ratio for row in rows] == [1, 4, 0.5]
    assert rows[1].failed == "ended by signal 9"


def test_slopes_are_those_of_powers() -> None:
    rows = [
        ranking_race.Row("d", n, "train", "m", "ours", [1e-3 * n**1.5], facts={"peak_bytes": 7 + n**2, "base_bytes": 7})
        for n in (10, 100, 1000)
    ]
    assert ranking_speed._slopes(rows)["m"] == pytest.approx({"seconds": 1.5, "own_bytes": 2.0})


@pytest.mark.thorough
def test_the_tool_measures_a_tiny_set(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture) -> None:
    ranking_data.write(tmp_path / "set", ranking_data.Size(60, 20, 540))
    torch = ranking_speed.importlib.util.find_spec("torch") is not None
    names = "ours,csr" if torch else "ours"
    file = tmp_path / "speed.json"
    arguments = [f"--data={tmp_path / 'set'}", "--models=lightgcn", f"--implementations={names}", "--repeats=2"]
    assert ranking_speed.run([*arguments, f"--json={file}"]) == 0, capsys.readouterr().err
    printed = capsys.readouterr().out
    assert "60 users, 20 items, 540 interactions" in printed
    found = json.loads(file.read_text())
    expected = [("train", name) for name in names.split(",")] + [("evaluate", "ours")] + [("evaluate", "dense")] * torch
    assert [(row["task"], row["implementation"]) for row in found["rows"]] == expected
    for row in found["rows"]:
        assert 0 < row["seconds"]["lowest"] <= row["seconds"]["median"] <= row["seconds"]["highest"]
        assert row["facts"]["peak_bytes"] >= row["facts"]["base_bytes"] > 10_000_000
        assert row["ratio"] > 0
        assert len(row["each"]) == 2
    assert all(f"{row['task']}" in printed for row in found["rows"])


def test_updates_alone_are_timed_on_made_up_sets(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture) -> None:
    file = tmp_path / "speed.json"
    flags = ["--scaling", "--items=20", "--widths=7,3", "--models=lightgcn", "--updates=1", f"--json={file}"]
    assert ranking_speed.run(flags) == 0, capsys.readouterr().err
    assert "features image 7 + text 3" in capsys.readouterr().out
    (row,) = json.loads(file.read_text())["scaling"]
    assert row["seconds"]["median"] > 0
    assert row["facts"]["begin_seconds"] >= 0
    assert ranking_speed.run(["--updates=1", f"--data={tmp_path}"]) == 2
    assert "--updates goes with --scaling or --electronics" in capsys.readouterr().err
    assert ranking_speed.run(["--scaling", "--widths=7"]) == 2
    assert "--widths needs 2 numbers" in capsys.readouterr().err


def test_ours_and_the_peer_learn_from_the_same_pairs(tmp_path: pathlib.Path) -> None:
    """The features also belong to the same items, although items are renumbered."""
    folder = tmp_path / "set"
    ranking_data.write(folder, ranking_data.Size(60, 20, 540))
    job = ranking_worker.Job(task="prepare", workdir=str(tmp_path / "work"), source=str(folder))
    facts, _ = ranking_worker._prepare(job)
    assert facts["modalities"] == {"image": 128, "text": 128}
    data = ranking_worker.open_dataset(ranking_worker.configuration(job), tmp_path / "work")
    train = ranking_worker.train_of(data)
    ids = [
        np.array([int(name) for name in names]) for names in (data.interactions.user_ids, data.interactions.item_ids)
    ]
    rows = np.loadtxt(folder / "made_up.inter", int, skiprows=1)
    pairs = set(zip(ids[0][train.user].tolist(), ids[1][train.item].tolist(), strict=True))
    assert pairs == {(user, item) for user, item, part in rows.tolist() if part == 0}
    np.testing.assert_array_equal(train.features[1], np.load(folder / "text_feat.npy")[ids[1]])
