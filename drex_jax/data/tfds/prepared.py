"""Read data sets that TFDS prepared: the same rows as from the raw file, and the same rejected rows.

If the raw file is given, the data set prepared from exactly these bytes is read; if there is none, it is prepared.
Without a raw file, the only prepared data set that fits is read: it can be copied to other machines.
"""

from __future__ import annotations

import contextlib
import functools
import io
import logging
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orjson
import tensorflow_datasets as tfds
from google.protobuf import json_format
from tensorflow_datasets.core.decode import DeserializeMethod

from drex_jax.common.cache import Cache
from drex_jax.common.errors import UserError
from drex_jax.common.files import json_of
from drex_jax.common.progress import progress_bar
from drex_jax.data.readers import find
from drex_jax.data.readers.chunk import CHUNK_ROWS, Chunk
from drex_jax.data.readers.quarantine import Quarantine
from drex_jax.data.tfds import records
from drex_jax.data.tfds.amazon import AmazonReviews
from drex_jax.data.tfds.builder import QUARANTINE, SPLIT, NoRowsError, Reviews, ReviewsConfig, require_array_record
from drex_jax.data.tfds.tables import ReviewTable, TripAdvisorReviews
from drex_jax.data.tfds.yelp import YelpReviews

LOGGER = logging.getLogger(__name__)

VERSION = 1  # of the decoded arrays; part of the cache key
_FACTS = ("path", "sha256", "rating_range", "columns", "time_format", "reader", "rejected", "notices", "bytes")


class DataSet(NamedTuple):
    """A prepared data set.

    Attributes:
      folder: `data_dir/name/config/version`.
      facts: metadata from its builder: the `path` of the raw file and so on.
    """

    folder: Path
    facts: dict[str, Any]

    @property
    def raw_name(self) -> str:
        """Name of the raw file."""
        return Path(self.facts["path"]).name


def builder_for(data_format: str, columns: Mapping[str, str]) -> type[Reviews]:
    """Return the builder of a format; a table with the columns of TripAdvisor counts as TripAdvisor."""
    if data_format != "table":
        return AmazonReviews if data_format == "amazon" else YelpReviews
    return TripAdvisorReviews if columns == TripAdvisorReviews.BUILDER_CONFIGS[0].columns else ReviewTable


def read(
    data_dir: Path,
    path: str | Path | None,
    data_format: str,
    options: Mapping[str, Any],
    quarantine: Quarantine,
    cache: Cache,
) -> tuple[str, Iterator[Chunk]]:
    """Return (path of the raw file, chunks of its rows in file order), after preparing the data set if necessary.

    Args:
      data_dir: folder of the TFDS data sets.
      path: the raw file or the folder that holds it, as for the plain readers; it need not exist.
      data_format: amazon, yelp or table.
      options: `rating_range`, `columns` and `time_format` of `ReviewsConfig`, where the format has them.
      quarantine: receives all rows that were rejected when the data set was prepared.
      cache: keeps the decoded rows of a large data set.

    Raises:
      UserError: there is neither a raw file nor exactly one prepared data set that fits; the file has a wrong format;
        `data_dir` is not a folder, cannot be written, or holds a damaged data set.
    """
    builder_type = builder_for(data_format, options.get("columns", {}))
    require_array_record()
    data_dir = data_dir.expanduser()
    if data_dir.exists() and not data_dir.is_dir():
        raise UserError(f"{data_dir}: data.tfds_dir should be a folder")
    try:
        raw = builder_type.find(path)
    except find.MissingError as missing:
        data_set = _fitting(data_dir, path, builder_type, ReviewsConfig("", **options).reading(), missing)
        raw = Path(data_set.facts["path"])
        why = str(missing).partition(";")[0]
        quarantine.notices.append(f"{why}; the rows are those of {raw.name} as prepared in {data_set.folder}")
    else:
        config = builder_type.config_for(raw, **options)
        folder = data_dir / builder_type.name / config.name / str(builder_type.VERSION)
        if not folder.exists():
            with _quiet():
                builder = builder_type(data_dir=data_dir, config=config)
            try:
                _prepare(builder, raw)
            except NoRowsError:  # the caller reports an empty data set
                return str(raw), builder.chunks(raw, quarantine)
        data_set = _opened(folder)
        if data_set.facts["sha256"] != config.sha256:
            raise _damaged(folder, f"prepared of another file than {raw}")
    _replay_rejected(data_set, raw, quarantine)
    return str(raw), _chunks(data_set, cache)


def _prepare(builder: Reviews, raw: Path) -> None:
    folder = Path(builder.data_dir)
    LOGGER.info("preparing %s in %s, once", raw, folder)
    try:
        with _quiet():
            builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=raw.parent))
    except OSError as error:
        if not folder.exists():  # else another process was faster
            raise UserError(f"{folder}: data.tfds_dir cannot be written ({error.strerror or error})") from error


@contextlib.contextmanager
def _quiet() -> Generator[None]:
    """Silence TFDS: it reports a download, though there is none, and warns of configs that are not listed."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)


def _fitting(
    data_dir: Path, path: str | Path | None, builder_type: type[Reviews], reading: dict[str, Any], missing: UserError
) -> DataSet:
    """Return the only prepared data set with the settings `reading` and, if `path` names a file, that raw name.

    Raises:
      UserError: there is none, or more than one; the message begins with `missing`.
    """
    sound, damaged = [], []
    for folder in sorted((data_dir / builder_type.name).glob(f"*/{builder_type.VERSION}")):
        try:
            sound.append(_opened(folder))
        except UserError as error:
            damaged.append(error)
    fitting = [data_set for data_set in sound if {name: data_set.facts[name] for name in reading} == reading]
    name = Path(path).name if path and not Path(path).is_dir() else ""
    if Path(name).suffix:  # otherwise it is the name of a folder that does not exist
        fitting = [data_set for data_set in fitting if data_set.raw_name == name]
    if len(fitting) == 1:
        return fitting[0]
    listed = ", ".join(str(data_set.folder.relative_to(data_dir)) for data_set in fitting or sound) or "none at all"
    if fitting:
        raise UserError(
            f"{missing}; {data_dir} holds {len(fitting)} prepared data sets that could be meant ({listed}): let "
            "data.path name the raw file of one, or remove the others"
        )
    if damaged:
        raise damaged[0]
    raise UserError(
        f"{missing}; {data_dir} holds no data set that was prepared of it and is read in this way ({listed})"
    )


def _opened(folder: Path) -> DataSet:
    """Return a prepared data set after checking that its files exist and have the right size.

    Raises:
      UserError: a file is missing or damaged.
    """
    try:
        facts = orjson.loads((folder / "metadata.json").read_bytes())
        for name in _FACTS:
            facts[name]
        for name, size in facts["bytes"].items():
            actual = (folder / name).stat().st_size
            if actual != size:
                raise _damaged(folder, f"{name} has {actual:,} bytes of {size:,}")
        for name in ("dataset_info.json", QUARANTINE):
            (folder / name).stat()
        if not _only_of_tfds(json_of(folder / "features.json")):
            raise _damaged(folder, "features.json names a class that is not of TFDS")
    except OSError as error:
        raise _damaged(folder, f"{Path(error.filename or folder).name}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise _damaged(folder, "metadata.json is not as it was written") from None
    return DataSet(folder, facts)


def _only_of_tfds(described: Any) -> bool:
    """Return True if all classes in a description of features are of TFDS, which imports their modules."""
    if isinstance(described, list):
        return all(map(_only_of_tfds, described))
    if not isinstance(described, dict):
        return True
    named = [described[key] for key in ("pythonClassName", "python_class_name") if key in described]
    of_tfds = all(isinstance(name, str) and name.startswith("tensorflow_datasets.") for name in named)
    return of_tfds and all(map(_only_of_tfds, described.values()))


def _damaged(folder: Path, why: str) -> UserError:
    return UserError(
        f"{folder}: the prepared data set is damaged ({why}); remove that folder, and it is prepared again"
    )


def _replay_rejected(data_set: DataSet, raw: Path, quarantine: Quarantine) -> None:
    """Record the rows rejected when the data set was prepared, under the current path of the raw file."""
    folder, facts = data_set
    try:
        lines = (folder / QUARANTINE).read_bytes().splitlines()
        for row in map(orjson.loads, lines):
            quarantine.record(raw, row["line"], row["reason"], row.get("value"))
    except (OSError, ValueError, KeyError, TypeError):
        raise _damaged(folder, f"{QUARANTINE} is not as it was written") from None
    if len(lines) != sum(facts["rejected"].values()):
        raise _damaged(folder, f"{QUARANTINE} has {len(lines):,} lines")
    quarantine.notices += [notice.replace(facts["path"], str(raw)) for notice in facts["notices"]]


def _chunks(data_set: DataSet, cache: Cache) -> Iterator[Chunk]:
    """Yield the rows, some thousand at a time."""
    folder, facts = data_set
    rows, config = _records(folder), ReviewsConfig("", columns=facts["columns"])
    key = {name: facts[name] for name in (*config.reading(), "sha256")} | {"folder": folder.parts[-3:]}

    def decoded(begin: int, end: int) -> dict[str, np.ndarray]:
        try:
            encoded = rows.__getitems__(list(range(begin, end)))
            return records.decode(encoded, config.vectors, "split" in config.columns).to_arrays()
        except (RuntimeError, IndexError) as error:
            raise _damaged(folder, str(error).splitlines()[0]) from error

    with progress_bar(f"reading {folder.parent.name}", len(rows), "rows") as bar:
        for begin in range(0, len(rows), CHUNK_ROWS):
            end = min(begin + CHUNK_ROWS, len(rows))
            make = functools.partial(decoded, begin, end)
            is_small = len(rows) <= CHUNK_ROWS
            arrays = make() if is_small else cache("prepared", {}, key | {"rows": [begin, end]}, VERSION, make)
            yield Chunk.from_arrays(arrays)
            bar.update(end - begin)


def _records(folder: Path) -> Any:
    """Return the encoded rows as a sequence that is read from the disk."""
    try:
        builder: Any = tfds.builder_from_directory(folder)
        return builder.as_data_source(SPLIT, deserialize_method=DeserializeMethod.RAW_BYTES)
    except (json_format.Error, RuntimeError, AssertionError, ValueError, LookupError) as error:
        raise _damaged(folder, str(error).splitlines()[0]) from error
