"""The one training loop, for every model: batches in order, validation after each epoch, stop, resume."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
import pathlib
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from drex_jax.common.errors import DivergedError, Stopped, UserError
from drex_jax.common.progress import progress_bar as progress_bar
from drex_jax.common.signals import record_signals
from drex_jax.config.groups import TrainSettings
from drex_jax.devices import processes
from drex_jax.devices.mesh import Devices
from drex_jax.evaluation.evaluator import Evaluator
from drex_jax.metrics.names import lower_is_better
from drex_jax.models.protocol import Params, Stream
from drex_jax.runs.checkpoint import Checkpoints
from drex_jax.runs.layout import RunLayout
from drex_jax.runs.selection import Selection
from drex_jax.runs.step_log import MetricsLog
from drex_jax.training.optimizer import Pretrained, adam
from drex_jax.training.step import State, Trainer

FLUSH = 50  # calls of the device between visits of the losses to the host
AHEAD = 2  # calls that may wait for the device: more would only hold their batches in memory
LOGGER = logging.getLogger(__name__)
REMEDY = "lower train.learning_rate or train.clip_norm; the last good checkpoint is kept"


TIMING = (
    "train_seconds",
    "compile_seconds",
    "interactions_per_second",
    "steps",
    "epochs",
    "resumed_from",
    "replicas",
)


class Fitted(NamedTuple):
    """A trained model.

    Attributes:
      params: those of the best validation.
      selection: the frozen record.
      timing: by `TIMING`; `resumed_from` is a step or None, `replicas` how many seeds trained together (their rates
        add up). Of a model that is made in closed form, what does not apply is None.
    """

    params: Params
    selection: Selection
    timing: dict[str, Any]


@dataclasses.dataclass
class Replica:
    """What validation has said of one seed so far."""

    seed: int
    best_value: float | None = None
    best_epoch: int = 0
    finished: bool = False


@dataclasses.dataclass
class Progress:
    """All numbers that continue a run; saved as JSON beside `State`."""

    replicas: list[Replica]
    step: int = 0
    seconds: float = 0.0

    @property
    def finished(self) -> bool:
        """Whether patience or the epochs have run out for every seed."""
        return all(replica.finished for replica in self.replicas)

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any]) -> Progress:
        """From what `dataclasses.asdict` gave. Raises TypeError or KeyError where it is something else."""
        return cls(**{**facts, "replicas": [Replica(**replica) for replica in facts["replicas"]]})


def fit(
    stream: Stream,
    evaluator: Evaluator,
    options: TrainSettings,
    folders: Mapping[int, pathlib.Path],
    num_train: int,
    devices: Devices,
    pretrained: Pretrained | None = None,
) -> list[Fitted]:
    """Trains a model on one seed or on several at once, continuing from the newest checkpoint.

    Args:
      stream: the model and its train batches.
      evaluator: over the same data.
      options: how.
      folders: of each seed, for its `metrics.jsonl`; `checkpoints/` are in the first.
      num_train: train interactions, for the rate.
      devices: what to train on.
      pretrained: what does not begin anew.

    Returns:
      One for each seed, in the order of `folders`.

    Raises:
      Stopped: SIGTERM or SIGINT came; everything is saved.
      UserError: a step does not fit into memory, the loss is not finite, or validation has no metric
        `options.selection`.
    """
    seeds, folder = list(folders), next(iter(folders.values()))
    layout = RunLayout(folder)
    init = jax.jit(stream.init)  # at once: op by op it takes seconds
    steps_per_epoch = stream.steps_per_epoch()
    choices = evaluator.validation_metrics()
    if not steps_per_epoch:
        name = options.selection if options.selection in choices else next(iter(choices), "none")
        params = init(jax.random.key(seeds[0]))
        selection = Selection.of(params, name, evaluator.validate(params, {name}).get(name, 0.0), 0)
        timing = dict.fromkeys(TIMING) | {"steps": 0, "epochs": 0, "replicas": len(seeds)}
        return [Fitted(params, selection, timing) for _ in seeds]
    if options.selection not in choices:
        which = " ".join(choices) or "(none: nothing in validation is rated; evaluate.ranking=true adds more)"
        raise UserError(
            f"train.selection={options.selection}: validation has no such metric here; choose one of {which}"
        )
    _require_room(stream, len(seeds), devices)
    total = options.epochs * steps_per_epoch
    optimizer = adam(
        options.learning_rate, options.warmup_steps, options.decay, options.weight_decay, options.clip_norm, total
    )
    params = [init(jax.random.key(seed)) for seed in seeds]
    if pretrained is not None:
        params = [pretrained.put_into(each) for each in params]
        optimizer = optax.chain(optimizer, pretrained.slowed(options.learning_rate))
    trainer = Trainer(stream, optimizer, seeds, devices)
    state = trainer.begin(params)
    progress = Progress([Replica(seed) for seed in seeds])
    with record_signals() as stop, Checkpoints(layout.checkpoints) as checkpoints:  # left last: closing still saves
        restored = checkpoints.restore(state)
        if restored is not None:
            step, state, facts = restored
            try:
                progress = Progress.from_facts(facts)
            except (TypeError, KeyError):
                raise UserError(
                    f"{layout.checkpoints}: step {step} is damaged or of another version; remove it to start over"
                ) from None
            _require_and_judge_again(progress, options, steps_per_epoch)
            LOGGER.info("continuing from step %d of %s", step, folder)
        resumed_from = progress.step if restored is not None else None
        compile_seconds = trainer.compile(state)
        processes.wait()  # who found the program in a cache, for who did not
        logs = [
            MetricsLog(RunLayout(each).metrics, progress.step, tensorboard=options.tensorboard)
            for each in folders.values()
        ]
        silent = None if processes.is_main_process() else True
        bar = progress_bar(
            "training", options.epochs * num_train, "interactions", disable=silent, delay=0.0, leave=True
        )
        bar.update(progress.step * num_train // steps_per_epoch)
        saved_at, saved_step = time.monotonic(), progress.step
        with contextlib.ExitStack() as stack:
            for context in (*logs, bar):
                stack.enter_context(context)
            while not progress.finished:
                epoch, first = divmod(progress.step, steps_per_epoch)
                if first == 0:
                    state = trainer.begin_epoch(state, epoch)
                begun = time.monotonic()
                pending: list[tuple[dict[str, jax.Array], int]] = []
                for chunk in trainer.batches(epoch, first):
                    state, figures = trainer.step(state, chunk, progress.step)
                    pending.append((figures, chunk.updates))
                    progress.step += chunk.updates
                    bar.update(chunk.updates * num_train // steps_per_epoch)
                    at_end = progress.step % steps_per_epoch == 0
                    overdue = time.monotonic() - saved_at >= options.checkpoint_seconds
                    overdue |= _passed(options.checkpoint_steps, saved_step, progress.step)
                    due, stopping = processes.agree(overdue, bool(stop.signal))
                    if not (at_end or due or stopping or len(pending) == FLUSH):
                        if len(pending) > AHEAD:
                            jax.block_until_ready(pending[-AHEAD][0])
                        continue
                    losses = _to_host(pending, progress.step, steps_per_epoch, trainer)
                    progress.seconds += time.monotonic() - begun  # training alone, without validation
                    metrics: list[dict[str, float]] = [{} for _ in seeds]
                    if at_end:
                        metrics = [
                            evaluator.validate(params, {options.selection}) for params in trainer.each(state.params)
                        ]
                        values = [metric[options.selection] for metric in metrics]
                        state = _judge(state, progress, values, epoch + 1, options, trainer)
                        (stopping,) = processes.agree(bool(stop.signal))  # validation takes its time
                        bar.set_postfix({options.selection: f"{np.mean(values):.4f}"})
                    if progress.step == total:
                        for replica in progress.replicas:
                            replica.finished = True
                    for log, seed_losses, seed_metrics in zip(logs, losses, metrics, strict=True):
                        log.write(progress.step, epoch + 1, seed_losses, seed_metrics)
                    if stopping or progress.finished or due:
                        checkpoints.save(progress.step, state, dataclasses.asdict(progress))
                        saved_at, saved_step = time.monotonic(), progress.step
                    if stopping:  # agreed on: what has come since waits for the next step
                        cause = stop.signal or "a signal to another process"
                        raise Stopped(f"stopped by {cause} at step {progress.step}, saved; run the same command")
                    begun, pending = time.monotonic(), []
    if processes.agree(bool(stop.signal))[0]:  # since the last step
        cause = stop.signal or "a signal to another process"
        raise Stopped(f"stopped by {cause} after the last step, saved; run the same command")
    timing = {
        "train_seconds": progress.seconds,
        "compile_seconds": compile_seconds,
        "interactions_per_second": num_train * (progress.step / steps_per_epoch) / max(progress.seconds, 1e-9),
        "steps": progress.step,
        "epochs": progress.step // steps_per_epoch,
        "resumed_from": resumed_from,
        "replicas": len(seeds),
    }
    fitted = []
    for replica, params in zip(progress.replicas, trainer.each(state.best), strict=True):
        assert replica.best_value is not None
        selection = Selection.of(params, options.selection, replica.best_value, replica.best_epoch)
        fitted.append(Fitted(devices.place(params), selection, timing))
    return fitted


def _require_room(stream: Stream, replicas: int, devices: Devices) -> None:
    """Says how much memory a training step takes, and refuses one that cannot fit.

    Raises:
      UserError: it cannot; the message proposes more windows.
    """
    needed, present = stream.step_bytes() * replicas, devices.memory()
    room = "" if present is None else f" of {present / 1e9:.1f} GB"
    LOGGER.info("a training step takes about %.2f GB%s of memory on each device", needed / 1e9, room)
    if present is not None and needed > present:
        raise UserError(
            f"a training step takes about {needed / 1e9:.1f} GB, and a device has {present / 1e9:.1f} GB: "
            f"make train.bptt_windows {math.ceil(needed / present)} times as many, or ranker.size smaller"
        )


def _to_host(
    pending: list[tuple[dict[str, jax.Array], int]], last: int, steps_per_epoch: int, trainer: Trainer
) -> list[list[dict[str, float]]]:
    """For each seed the figures of the last steps as numbers.

    Raises:
      DivergedError: one of them is not finite; the message names its step, and the batch (of DReX the window).
    """
    by_step = [
        [{name: float(values[number]) for name, values in of_seed.items()} for of_seed in trainer.each(figures)]
        for figures, count in jax.device_get(pending)
        for number in range(count)
    ]
    for step, of_seeds in enumerate(by_step, last - len(by_step) + 1):
        for values in of_seeds:
            if not np.isfinite(list(values.values())).all():
                epoch, batch = divmod(step - 1, steps_per_epoch)
                raise DivergedError(
                    f"the loss is not finite at step {step}, batch {batch + 1} of {steps_per_epoch} of epoch "
                    f"{epoch + 1} ({', '.join(f'{k}={v:g}' for k, v in values.items())}): {REMEDY}"
                )
    return [list(of_seed) for of_seed in zip(*by_step, strict=True)]


def _require_and_judge_again(progress: Progress, options: TrainSettings, steps_per_epoch: int) -> None:
    """Whether each seed is finished, under epochs that may be others than when the checkpoint was saved.

    Raises:
      UserError: more epochs are begun than are asked for now.
    """
    epochs = -(-progress.step // steps_per_epoch)
    if epochs > options.epochs:
        raise UserError(f"train.epochs={options.epochs}: epoch {epochs} is begun already; ask for at least so many")
    ended = progress.step == options.epochs * steps_per_epoch
    for replica in progress.replicas:
        replica.finished = ended or progress.step // steps_per_epoch - replica.best_epoch >= options.patience


def _passed(interval: int, before: int, now: int) -> bool:
    """Whether a multiple of `interval` steps has been reached since `before`; with 0 there are none."""
    return interval > 0 and now // interval > before // interval


def _judge(
    state: State, progress: Progress, values: list[float], epoch: int, options: TrainSettings, trainer: Trainer
) -> State:
    """Keeps each seed's best parameters, and ends its training where patience does.

    Raises:
      DivergedError: a validation metric is not finite.
    """
    sign = 1 if lower_is_better(options.selection) else -1
    better = []
    for replica, value in zip(progress.replicas, values, strict=True):
        if not math.isfinite(value):
            raise DivergedError(f"validation {options.selection} is {value} after step {progress.step}: {REMEDY}")
        improved = replica.best_value is None or sign * value < sign * replica.best_value
        better.append(improved and not replica.finished)
        if better[-1]:
            replica.best_value, replica.best_epoch = value, epoch
        replica.finished |= epoch - replica.best_epoch >= options.patience
    return state._replace(best=trainer.choose(better, state.params, state.best))
