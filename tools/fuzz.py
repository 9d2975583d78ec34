"""Gives hostile input to everything that reads a file, and prints what came of it:

    pip install -e '.[fuzz]'
    python tools/fuzz.py                                        # all targets, a million inputs and more
    python tools/fuzz.py --targets yelp run --inputs=5000       # some of them

Inputs are good files after some accidents (`tools.robustness.fuzzing.mutations`) and what Atheris, which is guided by the lines
of code that an input reaches, makes of them; real files below the folder that DREX_JAX_DATA names are among the good
ones, where it is set. An input is lost where it ends in anything but an answer or a `UserError`, takes longer than
SECONDS or more than MEGABYTES of memory, or costs a row that is neither kept nor merged nor rejected. A target ends at
its first loss; the input is then in the folder that --keep names, and `--again=FILE` gives it once more. Inputs are
written to TMPDIR, which is best in memory (/dev/shm).

Exit status: 0 nothing was lost; 1 something was, and is told; 2 a mistake in the command.
"""

import os
import sys

# Imports begin at the repository: `profile.py` in this folder would hide the standard module of that name.
sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import argparse  # noqa: E402
import importlib  # noqa: E402
import importlib.util  # noqa: E402
import pathlib  # noqa: E402
import random  # noqa: E402
import re  # noqa: E402
import subprocess  # noqa: E402
import tempfile  # noqa: E402
import time  # noqa: E402
from typing import Any  # noqa: E402

SECONDS, MEGABYTES = 20, 3000  # of an input
COUNTED = re.compile(r"^(?:#|Done )(\d+)\b", re.MULTILINE)  # of what libFuzzer says: inputs so far, and in the end
BY_ACCIDENT = 0.6  # of inputs; Atheris makes the others


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--targets", nargs="+", help="default: all of tools.robustness.fuzzing.targets")
    parser.add_argument("--inputs", type=int, help="of each target; default: those of the full job")
    parser.add_argument("--seed", type=int, default=1, help="of the accidents; not 0")
    parser.add_argument("--keep", type=pathlib.Path, default=pathlib.Path(), help="where lost inputs are written")
    parser.add_argument("--again", type=pathlib.Path, help="one input of one target, instead of new ones")
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)  # the one target of a process, and its folder
    return parser.parse_args()


def work(given: argparse.Namespace) -> None:
    """Gives inputs to one target until one is lost, and ends the process."""
    os.environ["JAX_PLATFORMS"] = "cpu"
    atheris: Any = importlib.import_module("atheris")
    with atheris.instrument_imports(include=["drex_jax"]):
        from tools.robustness.fuzzing import mutations, targets

    def changed(data: bytes, most: int, seed: int) -> bytes:
        draw = random.Random(seed)
        return mutations.mutated(data, draw)[:most] if draw.random() < BY_ACCIDENT else atheris.Mutate(data, most)

    name, folder = given.worker
    target = targets.TARGETS[name][0](pathlib.Path(folder, "target"))
    corpus = pathlib.Path(folder, "corpus")
    corpus.mkdir()
    for number, seed in enumerate(target.seeds):
        (corpus / str(number)).write_bytes(seed)
    limits = [f"-timeout={SECONDS}", f"-rss_limit_mb={MEGABYTES}", f"-max_len={mutations.MOST}"]
    named = [f"-artifact_prefix={given.keep / name}-", f"-seed={given.seed}", "-len_control=0"]
    what = [str(given.again)] if given.again else [f"-runs={given.inputs}", str(corpus)]
    atheris.Setup([sys.argv[0], *limits, *named, *what], target.check, custom_mutator=changed)
    atheris.Fuzz()


def refuse(what: str) -> None:
    """Ends on a mistake of the user's."""
    print(f"fuzz.py: {what}", file=sys.stderr)
    sys.exit(2)


def fuzz(given: argparse.Namespace) -> int:
    """Prints the table; returns how many targets have lost an input."""
    from tools.robustness.fuzzing.targets import TARGETS

    if importlib.util.find_spec("atheris") is None:
        refuse("needs Atheris: pip install -e '.[fuzz]'")
    unknown = [name for name in given.targets or () if name not in TARGETS]
    if unknown:
        refuse(f"unknown target {unknown[0]}; it should be one of {' '.join(TARGETS)}")
    lost = 0
    print(f"| target | inputs | lost | seconds |\n|{'---|' * 4}", flush=True)
    for name in given.targets or TARGETS:
        inputs, begun = given.inputs or TARGETS[name][1], time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, __file__, "--worker", name, folder, f"--inputs={inputs}", f"--seed={given.seed}"]
            command += [f"--keep={given.keep}", *([f"--again={given.again}"] if given.again else [])]
            done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
        told = done.stdout.decode(errors="replace")
        number = max(map(int, COUNTED.findall(told)), default=int(given.again is not None))
        lost += done.returncode != 0
        seconds = time.monotonic() - begun
        print(f"| {name} | {number} | {int(done.returncode != 0)} | {seconds:.0f} |", flush=True)
        if done.returncode:
            print(f"{name}: {told[-4000:]}", file=sys.stderr, flush=True)
    return lost


if __name__ == "__main__":
    arguments = parse()
    if arguments.worker:
        work(arguments)
    sys.exit(1 if fuzz(arguments) else 0)
