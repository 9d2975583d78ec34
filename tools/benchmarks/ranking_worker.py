"""Run one implementation in its own process, so that its memory is measured alone.

`tools.benchmarks.ranking_race` starts `python -m tools.benchmarks.ranking_worker` and exchanges lines of JSON with it.
The worker reads a job and answers with facts when it is ready. Then it reads numbers of updates (null: a whole epoch)
and answers each with the seconds that they took and its peak memory (our implementation also with `Progress`), until
its input ends. Everything that is printed goes to standard error.

Workers that train with PyTorch never import JAX, and ours never import PyTorch.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import json
import os
import pathlib
import resource
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO

import numpy as np

from drex_jax.common.cores import available_cores
from drex_jax.common.errors import UserError
from drex_jax.runs.dataset import Dataset, open_dataset, prepare
from drex_jax.training.settings import Settings, changed, ranking, settings_of
from tools.benchmarks import ranking_data, ranking_peer, torch_module

if TYPE_CHECKING:
    from tools.benchmarks.evaluation import Problem

OURS = "ours"
FAILED = 2
TRIAL = 5  # number of updates of the trial that chooses PyTorch's number of threads

Run = Callable[[int | None], Any]  # runs some updates (None: all); ours returns `Progress`


class Progress(NamedTuple):
    """Progress of our implementation: number of updates, and seconds before the first (building the epoch's graphs)."""

    updates: int
    begin_seconds: float


@dataclasses.dataclass(frozen=True)
class Job:
    """The task of a worker.

    Attributes:
      task: `prepare` (a data set), `train` (epochs) or `evaluate` (full rankings).
      workdir: the folder of the prepared data set.
      implementation: `ours`, or a layout of `ranking_peer` (`evaluate`: `dense`, PyTorch's only one).
      model: name of the model that is trained.
      layers: number of products with the graph of users and items.
      source: for `prepare`: a folder in MMRec's layout; None: synthetic data of `size`.
      size: users, items and interactions of the synthetic data.
      widths: feature columns of the synthetic modalities.
    """

    task: str
    workdir: str
    implementation: str = OURS
    model: str = "lightgcn"
    layers: int = 2
    source: str | None = None
    size: tuple[int, int, int] | None = None
    widths: Sequence[int] = ranking_data.WIDTHS


def main(lines: TextIO, answers: TextIO) -> int:
    """Do one job and return the exit status."""

    def answer(**values: Any) -> None:
        print(json.dumps(values), file=answers, flush=True)

    try:
        job = Job(**json.loads(lines.readline()))
        begin = time.perf_counter()
        facts, run = _prepare(job) if job.task == "prepare" else _ready(job)
        answer(**facts, start_seconds=time.perf_counter() - begin, peak_bytes=peak_bytes())
        for line in lines:
            updates = json.loads(line)
            begin = time.perf_counter()
            progress = run(updates)
            seconds = time.perf_counter() - begin
            facts = progress._asdict() if isinstance(progress, Progress) else {}
            answer(seconds=seconds, peak_bytes=peak_bytes(), **facts)
    except UserError as error:
        answer(error=" ".join(str(error).split()))
        return FAILED
    return 0


def peak_bytes() -> int:
    """Return the peak memory of this process in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def configuration(job: Job) -> Settings:
    """Return the settings of a job, with the constants of PyTorch's side: only FREEDOM samples edges."""
    config: Any = ranking(job.model, "", "")
    config.data.path = job.workdir
    config.data.cache_dir = str(pathlib.Path(job.workdir) / "cache")
    shared = ranking_peer.PeerOptions
    config.ranker.update(
        batch_size=shared.batch_size,
        layers=job.layers,
        l2=shared.l2,
        edge_dropout=shared.edge_dropout if job.model == "freedom" else 0.0,
    )
    config.train.learning_rate = shared.learning_rate
    config.baselines = ()
    config.devices.mapping = "none"
    return settings_of(config)


def train_of(data: Dataset) -> ranking_peer.Train:
    """Return the peer's training data: modalities in alphabetical order, zeros for missing features."""
    events = data.events
    train = data.sizes[0]
    pairs = np.unique(events.user[:train].astype(np.int64) * events.num_items + events.item[:train])  # distinct
    user, item = np.divmod(pairs, events.num_items)
    vectors = events.item_vectors
    features = tuple(np.nan_to_num(np.asarray(vectors[name], np.float32)) for name in sorted(vectors))
    return ranking_peer.Train(user, item, events.num_users, events.num_items, features)


def _prepare(job: Job) -> tuple[dict[str, Any], Run]:
    workdir = pathlib.Path(job.workdir)
    folder, random = workdir / "data", False
    if job.source is not None:
        random = ranking_data.with_features(folder, pathlib.Path(job.source), job.widths)
    elif job.size is not None:
        ranking_data.write(folder, ranking_data.Size(*job.size), job.widths)
        random = True
    config = changed(configuration(job), {"data.path": str(folder)})
    data = prepare(config, workdir)
    facts = {
        "data": data.interactions.name,
        "users": data.events.num_users,
        "items": data.events.num_items,
        "interactions": len(data.interactions),
        "train": data.sizes[0],
        "modalities": {name: vectors.shape[1] for name, vectors in sorted(data.events.item_vectors.items())},
        "random_features": random,
    }
    return facts, lambda _: None


def _ready(job: Job) -> tuple[dict[str, Any], Run]:
    config = configuration(job)
    data = open_dataset(config, pathlib.Path(job.workdir))
    if job.implementation == OURS:
        import jax

        facts = {
            "framework": f"jax {jax.__version__}",
            "threads": available_cores(),
            "device": f"{jax.devices()[0].device_kind} x {jax.device_count()}",
            "base_bytes": peak_bytes(),
        }
        return facts, ours(job.model, config, data) if job.task == "train" else _evaluation(data, job.implementation)
    torch = torch_module.load()
    if job.task == "evaluate":
        importlib.import_module("tools.benchmarks.evaluation")  # imports JAX now, so that it counts as base memory
    facts = {"framework": f"torch {torch.__version__}", "device": "cpu", "base_bytes": peak_bytes()}
    if job.task == "evaluate":
        run = _evaluation(data, job.implementation)
    else:
        options = ranking_peer.PeerOptions(layers=job.layers)
        run = ranking_peer.Peer(job.model, train_of(data), options, job.implementation).epoch
    return facts | {"threads": _set_threads(torch, run)}, run


def _set_threads(torch: Any, run: Run) -> int:
    """Use one thread for each core, or a single thread if that is faster, as it can be on a busy machine."""
    seconds: dict[int, float] = {}
    for threads in (1, available_cores()):
        torch.set_num_threads(threads)
        run(1)
        begin = time.perf_counter()
        run(TRIAL)
        seconds[threads] = time.perf_counter() - begin
    torch.set_num_threads(min(seconds, key=lambda threads: seconds[threads]))
    return torch.get_num_threads()


def ours(name: str, config: Settings, data: Dataset) -> Run:
    """Compile a model of this package. Return a function that trains for an epoch, or for about its first updates."""
    import jax
    import optax

    from drex_jax.training import registry
    from drex_jax.training.step import Trainer

    context = registry.context(config)
    stream = registry.build(name, config, data, config.seed, context)
    if not stream.steps_per_epoch():
        raise UserError(f"{name} does not train in epochs, so that there is nothing to time")
    trainer = Trainer(stream, optax.adam(config.train.learning_rate), [config.seed], context.devices)
    state = trainer.begin([jax.jit(stream.init)(jax.random.key(config.seed))])
    trainer.compile(state)
    epoch, steps = 0, 0

    def run(limit: int | None) -> Progress:
        nonlocal state, epoch, steps
        begin = time.perf_counter()
        state = jax.block_until_ready(trainer.begin_epoch(state, epoch))
        began = time.perf_counter() - begin
        done, waiting = 0, []
        for chunk in trainer.batches(epoch, 0):
            state, figures = trainer.step(state, chunk, steps)
            waiting.append(figures)
            done += chunk.updates
            if limit is not None and done >= limit:
                break
        losses = np.concatenate([each["loss"] for each in jax.device_get(waiting)])[:done]
        jax.block_until_ready(state)
        if not np.isfinite(losses).all():
            raise UserError(f"{name}: the loss is not finite")
        steps += done
        epoch += 1
        return Progress(done, began)

    return run


def _evaluation(data: Dataset, implementation: str) -> Run:
    from tools.benchmarks import evaluation

    prepare = evaluation.ours if implementation == OURS else evaluation.torch_full_ranking
    evaluate = prepare(problem(data))
    return lambda _: evaluate()


def problem(data: Dataset) -> Problem:
    """Return the ranking of every test user's test items among all items except the train items, by random rows."""
    from tools.benchmarks.evaluation import Problem

    events, (train, validation, _) = data.events, data.sizes
    parts = slice(train + validation, None), slice(0, train)
    relevant, masked = ((events.user[part].astype(np.int64), events.item[part].astype(np.int64)) for part in parts)
    rng = np.random.default_rng(3)
    size = ranking_peer.PeerOptions.size
    user, item = (rng.standard_normal((count, size), np.float32) for count in (events.num_users, events.num_items))
    return Problem(user, item, relevant, masked)


if __name__ == "__main__":
    output = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    with contextlib.suppress(BrokenPipeError):  # the parent process has ended
        sys.exit(main(sys.stdin, output))
