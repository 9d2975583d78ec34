"""The one training loop, for every model: batches in order, validation after each epoch, stop, resume."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import logging
import math
import pathlib
import signal
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from tqdm import tqdm

from drex_jax import parallel
from drex_jax.checkpoint import Checkpoints
from drex_jax.errors import Stopped, UserError
from drex_jax.evaluate import Evaluator, Selection, lower_is_better
from drex_jax.metrics_log import MetricsLog
from drex_jax.models.axis import Axis
from drex_jax.models.protocol import Carry, Model, Params
from drex_jax.parallel import Devices

FLUSH = 50  # steps between visits of the losses to the host
AHEAD = 2  # steps that may wait for the device: more would only hold their batches in memory
LOGGER = logging.getLogger(__name__)
REMEDY = "lower train.learning_rate or train.clip_norm; the last good checkpoint is kept"


@dataclasses.dataclass(frozen=True)
class Options:
    """How to train. Fields as in `drex_jax.config`."""

    epochs: int
    learning_rate: float
    warmup_steps: int
    weight_decay: float
    clip_norm: float
    patience: int
    selection: str
    checkpoint_seconds: float
    seed: int
    tensorboard: bool = False


class Fitted(NamedTuple):
    """A trained model.

    Attributes:
      params: those of the best validation.
      selection: the frozen record.
      timing: `train_seconds`, `compile_seconds`, `interactions_per_second`, `steps`, `epochs`, `resumed_from` (a step,
        or None).
    """

    params: Params
    selection: Selection
    timing: dict[str, Any]


class State(NamedTuple):
    """All arrays that continue a run."""

    params: Params
    optimizer: Any
    carry: Carry
    best: Params


@dataclasses.dataclass
class Progress:
    """All numbers that continue a run; saved as JSON beside `State`."""

    step: int = 0
    best_value: float | None = None
    best_epoch: int = 0
    finished: bool = False
    seconds: float = 0.0
    seed: int = 0


def fit(
    model: Model, evaluator: Evaluator, options: Options, folder: pathlib.Path, num_train: int, devices: Devices
) -> Fitted:
    """Trains a model, continuing from the newest checkpoint in `folder`.

    Args:
      model: what to train.
      evaluator: over the same data.
      options: how.
      folder: the run's directory, for `checkpoints/` and `metrics.jsonl`.
      num_train: train interactions, for the rate.
      devices: what to train on.

    Raises:
      Stopped: SIGTERM or SIGINT came; everything is saved.
      UserError: a step does not fit into memory, the loss is not finite, or validation has no metric
        `options.selection`.
    """
    params = jax.jit(model.init)(jax.random.key(options.seed))  # at once: op by op it takes seconds
    steps_per_epoch = model.steps_per_epoch()
    choices = evaluator.validation_metrics()
    if not steps_per_epoch:
        name = options.selection if options.selection in choices else next(iter(choices), "none")
        return Fitted(params, Selection(name, evaluator.validate(params, {name}).get(name, 0.0), 0), {})
    if options.selection not in choices:
        which = " ".join(choices) or "(none: nothing in validation is rated; evaluate.ranking=true adds more)"
        raise UserError(
            f"train.selection={options.selection}: validation has no such metric here; choose one of {which}"
        )
    total = options.epochs * steps_per_epoch
    optimizer = _optimizer(options, total)
    _require_room(model, devices)
    state = devices.place(State(params, optimizer.init(params), model.start(params), jax.tree.map(jnp.copy, params)))
    progress = Progress(seed=options.seed)
    with _stop_requests() as stop, Checkpoints(folder / "checkpoints") as checkpoints:  # left last: closing still saves
        restored = checkpoints.restore(state)
        if restored is not None:
            step, state, facts = restored
            try:
                progress = Progress(**facts)
            except TypeError:
                raise UserError(
                    f"{folder / 'checkpoints'}: step {step} is damaged or of another version; remove it to start over"
                ) from None
            LOGGER.info("continuing from step %d of %s", step, folder)
        resumed_from = progress.step if restored is not None else None
        seed = np.uint32(options.seed)
        train_step, compile_seconds = _compile(model, optimizer, state, seed, devices)
        log = MetricsLog(folder / "metrics.jsonl", progress.step, tensorboard=options.tensorboard)
        bar = tqdm(total=options.epochs * num_train, unit=" interactions", disable=not sys.stderr.isatty())
        bar.update(progress.step * num_train // steps_per_epoch)
        saved_at = time.monotonic()
        with log, bar:
            while not progress.finished:
                epoch, first = divmod(progress.step, steps_per_epoch)
                if first == 0:
                    state = state._replace(carry=devices.place(model.start(state.params)))
                begun = time.monotonic()
                pending: list[dict[str, jax.Array]] = []
                for batch in devices.feed(itertools.islice(model.batches(epoch), first, None)):
                    state, sums = train_step(state, batch, seed, np.int32(progress.step))
                    pending.append(sums)
                    progress.step += 1
                    bar.update(num_train // steps_per_epoch)
                    at_end = progress.step % steps_per_epoch == 0
                    overdue = time.monotonic() - saved_at >= options.checkpoint_seconds
                    due, stopping = parallel.agree(overdue, bool(stop.requested))
                    if not (at_end or due or stopping or len(pending) == FLUSH):
                        if len(pending) > AHEAD:
                            jax.block_until_ready(pending[-AHEAD])
                        continue
                    losses = _to_host(pending, progress.step)
                    progress.seconds += time.monotonic() - begun  # training alone, without validation
                    metrics = evaluator.validate(state.params, {options.selection}) if at_end else {}
                    if at_end:
                        state = _judge(state, progress, metrics[options.selection], epoch + 1, options)
                        progress.finished |= progress.step == total
                        bar.set_postfix({options.selection: f"{metrics[options.selection]:.4f}"})
                    log.write(progress.step, epoch + 1, losses, metrics)
                    stopped = stop.requested or ("a signal to another process" if stopping else "")
                    if stopped or progress.finished or due:
                        checkpoints.save(progress.step, state, dataclasses.asdict(progress))
                        saved_at = time.monotonic()
                    if stopped:
                        raise Stopped(f"stopped by {stopped} at step {progress.step}, saved; run the same command")
                    begun, pending = time.monotonic(), []
    if stop.requested:  # since the last step
        raise Stopped(f"stopped by {stop.requested} after the last step, saved; run the same command")
    timing = {
        "train_seconds": progress.seconds,
        "compile_seconds": compile_seconds,
        "interactions_per_second": num_train * (progress.step / steps_per_epoch) / max(progress.seconds, 1e-9),
        "steps": progress.step,
        "epochs": progress.step // steps_per_epoch,
        "resumed_from": resumed_from,
    }
    assert progress.best_value is not None
    return Fitted(state.best, Selection(options.selection, progress.best_value, progress.best_epoch), timing)


def _optimizer(options: Options, total: int) -> optax.GradientTransformation:
    """AdamW under a warm-up and a cosine to a twentieth of the peak, gradients clipped by their global norm.

    Weights decay in matrices alone: not in biases, starting states and other vectors.
    """
    peak = options.learning_rate
    warmup = min(options.warmup_steps, total // 2)
    rate = optax.warmup_cosine_decay_schedule(peak / (warmup + 1), peak, warmup, total, peak / 20)
    decay = optax.adamw(
        rate, weight_decay=options.weight_decay, mask=lambda params: jax.tree.map(lambda leaf: leaf.ndim > 1, params)
    )
    return optax.chain(optax.clip_by_global_norm(options.clip_norm), decay)


def _require_room(model: Model, devices: Devices) -> None:
    """Says how much memory a training step takes, and refuses one that cannot fit.

    Raises:
      UserError: it cannot; the message proposes more windows.
    """
    needed, present = model.step_bytes(), devices.memory()
    room = "" if present is None else f" of {present / 1e9:.1f} GB"
    LOGGER.info("a training step takes about %.2f GB%s of memory on each device", needed / 1e9, room)
    if present is not None and needed > present:
        raise UserError(
            f"a training step takes about {needed / 1e9:.1f} GB, and a device has {present / 1e9:.1f} GB: "
            f"set train.bptt_windows to at least {math.ceil(needed / present)} times what it is"
        )


def training_step(
    model: Model, optimizer: optax.GradientTransformation
) -> Callable[..., tuple[State, dict[str, jax.Array]]]:
    """One update as a program of one device: (axis, state, batch, seed, step) -> (state, figures to log)."""

    def train_step(
        axis: Axis, state: State, batch: Any, seed: jax.Array, step: jax.Array
    ) -> tuple[State, dict[str, jax.Array]]:
        grad = jax.value_and_grad(model.loss, has_aux=True)
        key = jax.random.fold_in(jax.random.key(seed), step)
        (loss, (carry, sums)), gradient = grad(state.params, state.carry, batch, key, axis)
        loss, sums, gradient = jax.tree.map(axis.total, (loss, sums, gradient))
        updates, optimizer_state = optimizer.update(gradient, state.optimizer, state.params)
        params = optax.apply_updates(state.params, updates)
        norm = optax.tree.norm(gradient)
        return State(params, optimizer_state, carry, state.best), {"loss": loss, "gradient_norm": norm, **sums}

    return train_step


def _compile(
    model: Model, optimizer: optax.GradientTransformation, state: State, seed: np.uint32, devices: Devices
) -> tuple[Callable[..., tuple[State, dict[str, jax.Array]]], float]:
    """The training step over all devices, compiled for its one shape, and how long that took."""
    begun = time.monotonic()
    sample = next(devices.feed(model.batches(0)))
    compiled = devices.compile_for(training_step(model, optimizer), state, sample, seed, np.int32(0))
    return compiled, time.monotonic() - begun


def _to_host(pending: list[dict[str, jax.Array]], last: int) -> list[dict[str, float]]:
    """The losses of the last steps as numbers.

    Raises:
      UserError: one of them is not finite; the message names its step.
    """
    losses = [{name: float(value) for name, value in sums.items()} for sums in jax.device_get(pending)]
    for step, values in enumerate(losses, last - len(losses) + 1):
        if not np.isfinite(list(values.values())).all():
            raise UserError(
                f"the loss is not finite at step {step} ({', '.join(f'{k}={v:g}' for k, v in values.items())}): "
                f"{REMEDY}"
            )
    return losses


def _judge(state: State, progress: Progress, value: float, epoch: int, options: Options) -> State:
    """Keeps the best parameters, and ends training where patience does.

    Raises:
      UserError: the validation metric is not finite.
    """
    if not math.isfinite(value):
        raise UserError(f"validation {options.selection} is {value} after step {progress.step}: {REMEDY}")
    sign = 1 if lower_is_better(options.selection) else -1
    if progress.best_value is None or sign * value < sign * progress.best_value:
        progress.best_value, progress.best_epoch = value, epoch
        state = state._replace(best=jax.tree.map(jnp.copy, state.params))
    progress.finished = epoch - progress.best_epoch >= options.patience
    return state


@dataclasses.dataclass
class _Stop:
    """The name of the signal that asked for a stop, or an empty string."""

    requested: str = ""


@contextlib.contextmanager
def _stop_requests() -> Iterator[_Stop]:
    """While inside, SIGTERM and SIGINT are noted instead of obeyed. Off the main thread they stay as they are."""
    stop = _Stop()

    def note(number: int, _: object) -> None:
        stop.requested = signal.Signals(number).name

    try:
        before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    except ValueError:
        before = {}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
