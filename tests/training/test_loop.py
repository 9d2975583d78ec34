"""The training loop resumes exactly, selects the best epoch, respects patience and stops at non-finite losses."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import signal
import types
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from drex_jax.common.errors import Stopped, UserError
from drex_jax.config.groups import TrainSettings
from drex_jax.devices.axis import ALONE, Axis, Program
from drex_jax.devices.mesh import Devices
from drex_jax.runs.checkpoint import Checkpoints
from drex_jax.runs.selection import Selection
from drex_jax.training import loop as loop
from drex_jax.training.loop import fit

STEPS, EPOCHS = 3, 4  # STEPS: batches an epoch
OPTIONS = TrainSettings(
    epochs=EPOCHS,
    learning_rate=0.05,
    warmup_steps=2,
    decay="cosine",
    weight_decay=1e-3,
    clip_norm=1.0,
    patience=EPOCHS,
    selection="mse",
    checkpoint_seconds=1e9,
)
SEED = 3


class Toy:
    """A linear regression with noise from the step's key, and a carry that every step changes."""

    chunk = 1

    def __init__(self, steps: int = STEPS, before: Callable[[int], None] = lambda step: None):
        self.steps, self.before = steps, before
        self.model = self

    def init(self, key: jax.Array) -> dict[str, jax.Array]:
        return {"w": jax.random.normal(key, (4,)), "b": jnp.zeros(())}

    def start(self, params: dict[str, jax.Array]) -> jax.Array:
        return params["w"] * 0.1

    def renew(self, params: dict[str, jax.Array], carry: Any, epoch: int, key: jax.Array) -> jax.Array:
        return self.start(params)

    def steps_per_epoch(self) -> int:
        return self.steps

    def batches(self, epoch: int) -> Iterator[np.ndarray]:
        for number in range(self.steps):
            yield np.random.default_rng((epoch, number)).normal(size=(6, 4)).astype(np.float32)

    def with_seed(self, seed: int) -> Toy:
        return self

    def step_bytes(self) -> int:
        return 0

    def loss(
        self, params: Any, carry: jax.Array, batch: jax.Array, key: jax.Array, axis: Axis = ALONE
    ) -> tuple[jax.Array, tuple]:
        noise = 0.1 * jax.random.normal(key, (len(batch),))
        target = batch @ jnp.arange(4.0) + noise
        loss = ((batch @ (params["w"] + carry) + params["b"] - target) ** 2).mean()
        return loss, (jax.lax.stop_gradient(0.5 * carry + 0.01 * params["w"]), {"rating_loss": loss})


class Watched(Devices):
    """One device, which calls `before` before each step."""

    def __init__(self, before: Callable[[int], None]):
        super().__init__("none", 1)
        self.before = before

    def compile_for(self, program: Program, *arguments: Any, spread: Any = None) -> Callable[..., Any]:
        compiled = super().compile_for(program, *arguments, spread=spread)

        def step(*arguments: Any) -> Any:
            self.before(int(arguments[-2]))  # arguments: state, batches, seeds, step, updates
            return compiled(*arguments)

        return step


class Judge:
    """A fake evaluator: validation returns given values, one an epoch, or the distance to the true weights."""

    def __init__(self, values: list[float] | None = None, names: tuple[str, ...] = ("mse", "ndcg@10")):
        self.values, self.names, self.seen = values, names, []

    def validation_metrics(self) -> list[str]:
        return list(self.names)

    def validate(self, params: Any, names: set[str]) -> dict[str, float]:
        self.seen.append(jax.tree.map(np.asarray, params))
        value = float(((params["w"] - np.arange(4)) ** 2).sum()) if self.values is None else self.values.pop(0)
        return dict.fromkeys(self.names, value)


def run(folder: pathlib.Path, model: Any = None, judge: Any = None, **changes: Any) -> loop.Fitted:
    options = dataclasses.replace(OPTIONS, **changes)
    model = model or Toy()
    (fitted,) = fit(model, judge or Judge(), options, {SEED: folder}, 18, Watched(model.before))
    return fitted


def lines(folder: pathlib.Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def same(left: Any, right: Any) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[pathlib.Path, loop.Fitted]:
    """Return the folder and the result of an uninterrupted run."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, run(folder)


def stopping_at(*steps: int, number: signal.Signals = signal.SIGTERM) -> Toy:
    """Return a model that raises a signal once before each of `steps`."""
    left = set(steps)

    def before(step: int) -> None:
        if step in left:
            left.discard(step)
            signal.raise_signal(number)

    return Toy(before=before)


def test_files_of_the_run_that_are_not_what_they_should_be(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "metrics.jsonl").mkdir()
    with pytest.raises(UserError, match=r"metrics\.jsonl: is no file; remove it"):
        run(tmp_path)
    (tmp_path / "metrics.jsonl").rmdir()
    with monkeypatch.context() as patch:
        patch.setattr(loop, "dataclasses", types.SimpleNamespace(asdict=lambda _: {"no": "progress"}))
        with pytest.raises(Stopped):
            run(tmp_path, stopping_at(1))
    with pytest.raises(UserError, match="step 2 is damaged or of another version; remove it"):
        run(tmp_path)


def test_training_learns_and_logs_every_step(whole: tuple[pathlib.Path, loop.Fitted]) -> None:
    folder, fitted = whole
    log = lines(folder)
    assert [line["step"] for line in log] == list(range(1, STEPS * EPOCHS + 1))
    assert [line["epoch"] for line in log] == [step // STEPS + 1 for step in range(STEPS * EPOCHS)]
    assert [line["step"] for line in log if "validation" in line] == [3, 6, 9, 12]
    assert log[-1]["loss"] < log[0]["loss"]
    assert all(line["gradient_norm"] > 0 for line in log)
    assert fitted.timing["steps"] == STEPS * EPOCHS
    assert fitted.timing["resumed_from"] is None


@pytest.mark.parametrize(
    ("step", "number"),
    [(0, signal.SIGTERM), (1, signal.SIGINT), (2, signal.SIGTERM), (7, signal.SIGTERM), (11, signal.SIGTERM)],
)  # the first step, one within an epoch, an epoch's last, and the very last
def test_stopped_anywhere_and_resumed_is_bitwise_the_same(
    whole: tuple[pathlib.Path, loop.Fitted], tmp_path: pathlib.Path, step: int, number: signal.Signals
) -> None:
    folder, expected = whole
    before = signal.getsignal(number)
    with pytest.raises(Stopped, match=f"{number.name}.*step {step + 1}"):
        run(tmp_path, stopping_at(step, number=number))
    assert signal.getsignal(number) is before
    assert [line["step"] for line in lines(tmp_path)] == list(range(1, step + 2))
    fitted = run(tmp_path)
    assert same(fitted.params, expected.params)
    assert fitted.selection == expected.selection
    assert fitted.timing["resumed_from"] == step + 1
    assert (tmp_path / "metrics.jsonl").read_bytes() == (folder / "metrics.jsonl").read_bytes()


class Chunked(Toy):
    """The same model with several updates in one device call."""

    def __init__(self, chunk: int, steps: int, before: Callable[[int], None] = lambda step: None):
        super().__init__(steps, before)
        self.chunk = chunk


@pytest.mark.parametrize(("chunk", "stops"), [(2, (0, 4, 7)), (4, (4, 5, 9)), (8, (5,))])
def test_chunks_of_updates_are_what_single_ones_are(tmp_path: pathlib.Path, chunk: int, stops: tuple[int, ...]) -> None:
    """Epochs of 5 steps, not divisible by chunks, stopped between chunks and at epochs' ends, log each step once."""
    options = {"epochs": 2, "decay": "none"}
    expected = run(tmp_path / "single", Toy(5), **options)
    starts = [epoch * 5 + begin for epoch in range(2) for begin in range(0, 5, chunk)]
    calls: list[int] = []
    whole = run(tmp_path / "whole", Chunked(chunk, 5, calls.append), **options)
    assert calls == starts
    assert whole.timing["steps"] == 10
    left = set(stops)

    def before(step: int) -> None:
        if any(step <= stop < step + chunk for stop in left):
            left.difference_update(range(step, step + chunk))
            signal.raise_signal(signal.SIGTERM)

    stopped_at = []
    while left:
        with pytest.raises(Stopped):
            run(tmp_path / "stopped", Chunked(chunk, 5, before), **options)
        stopped_at.append(lines(tmp_path / "stopped")[-1]["step"])
    ends = [min(begin + chunk, 5 * (begin // 5 + 1)) for begin in starts]
    assert stopped_at
    assert set(stopped_at) <= set(ends)
    fitted = run(tmp_path / "stopped", Chunked(chunk, 5), **options)
    assert fitted.timing["resumed_from"] == stopped_at[-1]
    assert same(fitted.params, whole.params)  # bitwise, because the device calls are the same
    assert (tmp_path / "stopped" / "metrics.jsonl").read_bytes() == (tmp_path / "whole" / "metrics.jsonl").read_bytes()
    single, chunked = lines(tmp_path / "single"), lines(tmp_path / "whole")
    assert [line["step"] for line in chunked] == list(range(1, 11))
    for one, other in zip(single, chunked, strict=True):  # up to rounding, because it is another program
        assert other["loss"] == pytest.approx(one["loss"], rel=1e-5)
        assert other["epoch"] == one["epoch"]
        assert ("validation" in other) == ("validation" in one)
    for left_leaf, right_leaf in zip(jax.tree.leaves(whole.params), jax.tree.leaves(expected.params), strict=True):
        np.testing.assert_allclose(left_leaf, right_leaf, rtol=1e-5, atol=1e-6)


def test_a_bad_loss_within_a_chunk_names_its_own_step(tmp_path: pathlib.Path) -> None:
    class Bad(Chunked):
        def batches(self, epoch: int) -> Iterator[np.ndarray]:
            for number, batch in enumerate(super().batches(epoch)):
                yield batch * np.float32(np.inf if (epoch, number) == (1, 2) else 1)

    with pytest.raises(UserError, match="not finite at step 8, batch 3 of 5 of epoch 2 "):
        run(tmp_path, Bad(4, 5), checkpoint_seconds=0.0)
    assert [line["step"] for line in lines(tmp_path)] == list(range(1, 6))  # the earlier chunks


def test_killed_between_checkpoints_logs_no_step_twice(
    whole: tuple[pathlib.Path, loop.Fitted], tmp_path: pathlib.Path
) -> None:
    """After a crash, the log lines since the last checkpoint are removed, because these steps run again."""

    def crash(step: int) -> None:
        if step == 8:
            raise MemoryError

    with pytest.raises(Stopped):
        run(tmp_path, stopping_at(3))
    with pytest.raises(MemoryError):
        run(tmp_path, Toy(before=crash))
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 7, "epoch": 2, "los')  # a torn line
    folder, expected = whole
    fitted = run(tmp_path)
    assert fitted.timing["resumed_from"] == 4
    assert same(fitted.params, expected.params)
    assert (tmp_path / "metrics.jsonl").read_bytes() == (folder / "metrics.jsonl").read_bytes()


@pytest.mark.parametrize("stop", [2, 5])
def test_more_epochs_than_when_it_was_begun(tmp_path: pathlib.Path, stop: int) -> None:
    """A run that is stopped early or finished and then gets more epochs ends like a run with all epochs at once."""
    expected = run(tmp_path / "whole", decay="none")
    with pytest.raises(Stopped):
        run(tmp_path / "more", stopping_at(stop), decay="none", epochs=2)
    fitted = run(tmp_path / "more", decay="none")
    assert fitted.timing["resumed_from"] == stop + 1
    assert same(fitted.params, expected.params)
    assert (tmp_path / "more" / "metrics.jsonl").read_bytes() == (tmp_path / "whole" / "metrics.jsonl").read_bytes()
    with pytest.raises(UserError, match="epoch 4 is begun already"):
        run(tmp_path / "more", decay="none", epochs=3)


def test_finished_run_is_not_trained_again(tmp_path: pathlib.Path) -> None:
    expected = run(tmp_path)
    judge = Judge()
    fitted = run(tmp_path, judge=judge)
    assert same(fitted.params, expected.params)
    assert fitted.selection == expected.selection
    assert judge.seen == []


def test_signal_after_the_last_step_is_not_lost(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save = Checkpoints.save

    def interrupted(self: Checkpoints, *arguments: Any) -> None:
        signal.raise_signal(signal.SIGTERM)
        save(self, *arguments)

    monkeypatch.setattr(Checkpoints, "save", interrupted)
    with pytest.raises(Stopped, match="SIGTERM"):
        run(tmp_path)
    monkeypatch.undo()
    assert run(tmp_path).timing["resumed_from"] == STEPS * EPOCHS


@pytest.mark.parametrize(
    ("selection", "values", "best", "epochs", "stop"),
    [
        ("mse", [5.0, 2.0, 3.0, 3.0, 1.0, 1.0], 1, 4, None),  # stops after two epochs without a better value
        ("mse", [5.0, 4.0, 4.5, 3.0, 3.0, 3.0], 3, 6, 8),  # an equal value is not better
        ("ndcg@10", [0.1, 0.3, 0.2, 0.2, 0.9, 0.9], 1, 4, 7),  # higher is better
    ],
)
def test_patience_and_the_best_parameters(
    tmp_path: pathlib.Path, selection: str, values: list[float], best: int, epochs: int, stop: int | None
) -> None:
    judge = Judge(list(values))
    changes = {"patience": 2, "epochs": 6, "selection": selection}
    if stop is not None:
        with pytest.raises(Stopped):
            run(tmp_path, stopping_at(stop), judge, **changes)
    fitted = run(tmp_path, judge=judge, **changes)
    assert fitted.selection == Selection.of(fitted.params, selection, values[best], best + 1)
    assert fitted.timing["epochs"] == epochs == len(judge.seen)
    assert same(fitted.params, judge.seen[best])
    assert not same(fitted.params, judge.seen[-1])


@pytest.mark.parametrize(("poison", "dtype"), [(np.inf, np.float32), (1e30, np.float32), (np.nan, jnp.bfloat16)])
def test_loss_that_is_not_finite_names_its_step_and_leaves_good_checkpoints(
    tmp_path: pathlib.Path, poison: float, dtype: Any
) -> None:
    """One bad row is enough; although every step is due for a checkpoint, the last one is before the bad step."""

    class Bad(Toy):
        def batches(self, epoch: int) -> Iterator[np.ndarray]:
            for number, batch in enumerate(super().batches(epoch)):
                batch[3] *= poison if epoch * STEPS + number == 7 else 1
                yield batch.astype(dtype)

    with pytest.raises(UserError, match=r"not finite at step 8, batch 2 of 3 of epoch 3 .*train.learning_rate"):
        run(tmp_path, Bad(), checkpoint_seconds=0.0)
    assert [line["step"] for line in lines(tmp_path)] == list(range(1, 8))
    assert run(tmp_path).timing["resumed_from"] == 7


def test_a_state_that_is_not_finite_is_not_saved(tmp_path: pathlib.Path) -> None:
    """It is not saved even when the loss is finite, because no scored interaction has read the state yet."""

    class Poisoned(Toy):
        def loss(self, params: Any, carry: jax.Array, batch: jax.Array, key: jax.Array, axis: Axis = ALONE) -> Any:
            loss, (after, sums) = super().loss(params, carry, batch[:, :4], key)
            return loss, (after + 0 * batch[0, 4], sums)

        def batches(self, epoch: int) -> Iterator[np.ndarray]:
            for number, batch in enumerate(super().batches(epoch)):
                yield np.pad(batch, ((0, 0), (0, 1)), constant_values=np.inf if epoch * STEPS + number == 4 else 0)

    with pytest.raises(UserError, match="carry is not finite after step 5"):
        run(tmp_path, Poisoned(), checkpoint_seconds=0.0)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["3", "4"]


@pytest.mark.parametrize(("every", "chunk", "saved"), [(0, 1, [12]), (2, 1, [2, 4, 6, 8, 10, 12]), (5, 2, [5, 11, 12])])
def test_a_checkpoint_every_so_many_steps(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, every: int, chunk: int, saved: list[int]
) -> None:
    found, save = [], Checkpoints.save

    def noted(self: Checkpoints, step: int, *arguments: Any) -> None:
        found.append(step)
        save(self, step, *arguments)

    monkeypatch.setattr(Checkpoints, "save", noted)
    run(tmp_path, Chunked(chunk, STEPS), checkpoint_steps=every)
    assert found == saved


def test_a_checkpoint_every_so_many_seconds(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the monotonic clock is read; with steps of four seconds, checkpoints come every five steps."""
    found, now, save = [], [0.0], Checkpoints.save

    def noted(self: Checkpoints, step: int, *arguments: Any) -> None:
        found.append(step)
        save(self, step, *arguments)

    monkeypatch.setattr(Checkpoints, "save", noted)
    monkeypatch.setattr(loop, "time", types.SimpleNamespace(monotonic=lambda: now[0]))
    run(tmp_path, Toy(before=lambda step: now.__setitem__(0, now[0] + 4.0)), checkpoint_seconds=18.0)
    assert found == [5, 10, 12]


@pytest.mark.parametrize("steps", [1, STEPS])
def test_exploding_learning_rate(tmp_path: pathlib.Path, steps: int) -> None:
    with pytest.raises(UserError, match=r"(not finite at|inf after|nan after) step \d"):
        run(tmp_path, Toy(steps), learning_rate=1e30, warmup_steps=0, checkpoint_seconds=0.0)


def test_validation_that_is_not_finite(tmp_path: pathlib.Path) -> None:
    with pytest.raises(UserError, match="validation mse is nan after step 6"):
        run(tmp_path, judge=Judge([1.0, float("nan")]))


@pytest.mark.parametrize("names", [("mse", "rmse"), ()])
def test_selection_that_does_not_exist_lists_the_choices(tmp_path: pathlib.Path, names: tuple[str, ...]) -> None:
    judge = Judge(names=names)
    with pytest.raises(UserError, match=r"train.selection=ndcg@10: .*" + (" ".join(names) or "none")):
        run(tmp_path, judge=judge, selection="ndcg@10")
    assert judge.seen == []  # it fails before any training


def test_closed_form_model_has_nothing_to_train(tmp_path: pathlib.Path) -> None:
    fitted = run(tmp_path, Toy(0), Judge([0.5]), selection="mae")
    assert fitted.selection == Selection.of(fitted.params, "mse", 0.5, 0)
    assert list(tmp_path.iterdir()) == []


def test_tensorboard_without_its_package(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(UserError, match=r"pip install -e .\.\[tensorboard\]"):
        run(tmp_path, tensorboard=True)


def test_tensorboard_gets_what_the_log_gets(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    calls: list[tuple] = []

    class SummaryWriter:
        def __init__(self, folder: str, purge_step: int):
            calls.append(("opened", folder, purge_step))

        def add_scalar(self, *arguments: Any) -> None:
            calls.append(arguments)

        def close(self) -> None:
            calls.append(("closed",))

    monkeypatch.setitem(sys.modules, "tensorboardX", types.SimpleNamespace(SummaryWriter=SummaryWriter))  # pyright: ignore
    run(tmp_path, tensorboard=True)
    assert calls[0] == ("opened", str(tmp_path / "tensorboard"), 1)
    assert calls[-1] == ("closed",)
    logged = [(name, value, line["step"]) for line in lines(tmp_path) for name, value in line.items() if name == "loss"]
    assert [call for call in calls if call[0] == "loss"] == logged
    assert len([call for call in calls if call[0] == "mse"]) == EPOCHS


@pytest.mark.parametrize("mapping", ["none", "shard_map"])
def test_a_step_that_does_not_fit_proposes_more_windows(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, mapping: str
) -> None:
    monkeypatch.setattr(Devices, "memory", lambda self: 10**9)

    class Large(Toy):
        def step_bytes(self) -> int:
            return 2_500_000_000

    judge = Judge()
    with pytest.raises(UserError, match=r"2\.5 GB.*1\.0 GB.*train\.bptt_windows.* 3 ") as caught:
        fit(Large(), judge, OPTIONS, {SEED: tmp_path}, 18, Devices(mapping))  # pyright: ignore[reportArgumentType]
    assert "\n" not in str(caught.value)
    assert judge.seen == []
    assert list(tmp_path.iterdir()) == []
