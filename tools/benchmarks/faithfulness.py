"""Do the explanations of a finished DReX run name what moves it? Deletion and insertion curves, against chance.

    python tools/faithfulness.py --workdir=runs/quickstart [--pairs=200] [--json=FILE]

Pairs are test interactions, each at the moment just before it, whose user and item have at least 5 interactions behind
them. `deletion` takes the k parts away that come first (of the last 20 interactions, by occlusion; of the words in
their reviews, those of the profile) and tells how far the predicted rating moves, how it changes, or how far the state
moves. `insertion` gives those k alone and tells how far it still is. `area` is a curve's mean height with its 95%
bootstrap interval over pairs, followed by its difference from that of random parts. Where it is told how far, high is
good for deletion, and low for insertion. Random words occur as often as those of the profile. Of synthetic data more is
known: `true aspects` are other words of aspects that the user cares about, or the item is known for; `sentiment` is
praise and blame; `background` is the rest.
"""

from __future__ import annotations

import argparse
import pathlib
import sys
from collections.abc import Sequence

from drex_jax.cli.exit_status import exit_code
from drex_jax.cli.flags import Parser, at_least_one
from drex_jax.common.errors import UserError
from drex_jax.common.files import write_json


def _run(arguments: Sequence[str]) -> None:
    parser = Parser(
        prog="tools/faithfulness.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workdir", type=pathlib.Path, required=True)
    parser.add_argument("--pairs", type=at_least_one, default=200)
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="writes the figures as JSON as well")
    options = parser.parse_args(arguments)
    from drex_jax.cli import faithfulness  # JAX is imported here: a mistake in the flags is answered at once

    answers = faithfulness.measured(options.workdir, options.pairs)
    print(faithfulness.describe(answers))
    if options.json:
        try:
            write_json(options.json, answers)
        except OSError as error:
            raise UserError(f"--json={options.json} cannot be written ({error.strerror})") from None


if __name__ == "__main__":
    sys.exit(exit_code(lambda: _run(sys.argv[1:])))
