"""The section on missing modalities: the test is evaluated again with modalities dropped from its interactions."""

from __future__ import annotations

import logging

import numpy as np

from drex_jax.common.errors import UserError
from drex_jax.common.files import read_json
from drex_jax.data.ablation import Blank, without_rating, without_text, without_time, without_vector
from drex_jax.data.events import Events
from drex_jax.metrics.names import lower_is_better
from drex_jax.models.registry import entry_of
from drex_jax.report import figures
from drex_jax.report.run import Finished
from drex_jax.report.section import Figure, Section, Table
from drex_jax.runs.layout import RunLayout
from drex_jax.runs.trained import load_trained
from drex_jax.training import experiment

LOGGER = logging.getLogger(__name__)
SHARES = (0.25, 0.5, 0.75, 1.0)  # shares of test interactions that lose a modality; the run itself has 0
ALL = "all of them"
BLANKS: dict[str, Blank] = {"text": without_text, "rating": without_rating, "time": without_time}  # others are vectors


def measure(run: Finished) -> tuple[str, dict[str, list[float]]] | None:
    """Return the metric, and its values by modality: with nothing missing, then with each of `SHARES`.

    The first seed is evaluated. Every modality is dropped from the same interactions, and the interactions of a share
    are a subset of those of the next larger share. The model does not see the dropped modality; its predictions are
    still compared with the true ratings. Returns None if the model reads no modality.

    Raises:
      UserError: the run directory is damaged.
    """
    kind = entry_of(run.config.model.name).load()
    read = kind.from_constants(read_json(RunLayout(run.workdir).constants, ())).modalities
    if not read:
        return None
    blanks: dict[str, Blank] = {name: BLANKS.get(name) or without_vector(name) for name in read}
    _, dataset, stream, evaluator = experiment.reopen(run.workdir)
    if len(blanks) > 1:
        blanks[ALL] = _all(list(blanks.values()))
    params, selection = load_trained(stream, run.workdir)
    after_train, validation, test = stream.segments()
    start = stream.start(params)
    for segment in (after_train, validation):
        start = stream.after(params, start, segment)
    begin = dataset.sizes[0] + dataset.sizes[1]
    events = dataset.events[begin : len(dataset.events)]
    draw = np.random.default_rng(run.config.seed).random(len(events))
    _, trace = stream.observe(params, start, test)
    whole = evaluator.prequential_test(params, selection, start, trace)
    metric = run.metric if run.metric in whole else next(iter(whole), "")
    if not metric:
        return None
    by_modality: dict[str, list[float]] = {}
    for name, blank in blanks.items():
        LOGGER.info("robustness: without %s", name)
        by_modality[name] = [whole[metric]]
        for share in SHARES:
            segment = stream.test_with(blank(events, draw < share))
            _, trace = stream.observe(params, start, segment)
            by_modality[name].append(evaluator.prequential_test(params, selection, start, trace)[metric])
    return metric, by_modality


def _all(blanks: list[Blank]) -> Blank:
    def without(events: Events, missing: np.ndarray) -> Events:
        for blank in blanks:
            events = blank(events, missing)
        return events

    return without


def robustness_section(run: Finished) -> Section:
    """Return the section, with a line for each modality."""
    title, model = "When modalities go missing", run.results["model"]
    if run.way == "ranking":
        features = run.interactions.item_vectors
        reason = f"{model} learns from pairs of users and items and reads nothing else of an interaction."
        if features:
            reason += f" Missing item features ({', '.join(features)}) are not measured here."
        return Section("robustness", title, [reason])
    try:
        measured = measure(run)
    except UserError as error:
        return Section("robustness", title, [f"It cannot be measured: {error}"])
    if measured is None:
        return Section("robustness", title, [f"{model} reads nothing of an interaction that could go missing."])
    metric, by_modality = measured
    shares = (0.0, *SHARES)
    better = "lower" if lower_is_better(metric) else "higher"
    heading = f"{metric} (prequential) when test interactions lack a modality"
    svg = figures.lines(
        [figures.Series(name, values) for name, values in by_modality.items()],
        [100 * share for share in shares],
        "% of test interactions without it",
        f"{metric}, {better} is better",
    )
    rows = [
        (f"{share:.0%}", *(f"{values[index]:.4f}" for values in by_modality.values()))
        for index, share in enumerate(shares)
    ]
    change = {name: values[-1] - values[0] for name, values in by_modality.items()}
    worst = max(change, key=lambda name: change[name] if lower_is_better(metric) else -change[name])
    description = (
        f"Without any {worst}, {metric} goes from {by_modality[worst][0]:.4f} to {by_modality[worst][-1]:.4f}."
    )
    if worst == ALL:
        description = (
            f"Without any of them, {metric} goes from {by_modality[ALL][0]:.4f} to {by_modality[ALL][-1]:.4f}."
        )
    sentences = [
        "Measured for this report, on the first seed. Train is complete. A share of the test interactions that update "
        "the states lack a modality; predictions are still compared with the true ratings."
    ]
    table = Table(heading, ("missing", *by_modality), rows)
    return Section("robustness", title, sentences, [Figure("robustness-lines", heading, description, svg, table)])
