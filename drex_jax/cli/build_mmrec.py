r"""Build a data set in MMRec's layout (`data.format=mmrec`) from raw Amazon files (McAuley lab).

    drex build_mmrec --reviews=reviews_Baby_5.json.gz --out=data/baby \
        [--meta=meta_Baby.json.gz [--text_features]] [--image_features=image_features_Baby.b] \
        [--features text=text.npy:asins.txt]

Items get the ids that MMRec gives them for the same file.
"""

from __future__ import annotations

import argparse
import pathlib
from collections.abc import Sequence

from drex_jax.cli.exit_status import print_stdout
from drex_jax.cli.flags import Parser, at_least
from drex_jax.common.errors import UserError


def run(arguments: Sequence[str]) -> None:
    """Run the command.

    Raises:
      UserError: a wrong flag, or files that cannot be used.
    """
    from drex_jax.data.mmrec_build import build  # takes longer to import than the whole command line

    options = _parser(build.Sources.columns).parse_args(arguments)
    sources = build.Sources(
        reviews=options.reviews,
        columns=tuple(options.columns.split(",")),
        metadata=options.meta,
        arrays=_arrays(options.features),
        images=options.image_features,
        text_width=options.text_width if options.text_features else 0,
        k_core=options.k_core,
        split=options.split,
        seed=options.seed,
    )
    lines = build.build_mmrec(sources, options.out, options.name or options.out.absolute().name)
    print_stdout("\n".join(lines))


def _parser(columns: Sequence[str]) -> argparse.ArgumentParser:
    path = pathlib.Path
    parser = Parser("drex build_mmrec", __doc__)
    parser.add_argument(
        "--reviews", type=path, required=True, help="JSON lines, or a ratings file (CSV); plain or gzip"
    )
    parser.add_argument("--out", type=path, required=True, help="a folder that is new or empty")
    parser.add_argument("--name", help="of the data set; default: the name of the folder")
    parser.add_argument(
        "--columns",
        default=",".join(columns),
        help="columns of a ratings file, in their order; default %(default)s (2014); the files of 2018 have "
        "item,user,rating,timestamp",
    )
    parser.add_argument(
        "--k_core", type=int, default=5, help="least interactions of each user and item; default %(default)s"
    )
    parser.add_argument(
        "--split",
        default="random",
        help="which of each user's interactions are held out, about 8:1:1: random (default, MMRec's) or time (latest)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the random split; default %(default)s")
    parser.add_argument("--meta", type=path, help="metadata of the items, for item_texts.jsonl")
    parser.add_argument(
        "--text_features", action="store_true", help="make text_feat.npy from --meta: TF-IDF and truncated SVD"
    )
    parser.add_argument(
        "--text_width", type=at_least(1), default=384, help="most columns of text_feat.npy; default %(default)s"
    )
    parser.add_argument("--image_features", type=path, help="a binary file of the McAuley lab: image_features_NAME.b")
    parser.add_argument(
        "--features", nargs="+", action="extend", default=[], metavar="NAME=ARRAY.npy:IDS.txt",
        help="an array, and a file with the asin of each of its rows, one a line",
    )  # fmt: skip
    return parser


def _arrays(given: list[str]) -> dict[str, tuple[pathlib.Path, pathlib.Path]]:
    arrays: dict[str, tuple[pathlib.Path, pathlib.Path]] = {}
    for text in given:
        name, _, files = text.partition("=")
        array, _, ids = files.rpartition(":")
        if not (name and array and ids):
            raise UserError(f"--features {text!r}: expected NAME=ARRAY.npy:IDS.txt")
        if name in arrays:
            raise UserError(f"--features: {name} is given twice")
        arrays[name] = (pathlib.Path(array), pathlib.Path(ids))
    return arrays
