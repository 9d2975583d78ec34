"""python tools/compare.py RUN RUN [RUN ...]: is the first run better than each other one? Paired tests on test lists.

A RUN is a run directory, or one of its baselines: DIR/baselines/NAME. A list is a user's, or, prequential, an
interaction's; `mse` and `mae` compare rated interactions. What a list scored is first averaged over each run's seeds.
Then come, for the mean difference, a bootstrap interval over lists, and Wilcoxon's signed-rank test, its p-values
adjusted after Holm for the number of comparisons. Exit status: 0 done; 2 a mistake of yours, told in one line.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import sys
from collections.abc import Sequence

from drex_jax.cli.flags import Parser
from drex_jax.common.errors import UserError
from drex_jax.common.files import write_text
from drex_jax.evaluation.comparison import WAYS, compare, format_comparison
from drex_jax.metrics.names import RANKING_METRICS


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command's arguments.

    Raises:
      UserError: one is wrong.
    """
    parser = Parser(
        prog="tools/compare.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("runs", nargs="+", type=pathlib.Path, metavar="RUN", help="the first is compared with each")
    ranking = " ".join(f"{name}@K" for name in RANKING_METRICS)
    parser.add_argument(
        "--metric", default="recall@20", help=f"{ranking} mse mae, of those the runs have (%(default)s)"
    )
    parser.add_argument("--way", choices=WAYS, help="of evaluating; default: the first of these that the first run has")
    parser.add_argument("--confidence", type=float, default=0.95, help="of the interval; default %(default)s")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="writes the comparison as JSON as well")
    options = parser.parse_args(arguments)
    if not 0 < options.confidence < 1:
        raise UserError(f"--confidence={options.confidence:g} must be above 0 and below 1")
    return options


def run(arguments: Sequence[str]) -> int:
    """Does what the arguments say and returns the exit status."""
    try:
        options = parse(arguments)
        comparison = compare(options.runs, options.way, options.metric, options.confidence)
        print(format_comparison(comparison))
        if options.json:
            try:
                write_text(options.json, json.dumps(comparison, indent=2) + "\n")
            except OSError as error:
                raise UserError(f"--json={options.json} cannot be written ({error.strerror})") from None
    except UserError as error:
        print(f"compare.py: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0
