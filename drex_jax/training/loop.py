"""The one training loop, for every model: batches in order, validation after each epoch, stop, resume."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from drex_jax.common.errors import DivergedError, Stopped, UserError
from drex_jax.common.progress import progress_bar
from drex_jax.common.signals import StopRequest, record_signals
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
from drex_jax.training.progress import Progress, Replica
from drex_jax.training.step import Chunk, State, Trainer

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
      params: the parameters of the best validation.
      selection: the record of what validation chose.
      timing: the figures of `TIMING`. `resumed_from` is a step or None; `replicas` is how many seeds trained together,
        whose rates add up. For a closed-form model, what does not apply is None.
    """

    params: Params
    selection: Selection
    timing: dict[str, Any]


def fit(
    stream: Stream,
    evaluator: Evaluator,
    options: TrainSettings,
    folders: Mapping[int, pathlib.Path],
    num_train: int,
    devices: Devices,
    pretrained: Pretrained | None = None,
) -> list[Fitted]:
    """Train a model on one seed, or on several at once, from the newest checkpoint on.

    Args:
      stream: the model and its train batches.
      evaluator: evaluates the model on the same data.
      options: how to train.
      folders: the folder of each seed, for its `metrics.jsonl`; `checkpoints/` are in the first.
      num_train: number of train interactions, for the rate.
      devices: devices to train on.
      pretrained: parameters that do not start at random.

    Returns:
      A trained model for each seed, in the order of `folders`.

    Raises:
      Stopped: SIGTERM or SIGINT came; everything is saved.
      UserError: a step does not fit into memory, the loss is not finite, or validation has no metric
        `options.selection`.
    """
    seeds, layout = list(folders), RunLayout(next(iter(folders.values())))
    init = jax.jit(stream.init)  # at once: op by op it takes seconds
    if not stream.steps_per_epoch():
        return _closed_form(init(jax.random.key(seeds[0])), evaluator, options.selection, len(seeds))
    _require_metric(options.selection, evaluator.validation_metrics())
    _require_room(stream, len(seeds), devices)
    params = [init(jax.random.key(seed)) for seed in seeds]
    trainer, state = _trainer(stream, options, params, seeds, devices, pretrained)
    progress = Progress([Replica(seed) for seed in seeds])
    # The checkpoints are left last: closing them still saves.
    with record_signals() as stop, Checkpoints(layout.checkpoints) as checkpoints:
        state, progress, resumed_from = _resume(checkpoints, state, progress, options, stream.steps_per_epoch(), layout)
        compile_seconds = trainer.compile(state)
        processes.wait()  # for the processes that had to compile what others found in a cache
        with contextlib.ExitStack() as stack:
            logs = [
                MetricsLog(RunLayout(folder).metrics, progress.step, tensorboard=options.tensorboard)
                for folder in folders.values()
            ]
            loop = _Loop(
                trainer=trainer,
                validate=lambda params: evaluator.validate(params, {options.selection})[options.selection],
                options=options,
                steps_per_epoch=stream.steps_per_epoch(),
                num_train=num_train,
                state=state,
                progress=progress,
                checkpoints=checkpoints,
                logs=[stack.enter_context(log) for log in logs],
                bar=stack.enter_context(_bar(options.epochs * num_train)),
                stop=stop,
            )
            state = loop.run()
    if processes.agree(bool(stop.signal))[0]:  # since the last step
        raise Stopped(f"stopped by {_cause(stop)} after the last step, saved; run the same command")
    timing = {
        "train_seconds": progress.seconds,
        "compile_seconds": compile_seconds,
        "interactions_per_second": num_train * (progress.step / stream.steps_per_epoch()) / max(progress.seconds, 1e-9),
        "steps": progress.step,
        "epochs": progress.step // stream.steps_per_epoch(),
        "resumed_from": resumed_from,
        "replicas": len(seeds),
    }
    fitted = []
    for replica, best in zip(progress.replicas, trainer.each(state.best), strict=True):
        assert replica.best_value is not None
        selection = Selection.of(best, options.selection, replica.best_value, replica.best_epoch)
        fitted.append(Fitted(devices.place(best), selection, timing))
    return fitted


def _closed_form(params: Params, evaluator: Evaluator, selection: str, seeds: int) -> list[Fitted]:
    """Evaluate a model that needs no training: its initial parameters are final."""
    choices = evaluator.validation_metrics()
    name = selection if selection in choices else next(iter(choices), "none")
    record = Selection.of(params, name, evaluator.validate(params, {name}).get(name, 0.0), 0)
    timing = dict.fromkeys(TIMING) | {"steps": 0, "epochs": 0, "replicas": seeds}
    return [Fitted(params, record, timing) for _ in range(seeds)]


def _require_metric(selection: str, choices: Sequence[str]) -> None:
    if selection not in choices:
        which = " ".join(choices) or "(none: nothing in validation is rated; evaluate.ranking=true adds more)"
        raise UserError(f"train.selection={selection}: validation has no such metric here; choose one of {which}")


def _require_room(stream: Stream, replicas: int, devices: Devices) -> None:
    """Log how much memory a training step takes, and refuse one that cannot fit.

    Raises:
      UserError: it cannot fit; the message proposes more windows.
    """
    needed, present = stream.step_bytes() * replicas, devices.memory()
    room = "" if present is None else f" of {present / 1e9:.1f} GB"
    LOGGER.info("a training step takes about %.2f GB%s of memory on each device", needed / 1e9, room)
    if present is not None and needed > present:
        raise UserError(
            f"a training step takes about {needed / 1e9:.1f} GB, and a device has {present / 1e9:.1f} GB: "
            f"make train.bptt_windows {math.ceil(needed / present)} times as many, or ranker.size smaller"
        )


def _trainer(
    stream: Stream,
    options: TrainSettings,
    params: list[Params],
    seeds: list[int],
    devices: Devices,
    pretrained: Pretrained | None,
) -> tuple[Trainer, State]:
    """Make the training step, and the state before the first one."""
    total = options.epochs * stream.steps_per_epoch()
    optimizer = adam(
        options.learning_rate, options.warmup_steps, options.decay, options.weight_decay, options.clip_norm, total
    )
    if pretrained is not None:
        params = [pretrained.put_into(of_seed) for of_seed in params]
        optimizer = optax.chain(optimizer, pretrained.slowed(options.learning_rate))
    trainer = Trainer(stream, optimizer, seeds, devices)
    return trainer, trainer.begin(params)


def _resume(
    checkpoints: Checkpoints,
    state: State,
    progress: Progress,
    options: TrainSettings,
    steps_per_epoch: int,
    layout: RunLayout,
) -> tuple[State, Progress, int | None]:
    """Return state, progress and step of the newest checkpoint; without one, the given state and progress, and None.

    Raises:
      UserError: the checkpoint is of another version, or more epochs are begun than are asked for now.
    """
    restored = checkpoints.restore(state)
    if restored is None:
        return state, progress, None
    step, state, facts = restored
    try:
        progress = Progress.from_facts(facts)
    except (TypeError, KeyError):
        raise UserError(
            f"{layout.checkpoints}: step {step} is damaged or of another version; remove it to start over"
        ) from None
    epochs = -(-progress.step // steps_per_epoch)
    if epochs > options.epochs:
        raise UserError(f"train.epochs={options.epochs}: epoch {epochs} is begun already; ask for at least so many")
    ended = progress.step == options.epochs * steps_per_epoch
    for replica in progress.replicas:  # the number of epochs may have changed since
        replica.finished = ended or progress.step // steps_per_epoch - replica.best_epoch >= options.patience
    LOGGER.info("continuing from step %d of %s", step, layout.folder)
    return state, progress, progress.step


def _bar(interactions: int) -> Any:
    silent = None if processes.is_main_process() else True
    return progress_bar("training", interactions, "interactions", disable=silent, delay=0.0, leave=True)


@dataclasses.dataclass
class _Loop:
    """The training of one run, from its current step to its end.

    Attributes:
      trainer: makes the updates.
      validate: the value of `options.selection` on validation, of some parameters.
      options: how to train.
      steps_per_epoch: updates of an epoch.
      num_train: train interactions.
      state, progress: what continues the run.
      checkpoints: where it is saved.
      logs: one for each seed.
      bar: shows the progress.
      stop: the request to stop, if there is one.
    """

    trainer: Trainer
    validate: Callable[[Params], float]
    options: TrainSettings
    steps_per_epoch: int
    num_train: int
    state: State
    progress: Progress
    checkpoints: Checkpoints
    logs: list[MetricsLog]
    bar: Any
    stop: StopRequest

    def __post_init__(self) -> None:
        self._pending: list[tuple[dict[str, jax.Array], int]] = []  # figures on the device, and of how many updates
        self._begun = self._saved_at = time.monotonic()
        self._saved_step = self.progress.step
        self.bar.update(self._interactions(self.progress.step))

    def run(self) -> State:
        """Train to the end, and return the last state.

        Raises:
          Stopped: a signal came; everything is saved.
          DivergedError: a loss or a validation metric is not finite.
        """
        while not self.progress.finished:
            self._train_epoch()
        return self.state

    def _train_epoch(self) -> None:
        """Train the rest of an epoch: updates in chunks, with a flush whenever something is due."""
        epoch, first = divmod(self.progress.step, self.steps_per_epoch)
        if first == 0:
            self.state = self.trainer.begin_epoch(self.state, epoch)
        self._begun, self._pending = time.monotonic(), []
        for chunk in self.trainer.batches(epoch, first):
            self._update(chunk)
            due, stopping = processes.agree(self._overdue(), bool(self.stop.signal))
            if self._at_end_of_epoch() or due or stopping or len(self._pending) == FLUSH:
                self._flush(epoch, due, stopping)
            elif len(self._pending) > AHEAD:
                jax.block_until_ready(self._pending[-AHEAD][0])

    def _update(self, chunk: Chunk) -> None:
        self.state, figures = self.trainer.step(self.state, chunk, self.progress.step)
        self._pending.append((figures, chunk.updates))
        self.progress.step += chunk.updates
        self.bar.update(self._interactions(chunk.updates))

    def _flush(self, epoch: int, due: bool, stopping: bool) -> None:
        """Bring the losses to the host; at the end of an epoch validate; log; save where that is due; stop if asked."""
        progress = self.progress
        losses = self._losses()
        progress.seconds += time.monotonic() - self._begun  # training alone, without validation
        metrics: list[dict[str, float]] = [{} for _ in progress.replicas]
        if self._at_end_of_epoch():
            metrics = self._validate(epoch + 1)
            (stopping,) = processes.agree(bool(self.stop.signal))  # validation takes its time
        if progress.step == self.options.epochs * self.steps_per_epoch:
            for replica in progress.replicas:
                replica.finished = True
        for log, seed_losses, seed_metrics in zip(self.logs, losses, metrics, strict=True):
            log.write(progress.step, epoch + 1, seed_losses, seed_metrics)
        if stopping or progress.finished or due:
            self.checkpoints.save(progress.step, self.state, dataclasses.asdict(progress))
            self._saved_at, self._saved_step = time.monotonic(), progress.step
        if stopping:  # all processes agreed on it; a signal that came since waits for the next step
            raise Stopped(f"stopped by {_cause(self.stop)} at step {progress.step}, saved; run the same command")
        self._begun, self._pending = time.monotonic(), []

    def _losses(self) -> list[list[dict[str, float]]]:
        """Return for each seed the figures of the last updates, as numbers.

        Raises:
          DivergedError: one is not finite; the message names its step, and the batch (for DReX, the window).
        """
        by_step = [
            [
                {name: float(values[number]) for name, values in of_seed.items()}
                for of_seed in self.trainer.each(figures)
            ]
            for figures, count in jax.device_get(self._pending)
            for number in range(count)
        ]
        for step, of_seeds in enumerate(by_step, self.progress.step - len(by_step) + 1):
            for values in of_seeds:
                if not np.isfinite(list(values.values())).all():
                    epoch, batch = divmod(step - 1, self.steps_per_epoch)
                    raise DivergedError(
                        f"the loss is not finite at step {step}, batch {batch + 1} of {self.steps_per_epoch} of epoch "
                        f"{epoch + 1} ({', '.join(f'{k}={v:g}' for k, v in values.items())}): {REMEDY}"
                    )
        return [list(of_seed) for of_seed in zip(*by_step, strict=True)]

    def _validate(self, epoch: int) -> list[dict[str, float]]:
        """Return each seed's validation metric; keep its best parameters, and end it when patience is used up.

        Raises:
          DivergedError: a validation metric is not finite.
        """
        name, better = self.options.selection, []
        values = [self.validate(params) for params in self.trainer.each(self.state.params)]
        sign = 1 if lower_is_better(name) else -1
        for replica, value in zip(self.progress.replicas, values, strict=True):
            if not math.isfinite(value):
                raise DivergedError(f"validation {name} is {value} after step {self.progress.step}: {REMEDY}")
            improved = replica.best_value is None or sign * value < sign * replica.best_value
            better.append(improved and not replica.finished)
            if better[-1]:
                replica.best_value, replica.best_epoch = value, epoch
            replica.finished |= epoch - replica.best_epoch >= self.options.patience
        self.state = self.state._replace(best=self.trainer.choose(better, self.state.params, self.state.best))
        self.bar.set_postfix({name: f"{np.mean(values):.4f}"})
        return [{name: value} for value in values]

    def _at_end_of_epoch(self) -> bool:
        return self.progress.step % self.steps_per_epoch == 0

    def _overdue(self) -> bool:
        """True if it is time for a checkpoint, by the clock or by steps."""
        interval, step = self.options.checkpoint_steps, self.progress.step
        by_steps = interval > 0 and step // interval > self._saved_step // interval
        return by_steps or time.monotonic() - self._saved_at >= self.options.checkpoint_seconds

    def _interactions(self, updates: int) -> int:
        return updates * self.num_train // self.steps_per_epoch


def _cause(stop: StopRequest) -> str:
    return stop.signal or "a signal to another process"
