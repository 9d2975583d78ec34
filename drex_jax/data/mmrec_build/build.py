"""Convert raw Amazon files to the layout of MMRec: k-core, a split for each user, numeric ids, aligned features.

The output is read by `drex_jax.data.readers.mmrec`: `NAME.inter`, `*_feat.npy`, and the ids in `u_id_mapping.csv` and
`i_id_mapping.csv` (tab separated, as MMRec writes them).
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import orjson

from drex_jax.common.errors import UserError
from drex_jax.data.assemble import in_core, numbers_of
from drex_jax.data.interactions import by_first_appearance
from drex_jax.data.mmrec_build import amazon_ratings, feature_tables, item_metadata, text_features
from drex_jax.data.readers import amazon, find, json_reviews
from drex_jax.data.readers.chunk import Chunk
from drex_jax.data.readers.lines import TornError, blocks
from drex_jax.data.readers.quarantine import Quarantine

SPLITS = ("random", "time")
EXPECTED = f"{amazon.EXPECTED}, or a ratings file: CSV rows of {','.join(amazon_ratings.COLUMNS)}"


@dataclasses.dataclass(frozen=True)
class Sources:
    """Input files and settings of a build.

    Attributes:
      reviews: Amazon reviews as JSON lines, or a ratings file.
      columns: columns of a ratings file, in its order.
      metadata: Amazon metadata, or None.
      arrays: modality -> (array, ids of its rows), for `feature_tables.align`.
      images: a McAuley binary file of image features for the modality `image`, or None.
      text_width: upper limit for the columns of `text_feat.npy`, computed from the metadata; 0: no such file.
      k_core: keep users and items with at least so many interactions; 0 or 1 keeps all.
      split: one of `SPLITS`, see `split_labels`.
      seed: seed of the random split.
      max_bad_share: stop above this share of rejected rows of reviews.
    """

    reviews: Path
    columns: tuple[str, ...] = amazon_ratings.COLUMNS
    metadata: Path | None = None
    arrays: dict[str, tuple[Path, Path]] = dataclasses.field(default_factory=dict)
    images: Path | None = None
    text_width: int = 0
    k_core: int = 5
    split: str = "random"
    seed: int = 0
    max_bad_share: float = 0.05


@dataclasses.dataclass(frozen=True)
class _Table:
    """n interactions in file order, with users and items numbered by first appearance, as in MMRec."""

    user: np.ndarray  # int32 [n]
    item: np.ndarray  # int32 [n]
    timestamp: np.ndarray  # float64 [n]
    rating: np.ndarray  # float32 [n]
    user_ids: list[bytes]
    item_ids: list[bytes]


def build_mmrec(sources: Sources, out: Path, name: str) -> list[str]:
    """Write the folder `out`, atomically, and return lines that describe its content.

    Args:
      sources: input files and settings.
      out: a folder that does not exist yet, or is empty; its `quarantine.jsonl` lists the rejected rows.
      name: name of the data set; the table is `name.inter`.

    Raises:
      UserError: `out` is not empty or cannot be written; a setting is wrong; a file is unreadable or in a wrong format;
        there are too many bad rows; the core is empty, or a part of the split would be empty.
    """
    _check(sources, out, name)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    except OSError as error:
        raise UserError(f"{out}: cannot be written ({error.strerror})") from error
    try:
        folder = temporary / "new"
        folder.mkdir()
        lines = _fill(sources, folder, name)
        folder.replace(out)
    finally:
        shutil.rmtree(temporary)
    return [*lines, f"written: {out}; read it with data.format=mmrec and split.kind=given"]


def _check(sources: Sources, out: Path, name: str) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} is there and not an empty folder; name a new one, or remove it first")
    if not name or name != Path(name).name or name.startswith("."):
        raise UserError(f"the name {name!r} cannot be that of a file; a plain word such as baby can")
    if sources.split not in SPLITS:
        raise UserError(f"the split {sources.split!r} is unknown: it should be one of {' '.join(SPLITS)}")
    if sources.k_core < 0:
        raise UserError(f"a core of {sources.k_core}: it should be 0 (off) or the least number of interactions")
    for modality in sources.arrays:
        if not modality.isidentifier():
            raise UserError(f"the modality {modality!r} cannot be part of a file name; a plain word such as image can")
    for modality, other in (("image", sources.images), ("text", sources.text_width)):
        if other and modality in sources.arrays:
            raise UserError(f"{modality} features are given twice; give them once, or under another name")
    if sources.text_width and sources.metadata is None:
        raise UserError("text features are made from metadata, and no metadata file is given")


def _fill(sources: Sources, folder: Path, name: str) -> list[str]:
    """Write every file into a folder; return lines that describe them."""
    with Quarantine(folder / "quarantine.jsonl") as quarantine:
        table, lines = _read(sources, quarantine)
        labels = split_labels(table.user, table.timestamp, sources.split, sources.seed)
        _write_table(folder / f"{name}.inter", table, labels)
        _write_ids(folder / "u_id_mapping.csv", "user_id\tuserID", table.user_ids)
        _write_ids(folder / "i_id_mapping.csv", "asin\titemID", table.item_ids)
        items = {item: row for row, item in enumerate(table.item_ids)}
        for modality, (array, ids) in sources.arrays.items():
            present = feature_tables.align(array, ids, items, folder / f"{modality}_feat.npy")
            lines.append(_coverage(modality, present, items, array))
        if sources.images is not None:
            present = feature_tables.from_binary(sources.images, items, folder / "image_feat.npy")
            lines.append(_coverage("image", present, items, sources.images))
        if sources.metadata is not None:
            lines += _describe(sources.metadata, sources, folder, items, quarantine)
    sizes = np.bincount(labels, minlength=3)
    for part, size in zip(("train", "validation", "test"), sizes, strict=True):
        if not size:
            raise UserError(f"{sources.reviews}: the {part} part of {len(labels):,} interactions would be empty")
    lines.append(f"split {sources.split} of each user's interactions: {sizes[0]:,} / {sizes[1]:,} / {sizes[2]:,}")
    if quarantine.rejected:
        lines.append(f"quarantine.jsonl: {quarantine.rejected:,} rejected rows: {quarantine.reasons()}")
    return [*lines, *quarantine.notices]


def _read(sources: Sources, quarantine: Quarantine) -> tuple[_Table, list[str]]:
    """Return the interactions of the core, and lines that count the others."""
    path = find.find_file(sources.reviews, ("*.json", "*.jsonl", "*.csv"), EXPECTED)
    table = _concatenate(_open_reviews(path, sources.columns, quarantine))
    rows = len(table.user)
    rejected, reasons = quarantine.rejected, quarantine.reasons()
    if not rows:
        raise UserError(f"{path}: none of {rejected:,} rows is good: {reasons or 'no rows'}; expected {EXPECTED}")
    if rejected > sources.max_bad_share * (rows + rejected):
        raise UserError(
            f"{path}: {rejected / (rows + rejected):.1%} of {rows + rejected:,} rows are bad, above the share of "
            f"{sources.max_bad_share:g}: {reasons}"
        )
    # Keep the earliest of each user and item, in file order: a pair in both train and test would make the test invalid.
    pair = table.user.astype(np.int64) * len(table.item_ids) + table.item
    by_time = np.lexsort((table.timestamp, pair))
    first = np.ones(rows, bool)
    first[1:] = np.diff(pair[by_time]) != 0
    once = np.sort(by_time[first])
    kept = once[in_core(table.user[once], table.item[once], sources.k_core)]
    if not len(kept):
        raise UserError(f"{path}: no interaction is in a {sources.k_core}-core; a smaller one may do")
    user, users = by_first_appearance(table.user[kept], len(table.user_ids))
    item, items = by_first_appearance(table.item[kept], len(table.item_ids))
    left = _Table(
        user,
        item,
        table.timestamp[kept],
        table.rating[kept],
        [table.user_ids[number] for number in users],
        [table.item_ids[number] for number in items],
    )
    return left, [
        f"{path}: {rows + rejected:,} rows read, {rejected:,} rejected, {rows - len(once):,} "
        f"repeated a user and item, {len(once) - len(kept):,} outside the {sources.k_core}-core",
        f"{len(kept):,} interactions of {len(users):,} users and {len(items):,} items",
    ]


def _open_reviews(path: Path, columns: tuple[str, ...], quarantine: Quarantine) -> Iterable[Chunk]:
    try:
        head = next(iter(blocks(path)), b"")
    except TornError:
        head = b""
    if head.lstrip().startswith(b"{"):
        return json_reviews.read(path, amazon.FORMAT, amazon.RATING_RANGE, quarantine)
    return amazon_ratings.read(path, columns, amazon.RATING_RANGE, quarantine)


def _concatenate(chunks: Iterable[Chunk]) -> _Table:
    """Return all rows end to end; texts are dropped chunk by chunk."""
    users: dict[bytes, int] = {}
    items: dict[bytes, int] = {}
    columns = [
        (numbers_of(chunk.user, users), numbers_of(chunk.item, items), chunk.timestamp, chunk.rating)
        for chunk in itertools.chain([Chunk.of([])], chunks)  # there may be no other chunk
    ]
    user, item, timestamp, rating = (np.concatenate(parts) for parts in zip(*columns, strict=True))
    return _Table(user, item, timestamp, rating, list(users), list(items))


def held_out(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the numbers of validation and test interactions of users with `counts` interactions.

    This follows the published Baby data set of MMRec: one each below 10 interactions, otherwise together a fifth
    (rounded down), where validation gets the odd one. (Today's notebook of MMRec gives it to test.) A user with two or
    more interactions keeps a train item; the only interaction of a user is train.

    >>> [part.tolist() for part in held_out(np.array([1, 2, 3, 9, 10, 15]))]
    [[0, 1, 1, 1, 1, 2], [0, 0, 1, 1, 1, 1]]
    """
    held = np.where(counts >= 10, counts // 5, np.clip(counts - 1, 0, 2))
    validation = (held + 1) // 2
    return validation, held - validation


def split_labels(user: np.ndarray, timestamp: np.ndarray, kind: str, seed: int = 0) -> np.ndarray:
    """Return int8 [n]: 0 train, 1 validation, 2 test, about 8:1:1 of the interactions of each user (see `held_out`).

    Args:
      user: number of the user of each interaction, int [n].
      timestamp: time of each interaction [n].
      kind: `random`: the held-out interactions are drawn, as in MMRec. `time`: the latest are test, those before are
        validation (our addition); of equal times the earlier row comes first. With both, a model sees the future of
        other users; only a global split by time prevents that.
      seed: seed of `random`.
    """
    key = np.random.default_rng(seed).random(len(user)) if kind == "random" else timestamp
    order = np.lexsort((key, user))
    counts = np.bincount(user)
    validation, test = held_out(counts)
    owner = user[order]
    from_end = np.cumsum(counts)[owner] - 1 - np.arange(len(user))
    labels = np.empty(len(user), np.int8)
    labels[order] = np.where(from_end < test[owner], 2, np.where(from_end < (validation + test)[owner], 1, 0))
    return labels


def _write_table(path: Path, table: _Table, labels: np.ndarray) -> None:
    order = np.lexsort((table.item, table.timestamp, table.user))
    columns = (table.user, table.item, table.rating, table.timestamp, labels)
    with path.open("w") as file:
        file.write("userID\titemID\trating\ttimestamp\tx_label\n")
        for user, item, rating, time, label in zip(*(column[order].tolist() for column in columns), strict=True):
            score, moment = "" if math.isnan(rating) else rating, int(time) if time.is_integer() else time
            file.write(f"{user}\t{item}\t{score}\t{moment}\t{label}\n")


def _write_ids(path: Path, header: str, ids: list[bytes]) -> None:
    for name in ids:
        if b"\t" in name or b"\n" in name:
            raise UserError(f"the id {name!r} has a tab or a line break, which {path.name} cannot hold")
    rows = (b"%s\t%d\n" % (name, number) for number, name in enumerate(ids))
    path.write_bytes(header.encode() + b"\n" + b"".join(rows))


def _coverage(modality: str, present: int, items: dict[bytes, int], source: Path) -> str:
    if not present:
        raise UserError(f"{source}: it has {modality} features of none of the {len(items):,} items; are the ids asins?")
    return f"{modality}_feat.npy: {present:,} of {len(items):,} items have features"


def _describe(path: Path, sources: Sources, folder: Path, items: dict[bytes, int], quarantine: Quarantine) -> list[str]:
    """Write the texts of the items and, if `text_width` is set, their features."""
    texts = item_metadata.texts(path, items, quarantine)
    if not texts:
        raise UserError(f"{path}: it has a text of none of the {len(items):,} items; is it of another category?")
    with (folder / "item_texts.jsonl").open("wb") as file:
        for item, row in items.items():
            text = texts.get(item, "")
            file.write(orjson.dumps({"itemID": row, "asin": item.decode(), "text": text}) + b"\n")
    lines = [f"item_texts.jsonl: {len(texts):,} of {len(items):,} items have a text"]
    if sources.text_width:
        features = text_features.features([texts.get(item, "") for item in items], sources.text_width)
        if not features.shape[1]:
            raise UserError(f"{path}: no word is in the texts of two items: too little for text features")
        np.save(folder / "text_feat.npy", features)
        present = int((~np.isnan(features[:, 0])).sum())
        lines.append(f"{_coverage('text', present, items, path)}, {features.shape[1]} wide (TF-IDF and truncated SVD)")
    return lines
