r"""Measure how much each modality contributes: remove it from the train part, or from the test part.

    python -m tools.benchmarks.robustness --folder=DIR [--modalities text rating time] [--seeds=3] \
        --config=experiments/amazon.py:Musical_Instruments [--config.FIELD=VALUE ...]

There is a run for each modality and each share of train interactions that lack it, in DIR/MODALITY-SHARE with all its
seeds, and a run with complete data in DIR/whole. Finished runs are not repeated. For the test part, the modalities are
removed from the test interactions of the first seed of DIR/whole, as in its report.html. The run without any train
rating is omitted, because it cannot learn to predict ratings. The prequential value of the selection metric is printed
as two tables and drawn in DIR/train.svg and DIR/test.svg (extra `report`).
"""

from __future__ import annotations

import argparse
import pathlib
import statistics
import sys

from drex_jax.cli import command, startup
from drex_jax.cli.exit_status import exit_code
from drex_jax.cli.flags import Parser
from drex_jax.report import figures, robustness
from drex_jax.report.run import Finished
from drex_jax.training import experiment

SHARES = (0.0, *robustness.SHARES)


def parse() -> tuple[argparse.Namespace, list[str]]:
    """Return the parsed flags, and the other arguments, which belong to the experiment."""
    parser = Parser("python -m tools.benchmarks.robustness", __doc__)
    parser.add_argument("--folder", required=True, type=pathlib.Path, help="for the runs")
    parser.add_argument("--modalities", nargs="+", default=["text", "rating", "time"], help="rating text time vectors")
    parser.add_argument("--seeds", type=int, default=3, help="of every run at train")
    return parser.parse_known_args()


def run(workdir: pathlib.Path, arguments: list[str]) -> list[float]:
    """Train a run and return the prequential test value of the selection metric, one for each seed."""
    parsed = command.parse(["robustness", f"--workdir={workdir}", *arguments])
    assert parsed is not None
    startup.set_up_logging()
    startup.join_processes(parsed.settings)
    results = experiment.train(parsed.settings, workdir)
    metric = results["selection"]["metric"]
    return [each["prequential"][metric] for each in results["per_seed"]]


def table(found: dict[str, list[str]]) -> None:
    """Print a table with a line for each share."""
    print(f"\n| missing | {' | '.join(found)} |\n|{'---|' * (len(found) + 1)}")
    for place, share in enumerate(SHARES):
        print(f"| {share:.0%} | {' | '.join(column[place] for column in found.values())} |")


def main() -> None:
    """Run the command."""
    given, experiment = parse()
    experiment += [f"--config.replicas={given.seeds}", "--config.baselines=()"]
    whole = run(given.folder / "whole", experiment)
    curves: dict[str, list[float]] = {}
    texts: dict[str, list[str]] = {}
    for modality in given.modalities:
        values = [whole]
        for share in robustness.SHARES[: -1 if modality == "rating" else None]:  # no train ratings: nothing to learn
            lacking = [*experiment, f"--config.data.missing.{modality}={share}"]
            values.append(run(given.folder / f"{modality}-{share:g}", lacking))
        curves[modality] = [statistics.mean(seeds) for seeds in values]
        spread = [statistics.stdev(seeds) if len(seeds) > 1 else 0.0 for seeds in values]
        pairs = zip(curves[modality], spread, strict=True)
        texts[modality] = [f"{mean:.4f} ± {deviation:.4f}" for mean, deviation in pairs]
        texts[modality] += ["–"] * (len(SHARES) - len(values))
    print("\nmissing at train")
    table(texts)
    measured = robustness.measure(Finished(given.folder / "whole"))
    assert measured is not None
    metric, at_test = measured
    print(f"\nmissing at test, first seed ({metric})")
    table({name: [f"{value:.4f}" for value in values] for name, values in at_test.items()})
    for part, found in (("train", curves), ("test", at_test)):
        lines = [figures.Series(name, values) for name, values in found.items()]
        label = f"% of {part} interactions without it"
        (given.folder / f"{part}.svg").write_text(
            figures.lines(lines, [100 * share for share in SHARES], label, metric)
        )


if __name__ == "__main__":
    sys.exit(exit_code(main))
