"""The way in: options to a validated table and a report of what became of every row."""

from __future__ import annotations

import dataclasses
import math
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from drex_jax.common.cache import Cache, no_cache
from drex_jax.common.errors import UserError
from drex_jax.common.settings import (
    NAMED,
    WORDS,
    Entry,
    Rule,
    number,
    one_of,
    open_mapping,
    optional,
    setting,
    share,
    whole,
)
from drex_jax.data.ablation import MissingSettings
from drex_jax.data.assemble import MAX_IDS, Assembled, assemble_interactions
from drex_jax.data.interactions import Interactions
from drex_jax.data.readers import amazon, item_features, json_reviews, mmrec, movielens, table, yelp
from drex_jax.data.readers.chunk import Chunk
from drex_jax.data.readers.quarantine import Quarantine
from drex_jax.data.synthetic.world import RATING_RANGE, generate_world

FORMATS = ("synthetic", "amazon", "yelp", "movielens", "table", "mmrec")
PREPARED = ("amazon", "yelp", "table")  # formats with a TFDS builder


COLUMNS = {
    "user": Entry("user", NAMED, "format=table: column of user ids"),
    "item": Entry("item", NAMED, "format=table: column of item ids"),
    "rating": Entry("rating", WORDS, "format=table: column of ratings; empty: none"),
    "timestamp": Entry("timestamp", WORDS, "format=table: column of times; empty: none"),
    "text": Entry("text", WORDS, "format=table: column of reviews; empty: none"),
    "split": Entry("", WORDS, "format=table: column with 0 train, 1 validation, 2 test; empty: none"),
}
MODALITIES = Rule(
    lambda value: (
        all(isinstance(name, str) and name.isidentifier() for name in value) and len(set(value)) == len(value)
    ),
    "different names of modalities, such as ('image', 'text')",
)
_RATING = optional(number(-1e6, 1e6))  # what float32 can tell apart and square


@dataclasses.dataclass(frozen=True)
class SyntheticSettings:
    """`data.synthetic`: the made-up review world (`drex_jax.data.synthetic.world`)."""

    num_interactions: int = setting(6000, whole(10), "interactions")
    num_users: int = setting(300, whole(1), "users")
    num_items: int = setting(200, whole(1), "items")
    missing_text: float = setting(0.1, share(), "share of interactions without a review")
    missing_rating: float = setting(0.0, share(), "share of interactions without a rating")
    noise: float = setting(0.5, number(0.0), "deviation of the noise of ratings")
    seed: int = setting(0, whole(0), "seed of the world")

    def arguments(self) -> dict[str, Any]:
        """The arguments of `drex_jax.data.synthetic.world.generate_world`."""
        return {name.removeprefix("num_"): value for name, value in dataclasses.asdict(self).items()}


@dataclasses.dataclass(frozen=True)
class DataSettings:
    """`data`: what is read, and how."""

    format: str = setting("synthetic", one_of(*FORMATS), "format of the data")
    path: str | None = setting(None, optional(NAMED), "a file, or the folder that holds the format's files")
    tfds_dir: str | None = setting(
        None, optional(NAMED), "amazon yelp table: prepared here by TFDS, once, and read from here"
    )
    cache_dir: str | None = setting(
        None, optional(NAMED), "cache of compiled programs; None: drex_jax in the user's cache folder"
    )
    name: str = setting("", WORDS, "name in results; empty: from the format and the path")
    max_interactions: int | None = setting(None, optional(whole(1)), "keep the earliest n in time order")
    max_bad_share: float = setting(0.05, share(), "stop above this share of rejected rows")
    max_ids: int = setting(MAX_IDS, whole(1), "stop above so many different users, or items: they are in memory")
    k_core: int = setting(0, whole(0), "keep users and items with at least k interactions, iterated; 0: off")
    rating_min: float | None = setting(None, _RATING, "lowest rating of the scale; None: the format's")
    rating_max: float | None = setting(None, _RATING, "highest rating of the scale; None: the format's")
    columns: Mapping[str, str] = open_mapping(COLUMNS, WORDS)  # any other name is a vector modality
    item_features: tuple[str, ...] = setting(
        (), MODALITIES, "format=mmrec: which NAME of the files NAME_feat.npy; empty: all"
    )
    time_format: str = setting("", WORDS, "format=table: strptime format of times; empty: seconds or ISO 8601")
    synthetic: SyntheticSettings = dataclasses.field(default_factory=SyntheticSettings)
    missing: MissingSettings = dataclasses.field(default_factory=MissingSettings)


@dataclasses.dataclass(frozen=True)
class ReadReport:
    """What became of every row: rows_read = kept + duplicates + rejected, always.

    Attributes:
      source: the file, or the words that say the data are synthetic.
      rows_read: rows of interactions in the file; also the rows rejected of a file beside it (tags).
      kept: rows that became interactions, before `max_interactions` and `k_core`.
      duplicates: rows merged into an equal one.
      rejected: rows in the quarantine.
      by_reason: reason -> rejected rows, commonest first.
      notices: sentences that should be said loudly.
      lines: all of the above as lines to print.
      noise_floor: of synthetic data with ratings, the squared error of their truth (`World.noise_floor`); else None.
    """

    source: str
    rows_read: int
    kept: int
    duplicates: int
    rejected: int
    by_reason: dict[str, int]
    notices: tuple[str, ...]
    lines: tuple[str, ...]
    noise_floor: float | None = None


def load_interactions(
    options: DataSettings,
    quarantine_path: str | Path | None = None,
    cache: Cache = no_cache,
    widths: Mapping[str, int] | None = None,
) -> tuple[Interactions, ReadReport]:
    """Reads a data set.

    Args:
      options: what to read.
      quarantine_path: the file that gets the rejected rows (written anew); None: they are counted only.
      cache: keeps what was read of large files of JSON lines.
      widths: of a table's vectors, by name; None: that of most of them.

    Raises:
      UserError: an unknown format; options that make no sense; a missing, empty or wrong-format file; more bad rows
        than `max_bad_share`, or more users or items than `max_ids`; nothing left after `k_core`; features that do not
        fit the items.
    """
    _check(options)
    with Quarantine(quarantine_path) as quarantine:
        source, scale, chunks, noise_floor = opened(options, quarantine, cache, widths or {})
        features = item_features.find(Path(source).parent, options.item_features) if options.format == "mmrec" else {}
        name = options.name or _default_name(options.format, source)
        scratch = None if quarantine.path is None else quarantine.path.parent
        assembled = assemble_interactions(
            chunks, name, scale, options.max_interactions, options.k_core, scratch, options.max_ids
        )
        _refuse_bad(options, source, assembled.rows, quarantine)
        if not len(assembled.interactions):
            raise UserError(f"data.k_core={options.k_core}: no interaction of {source} is in so dense a core")
        if options.format == "mmrec":
            assembled = _with_features(assembled, Path(source), features, quarantine)
        assembled.interactions.validate()
        return assembled.interactions, _report(source, assembled, quarantine, noise_floor)


def _check(options: DataSettings) -> None:
    if options.format not in FORMATS:
        raise UserError(f"data.format={options.format!r} is unknown: it should be one of {' '.join(FORMATS)}")
    if options.max_interactions is not None and options.max_interactions < 1:
        raise UserError(f"data.max_interactions={options.max_interactions}: it should be at least 1")
    if not 0 <= options.max_bad_share <= 1:
        raise UserError(f"data.max_bad_share={options.max_bad_share:g}: it should be from 0 to 1")
    if options.k_core < 0:
        raise UserError(f"data.k_core={options.k_core}: it should be 0 (off) or the least number of interactions")
    if options.tfds_dir is not None and options.format not in PREPARED:
        raise UserError(f"data.tfds_dir={options.tfds_dir}: only data.format={'|'.join(PREPARED)} has it")
    if options.item_features and options.format != "mmrec":
        raise UserError(
            f"data.item_features={','.join(options.item_features)}: only data.format=mmrec has features of items"
        )


def _default_name(data_format: str, source: str) -> str:
    if data_format == "synthetic":
        return source
    path = Path(source)
    return f"{data_format}:{mmrec.name_of(path) if data_format == 'mmrec' else path.name}"


def _with_features(assembled: Assembled, source: Path, features: dict[str, Path], quarantine: Quarantine) -> Assembled:
    interactions = assembled.interactions
    mmrec.notice_untrained(source, interactions, quarantine.notices)
    vectors = item_features.read(features, mmrec.rows_of_items(interactions), quarantine.notices)
    return dataclasses.replace(assembled, interactions=dataclasses.replace(interactions, item_vectors=vectors))


def opened(
    options: DataSettings,
    quarantine: Quarantine,
    cache: Cache = no_cache,
    widths: Mapping[str, int] = types.MappingProxyType({}),
) -> tuple[str, tuple[float, float] | None, Iterator[Chunk], float | None]:
    """(source, rating scale, chunks, noise floor) of the data set; arguments and errors as of `load`."""
    if options.format == "synthetic":
        world = generate_world(**options.synthetic.arguments())
        floor = (
            ""
            if math.isnan(world.noise_floor)
            else f"; their noise floor is a mean squared error of {world.noise_floor:.4f}"
        )
        quarantine.notices.append(f"the data are synthetic{floor}")
        return "synthetic", RATING_RANGE, world.chunks(), world.noise_floor
    given = options.rating_min is not None and options.rating_max is not None
    if options.format == "mmrec":
        path = mmrec.find(options.path)
        scale = _scale(options, (math.nan, math.nan)) if given else None
        return str(path), scale, mmrec.read(path, scale, quarantine), None
    if options.tfds_dir is not None:
        return *_open_prepared(options, Path(options.tfds_dir), quarantine, cache), None
    if options.format == "table":
        path = table.find(options.path)
        scale = _scale(options, (math.nan, math.nan)) if given else None
        return str(path), scale, table.read(path, options.columns, options.time_format, scale, quarantine, widths), None
    if options.format == "movielens":
        path = movielens.find(options.path)
        scale = _scale(options, movielens.default_range(path))
        return str(path), scale, movielens.read(path, scale, quarantine), None
    reader = amazon if options.format == "amazon" else yelp
    path = reader.find(options.path)
    scale = _scale(options, reader.RATING_RANGE)
    return str(path), scale, json_reviews.read(path, reader.FORMAT, scale, quarantine, cache), None


def _open_prepared(
    options: DataSettings, folder: Path, quarantine: Quarantine, cache: Cache
) -> tuple[str, tuple[float, float] | None, Iterator[Chunk]]:
    """(source, rating scale, chunks) of a data set that TFDS has prepared, or now prepares, in a folder."""
    from drex_jax.data.tfds import prepared  # here: tensorflow_datasets takes a second to import

    if options.format == "table":
        given = options.rating_min is not None and options.rating_max is not None
        scale = _scale(options, (math.nan, math.nan)) if given else None
        columns = {name: column for name, column in options.columns.items() if column}
        reading = prepared.Reading("table", scale, columns, options.time_format)
    else:
        reader = amazon if options.format == "amazon" else yelp
        reading = prepared.Reading(options.format, _scale(options, reader.RATING_RANGE))
    source, chunks = prepared.read(folder, options.path, reading, quarantine, cache)
    return source, reading.rating_range, chunks


def _scale(options: DataSettings, default: tuple[float, float]) -> tuple[float, float]:
    """The rating scale: of the config, else of the format's definition."""
    low = default[0] if options.rating_min is None else options.rating_min
    high = default[1] if options.rating_max is None else options.rating_max
    if not low < high:
        raise UserError(f"data.rating_min={low:g} and data.rating_max={high:g}: the first should be below the second")
    return low, high


def _refuse_bad(options: DataSettings, source: str, good: int, quarantine: Quarantine) -> None:
    """Raises `UserError` if nothing could be read, or too little."""
    rejected = quarantine.rejected
    listed = "" if quarantine.path is None else f"; each is listed in {quarantine.path}"
    if not good:
        what = EXPECTED[options.format]
        if not rejected:
            raise UserError(f"{source}: no rows; expected {what}")
        raise UserError(f"{source}: none of {rejected:,} rows is good: {quarantine.reasons()}; expected {what}{listed}")
    share = rejected / (good + rejected)
    if share > options.max_bad_share:
        raise UserError(
            f"{source}: {share:.1%} of {good + rejected:,} rows are bad, above data.max_bad_share="
            f"{options.max_bad_share:g}: {quarantine.reasons()}{listed}"
        )


EXPECTED = {
    "synthetic": "at least one synthetic interaction",
    "amazon": amazon.EXPECTED,
    "yelp": yelp.EXPECTED,
    "movielens": movielens.EXPECTED,
    "table": table.EXPECTED,
    "mmrec": mmrec.EXPECTED,
}


def _report(source: str, assembled: Assembled, quarantine: Quarantine, noise_floor: float | None) -> ReadReport:
    table_ = assembled.interactions
    rows, kept = assembled.rows + quarantine.rejected, assembled.rows - assembled.duplicates
    lines = [
        f"{source}: {rows:,} rows read, {kept:,} kept, {assembled.duplicates:,} exact duplicates merged, "
        f"{quarantine.rejected:,} rejected"
    ]
    for count, why in ((assembled.cut, "after data.max_interactions"), (assembled.below_core, "outside data.k_core")):
        if count:
            lines.append(f"{count:,} interactions {why} left out")
    lines.append(
        f"{len(table_):,} interactions of {table_.num_users:,} users and {table_.num_items:,} items; "
        f"{int((~table_.has_rating).sum()):,} without a rating, {int((~table_.has_text).sum()):,} without a text"
    )
    if table_.item_vectors:
        widths = ", ".join(f"{name} ({values.shape[1]:,} wide)" for name, values in table_.item_vectors.items())
        lines.append(f"features of items: {widths}")
    return ReadReport(
        source=source,
        rows_read=rows,
        kept=kept,
        duplicates=assembled.duplicates,
        rejected=quarantine.rejected,
        by_reason=dict(quarantine.ranked()),
        notices=tuple(quarantine.notices),
        lines=(*lines, *quarantine.summary()),
        noise_floor=noise_floor,
    )
