"""Print the keyword profiles of the users and items of a finished run that have the most train reviews.

    drex keywords --workdir=runs/amazon-Musical_Instruments [--users=5] [--items=5]

`--users` and `--items` are how many of each are printed.
"""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

from drex_jax.cli.exit_status import print_stdout
from drex_jax.cli.flags import Parser, at_least
from drex_jax.common.errors import UserError


def run(arguments: Sequence[str]) -> None:
    """Run the command.

    Raises:
      UserError: a wrong flag, or a run without keyword profiles.
    """
    parser = Parser("drex keywords", __doc__)
    parser.add_argument("--workdir", type=pathlib.Path, required=True, help="the run directory")
    parser.add_argument("--users", type=at_least(0), default=5, help="how many users; default %(default)s")
    parser.add_argument("--items", type=at_least(0), default=5, help="how many items; default %(default)s")
    options = parser.parse_args(arguments)
    print_stdout(_profiles(options.workdir, {"user": options.users, "item": options.items}))


def _profiles(workdir: pathlib.Path, counts: dict[str, int]) -> str:
    # Imported late, as they import JAX: a mistake in the flags is answered at once.
    import numpy as np

    from drex_jax.explain.profiles import KeywordProfiles, describe
    from drex_jax.runs.dataset import open_dataset
    from drex_jax.runs.layout import RunLayout
    from drex_jax.training.settings import read_settings

    layout = RunLayout(workdir)
    dataset = open_dataset(read_settings(layout.config), workdir)
    if not layout.keywords.exists():
        raise UserError(f"{workdir} has no keyword profiles: its model is unfinished, or reads no texts")
    profiles = KeywordProfiles.load(layout.keywords)
    train = dataset.sizes[0]
    lines = []
    for side, count in counts.items():
        column = dataset.events.user if side == "user" else dataset.events.item
        names = dataset.interactions.user_ids if side == "user" else dataset.interactions.item_ids
        reviewed = column[:train][dataset.interactions.has_text[:train]]
        busiest = np.argsort(-np.bincount(reviewed, minlength=len(names)), kind="stable")[:count]
        lines.append(f"{side}s with the most train reviews:")
        lines.append(describe(profiles, dataset, side, [names[int(number)] for number in busiest]))
    return "\n".join(lines)
