"""Builds a data set in MMRec's layout from raw Amazon files (McAuley lab), for data.format=mmrec.

    python tools/build_mmrec.py --reviews=reviews_Baby_5.json.gz --out=data/baby \
        [--meta=meta_Baby.json.gz [--text_features]] [--image_features=image_features_Baby.b] \
        [--features text=text.npy:asins.txt]

Items get the ids that MMRec gives them for the same file. Exit status: 0 done; 2 a mistake of yours, told in one line.
"""

from __future__ import annotations

import argparse
import pathlib
import sys

from drex_jax.cli.flags import Parser, at_least_one
from drex_jax.common.errors import UserError
from drex_jax.data.mmrec_build import build


def main() -> int:
    """The command; returns its exit status."""
    try:
        options = _parser().parse_args()
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
        for line in build.build_mmrec(sources, options.out, options.name or options.out.absolute().name):
            print(line)
    except UserError as error:
        print(f"build_mmrec: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    path = pathlib.Path
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.add_argument(
        "--reviews", type=path, required=True, help="JSON lines, or a ratings file (CSV); plain or gzip"
    )
    parser.add_argument("--out", type=path, required=True, help="a folder that is new or empty")
    parser.add_argument("--name", help="of the data set; default: the folder's")
    parser.add_argument(
        "--columns",
        default=",".join(build.Sources.columns),
        help="of a ratings file, in its order; default %(default)s (2014); item,user,rating,timestamp for 2018",
    )
    parser.add_argument("--k_core", type=int, default=5, help="interactions of each user and item; default %(default)s")
    parser.add_argument(
        "--split",
        default="random",
        help="which of each user's interactions are held out, about 8:1:1: random (default, MMRec's) or time (latest)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the random split; default %(default)s")
    parser.add_argument("--meta", type=path, help="metadata, for item_texts.jsonl")
    parser.add_argument("--text_features", action="store_true", help="text_feat.npy from it: TF-IDF and truncated SVD")
    parser.add_argument("--text_width", type=at_least_one, default=384, help="its most columns; default %(default)s")
    parser.add_argument("--image_features", type=path, help="a McAuley binary: image_features_NAME.b")
    parser.add_argument(
        "--features", nargs="+", action="extend", default=[], metavar="NAME=ARRAY.npy:IDS.txt",
        help="an array and the asin of each of its rows, one a line",
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


if __name__ == "__main__":
    sys.exit(main())
