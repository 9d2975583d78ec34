"""Read a data set: from settings to a validated table and a report of every row."""

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
    require,
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

READERS = {"amazon": amazon, "yelp": yelp, "movielens": movielens, "table": table, "mmrec": mmrec}
FORMATS = ("synthetic", *READERS)
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
_RATING = optional(number(-1e6, 1e6))  # float32 distinguishes such ratings, and their squares are finite


@dataclasses.dataclass(frozen=True)
class SyntheticSettings:
    """`data.synthetic`: the synthetic review world (`drex_jax.data.synthetic.world`)."""

    num_interactions: int = setting(6000, whole(10), "interactions")
    num_users: int = setting(300, whole(1), "users")
    num_items: int = setting(200, whole(1), "items")
    missing_text: float = setting(0.1, share(), "share of interactions without a review")
    missing_rating: float = setting(0.0, share(), "share of interactions without a rating")
    noise: float = setting(0.5, number(0.0), "deviation of the noise of ratings")
    seed: int = setting(0, whole(0), "seed of the world")

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of `drex_jax.data.synthetic.world.generate_world`."""
        return {name.removeprefix("num_"): value for name, value in dataclasses.asdict(self).items()}


@dataclasses.dataclass(frozen=True)
class DataSettings:
    """`data`: source of the data, and how it is read."""

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
    """Counts of all rows: rows_read = kept + duplicates + rejected, always.

    Attributes:
      source: the file, or "synthetic".
      rows_read: rows of interactions in the file, plus rejected rows of a file beside it (tags).
      kept: rows that became interactions, before `max_interactions` and `k_core`.
      duplicates: rows merged into an equal row.
      rejected: rows in the quarantine.
      by_reason: rejected rows for each reason, commonest first.
      notices: sentences for the user.
      lines: the whole report as lines to print.
      noise_floor: for synthetic data with ratings the squared error of their truth (`World.noise_floor`); else None.
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


@dataclasses.dataclass(frozen=True)
class Source:
    """A data set that is open for reading.

    Attributes:
      name: the file, or "synthetic".
      rating_range: (lowest, highest) of the rating scale; None if ratings are not read.
      chunks: the interactions in file order.
      noise_floor: see `ReadReport`.
    """

    name: str
    rating_range: tuple[float, float] | None
    chunks: Iterator[Chunk]
    noise_floor: float | None = None


def load_interactions(
    options: DataSettings,
    quarantine: str | Path | Quarantine | None = None,
    cache: Cache = no_cache,
    widths: Mapping[str, int] | None = None,
) -> tuple[Interactions, ReadReport]:
    """Read a data set.

    Args:
      options: source of the data, and how it is read.
      quarantine: lists rejected rows, or the path of a file for the list, which is overwritten; None: they are only
        counted.
      cache: keeps the decoded blocks of large files of JSON lines.
      widths: width of each vector modality of a table; for a modality that is not here the commonest width counts.

    Raises:
      UserError: a setting breaks its rule; the file is missing, empty or in a wrong format; the share of bad rows is
        above `max_bad_share`; there are more users or items than `max_ids`; nothing is left after `k_core`; item
        features do not match the items.
    """
    _check(options)
    with quarantine if isinstance(quarantine, Quarantine) else Quarantine(quarantine) as quarantine:
        source = open_source(options, quarantine, cache, widths or {})
        path, is_mmrec = Path(source.name), options.format == "mmrec"
        name = mmrec.name_of(path) if is_mmrec else path.name
        name = name if options.format == "synthetic" else f"{options.format}:{name}"
        features = item_features.find(path.parent, options.item_features) if is_mmrec else {}
        assembled = assemble_interactions(
            source.chunks,
            options.name or name,
            source.rating_range,
            options.max_interactions,
            options.k_core,
            None if quarantine.path is None else quarantine.path.parent,
            options.max_ids,
        )
        _refuse_bad(options, source.name, assembled.rows, quarantine)
        interactions = assembled.interactions
        if not len(interactions):
            raise UserError(f"data.k_core={options.k_core}: no interaction of {source.name} is in so dense a core")
        if is_mmrec:
            mmrec.notice_untrained(path, interactions, quarantine.notices)
            vectors = item_features.read(features, mmrec.rows_of_items(interactions), quarantine.notices)
            interactions = dataclasses.replace(interactions, item_vectors=vectors)
        interactions.validate()
        return interactions, _report(source, dataclasses.replace(assembled, interactions=interactions), quarantine)


def _check(options: DataSettings) -> None:
    for prefix, group in (("data", options), ("data.synthetic", options.synthetic)):
        for field in dataclasses.fields(group):
            if "rule" in field.metadata:
                require(f"{prefix}.{field.name}", getattr(group, field.name), field.metadata["rule"])
    if options.tfds_dir is not None and options.format not in PREPARED:
        raise UserError(f"data.tfds_dir={options.tfds_dir}: only data.format={'|'.join(PREPARED)} has it")
    if options.item_features and options.format != "mmrec":
        raise UserError(
            f"data.item_features={','.join(options.item_features)}: only data.format=mmrec has features of items"
        )


def open_source(
    options: DataSettings,
    quarantine: Quarantine,
    cache: Cache = no_cache,
    widths: Mapping[str, int] = types.MappingProxyType({}),
) -> Source:
    """Open a data set; arguments and errors as in `load_interactions`."""
    if options.format == "synthetic":
        world = generate_world(**options.synthetic.arguments())
        has_floor = not math.isnan(world.noise_floor)
        floor = f"; their noise floor is a mean squared error of {world.noise_floor:.4f}" if has_floor else ""
        quarantine.notices.append(f"the data are synthetic{floor}")
        return Source("synthetic", RATING_RANGE, world.chunks(), world.noise_floor)
    if options.tfds_dir is not None:
        from drex_jax.data.tfds import prepared  # here: tensorflow_datasets takes a second to import

        columns = {name: column for name, column in options.columns.items() if column}
        scale = _scale(options, getattr(READERS[options.format], "RATING_RANGE", None))
        of_table = {"columns": columns, "time_format": options.time_format} if options.format == "table" else {}
        how = {"rating_range": scale, **of_table}
        name, chunks = prepared.read(Path(options.tfds_dir), options.path, options.format, how, quarantine, cache)
        return Source(name, scale, chunks)
    path = READERS[options.format].find(options.path)
    if options.format == "table":
        scale = _scale(options, None)
        chunks = table.read(path, options.columns, options.time_format, scale, quarantine, widths)
    elif options.format == "mmrec":
        scale = _scale(options, None)
        chunks = mmrec.read(path, scale, quarantine)
    elif options.format == "movielens":
        scale = _scale(options, movielens.default_range(path))
        chunks = movielens.read(path, scale, quarantine)
    else:
        reader = amazon if options.format == "amazon" else yelp
        scale = _scale(options, reader.RATING_RANGE)
        chunks = json_reviews.read(path, reader.FORMAT, scale, quarantine, cache)
    return Source(str(path), scale, chunks)


def _scale(options: DataSettings, default: tuple[float, float] | None) -> Any:
    """Return the rating scale: that of the settings, else the default of the format; None if an end is unknown."""
    low, high = default or (None, None)
    low = low if options.rating_min is None else options.rating_min
    high = high if options.rating_max is None else options.rating_max
    if low is None or high is None:
        return None
    if not low < high:
        raise UserError(f"data.rating_min={low:g} and data.rating_max={high:g}: the first should be below the second")
    return low, high


def _refuse_bad(options: DataSettings, source: str, good: int, quarantine: Quarantine) -> None:
    """Raise `UserError` if there is no good row, or too large a share of bad rows."""
    rejected, reasons = quarantine.rejected, quarantine.reasons()
    listed = "" if quarantine.path is None else f"; each is listed in {quarantine.path}"
    if not good:
        expected = READERS[options.format].EXPECTED
        if not rejected:
            raise UserError(f"{source}: no rows; expected {expected}")
        raise UserError(f"{source}: none of {rejected:,} rows is good: {reasons}; expected {expected}{listed}")
    share = rejected / (good + rejected)
    if share > options.max_bad_share:
        raise UserError(
            f"{source}: {share:.1%} of {good + rejected:,} rows are bad, above data.max_bad_share="
            f"{options.max_bad_share:g}: {reasons}{listed}"
        )


def _report(source: Source, assembled: Assembled, quarantine: Quarantine) -> ReadReport:
    interactions = assembled.interactions
    rows, kept = assembled.rows + quarantine.rejected, assembled.rows - assembled.duplicates
    lines = [
        f"{source.name}: {rows:,} rows read, {kept:,} kept, {assembled.duplicates:,} exact duplicates merged, "
        f"{quarantine.rejected:,} rejected"
    ]
    for count, why in ((assembled.cut, "after data.max_interactions"), (assembled.below_core, "outside data.k_core")):
        if count:
            lines.append(f"{count:,} interactions {why} left out")
    lines.append(
        f"{len(interactions):,} interactions of {interactions.num_users:,} users and {interactions.num_items:,} items; "
        f"{int((~interactions.has_rating).sum()):,} without a rating, "
        f"{int((~interactions.has_text).sum()):,} without a text"
    )
    if interactions.item_vectors:
        widths = ", ".join(f"{name} ({values.shape[1]:,} wide)" for name, values in interactions.item_vectors.items())
        lines.append(f"features of items: {widths}")
    return ReadReport(
        source=source.name,
        rows_read=rows,
        kept=kept,
        duplicates=assembled.duplicates,
        rejected=quarantine.rejected,
        by_reason=dict(quarantine.ranked()),
        notices=tuple(quarantine.notices),
        lines=(*lines, *quarantine.summary()),
        noise_floor=source.noise_floor,
    )
