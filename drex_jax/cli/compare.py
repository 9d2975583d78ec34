"""Test whether the first run is better than each other one: paired tests on the test lists.

    drex compare RUN RUN [RUN ...] [--metric=recall@20] [--way=WAY] [--confidence=0.95] [--json=FILE]

A RUN is a run directory, or one of its baselines: DIR/baselines/NAME. A list belongs to a user or, prequentially, to an
interaction; `mse` and `mae` compare rated interactions. The value of a list is first averaged over each run's seeds.
The output has, for the mean difference, a bootstrap interval over lists and the p-value of Wilcoxon's signed-rank
test, also adjusted for the number of comparisons (Holm).
"""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

from drex_jax.cli.exit_status import print_stdout
from drex_jax.cli.flags import Parser, add_json_flag, write_json_file
from drex_jax.common.errors import UserError
from drex_jax.metrics.names import RANKING_METRICS


def run(arguments: Sequence[str]) -> None:
    """Run the command.

    Raises:
      UserError: a wrong flag, a path that is no finished run, or runs that cannot be compared.
    """
    from drex_jax.evaluation.comparison import WAYS, compare, format_comparison

    parser = Parser("drex compare", __doc__)
    parser.add_argument("runs", nargs="+", type=pathlib.Path, metavar="RUN", help="the first is compared with each")
    ranking = " ".join(f"{name}@K" for name in RANKING_METRICS)
    parser.add_argument(
        "--metric", default="recall@20", help=f"one that the runs have, of {ranking} mse mae; default %(default)s"
    )
    parser.add_argument("--way", choices=WAYS, help="of evaluating; default: the first of these that the first run has")
    parser.add_argument("--confidence", type=float, default=0.95, help="of the interval; default %(default)s")
    add_json_flag(parser)
    options = parser.parse_args(arguments)
    if not 0 < options.confidence < 1:
        raise UserError(f"--confidence={options.confidence:g} must be above 0 and below 1")
    comparison = compare(options.runs, options.way, options.metric, options.confidence)
    print_stdout(format_comparison(comparison))
    write_json_file(options.json, comparison)
