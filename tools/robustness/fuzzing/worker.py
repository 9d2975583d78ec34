"""Run one target in this process: Atheris gives it inputs until one is lost.

`tools.robustness.fuzzing.command` starts it. This module imports nothing of drex_jax at its top, because Atheris
instruments only modules that are imported inside its context.
"""

from __future__ import annotations

import argparse
import importlib
import os
import pathlib
import random
import sys
from typing import Any

SECONDS, MEGABYTES = 20, 3000  # largest time and memory for one input
RANDOM_SHARE = 0.6  # share of inputs with random damage; Atheris makes the others


def main() -> None:
    """Give inputs to the target, then end the process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target")
    parser.add_argument("--folder", type=pathlib.Path, required=True, help="empty, for the files of this process")
    parser.add_argument("--inputs", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--keep", type=pathlib.Path, required=True, help="folder for lost inputs")
    parser.add_argument("--again", help="the one input to give")
    given = parser.parse_args()
    os.environ["JAX_PLATFORMS"] = "cpu"
    atheris: Any = importlib.import_module("atheris")
    with atheris.instrument_imports(include=["drex_jax"]):
        from tools.robustness.fuzzing import mutations, targets

    def changed(data: bytes, most: int, seed: int) -> bytes:
        draw = random.Random(seed)
        return mutations.mutated(data, draw)[:most] if draw.random() < RANDOM_SHARE else atheris.Mutate(data, most)

    target = targets.TARGETS[given.target][0](given.folder / "target")
    corpus = given.folder / "corpus"
    corpus.mkdir()
    for number, seed in enumerate(target.seeds):
        (corpus / str(number)).write_bytes(seed)
    limits = [f"-timeout={SECONDS}", f"-rss_limit_mb={MEGABYTES}", f"-max_len={mutations.MOST}"]
    named = [f"-artifact_prefix={given.keep / given.target}-", f"-seed={given.seed}", "-len_control=0"]
    what = [given.again] if given.again else [f"-runs={given.inputs}", str(corpus)]
    atheris.Setup([sys.argv[0], *limits, *named, *what], target.check, custom_mutator=changed)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
