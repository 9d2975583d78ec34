"""Prints the keyword profiles of a finished run.

    python tools/keywords.py --workdir=runs/amazon-Musical_Instruments [--users=5] [--items=5]

Takes those with the most train reviews.
"""

from __future__ import annotations

import argparse
import pathlib
import sys

import numpy as np

from drex_jax.common.errors import UserError
from drex_jax.explain.profiles import KeywordProfiles, describe
from drex_jax.runs.dataset import open_dataset
from drex_jax.runs.layout import RunLayout
from drex_jax.training.settings import read_settings


def main() -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", type=pathlib.Path, required=True)
    parser.add_argument("--users", type=int, default=5)
    parser.add_argument("--items", type=int, default=5)
    arguments = parser.parse_args()
    try:
        dataset = open_dataset(read_settings(RunLayout(arguments.workdir).config), arguments.workdir)
        if not (RunLayout(arguments.workdir).keywords).exists():
            raise UserError(f"{arguments.workdir} has no keyword profiles: its model is unfinished, or reads no texts")
        profiles = KeywordProfiles.load(RunLayout(arguments.workdir).keywords)
    except UserError as error:
        print(f"keywords: {error}", file=sys.stderr)
        return 2
    train = dataset.sizes[0]
    for side, count in (("user", arguments.users), ("item", arguments.items)):
        column = dataset.events.user if side == "user" else dataset.events.item
        names = dataset.interactions.user_ids if side == "user" else dataset.interactions.item_ids
        reviewed = column[:train][dataset.interactions.has_text[:train]]
        busiest = np.argsort(-np.bincount(reviewed, minlength=len(names)), kind="stable")[:count]
        print(f"{side}s with the most train reviews:")
        print(describe(profiles, dataset, side, [names[int(number)] for number in busiest]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
