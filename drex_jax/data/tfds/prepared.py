"""How a run reads what TFDS has prepared: the same rows as from the raw file, and the same rows rejected.

Where the raw file is given, the data set prepared of these very bytes is read; if there is none, it is prepared. Where
there is no raw file, the one prepared data set that fits is read, so that it can be carried to other machines.
"""

from __future__ import annotations

import contextlib
import functools
import io
import logging
from collections.abc import Iterator, Mapping
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

VERSION = 1  # of the arrays made of the same records
_FACTS = ("path", "sha256", "rating_range", "columns", "time_format", "reader", "rejected", "notices", "bytes")


class Reading(NamedTuple):
    """How the raw file is read.

    Attributes:
      format: amazon, yelp or table.
      rating_range, columns, time_format: as in `drex_jax.data.tfds.builder.ReviewsConfig`.
    """

    format: str
    rating_range: tuple[float, float] | None = None
    columns: Mapping[str, str] = {}
    time_format: str = ""

    @property
    def builder(self) -> type[Reviews]:
        """The builder of such data. Tables with the columns that TripAdvisor's have are taken for those."""
        if self.format != "table":
            return AmazonReviews if self.format == "amazon" else YelpReviews
        hotels = self.columns == TripAdvisorReviews.BUILDER_CONFIGS[0].columns
        return TripAdvisorReviews if hotels else ReviewTable

    @property
    def options(self) -> dict[str, Any]:
        """As `ReviewsConfig` has them."""
        return {"rating_range": self.rating_range, "columns": self.columns, "time_format": self.time_format}


class DataSet(NamedTuple):
    """One that is prepared.

    Attributes:
      folder: `data_dir/name/config/version`.
      facts: what its builder noted down: the `path` of the raw file and so on.
    """

    folder: Path
    facts: dict[str, Any]

    @property
    def raw_name(self) -> str:
        """Of the raw file."""
        return Path(self.facts["path"]).name


def read(
    data_dir: Path, path: str | Path | None, reading: Reading, quarantine: Quarantine, cache: Cache
) -> tuple[str, Iterator[Chunk]]:
    """(the raw file's path, chunks of its rows in file order), after preparing the data set if need be.

    Args:
      data_dir: where TFDS keeps its data sets.
      path: of the raw file or the folder that holds it, as for the plain readers; there need not be one.
      reading: how.
      quarantine: told of all rows that were rejected in preparing.
      cache: keeps what was read of a large data set.

    Raises:
      UserError: neither a raw file nor one prepared data set that fits; the file is wrong; the folder is none, cannot
        be written, or holds a damaged data set.
    """
    require_array_record()
    data_dir = data_dir.expanduser()
    if data_dir.exists() and not data_dir.is_dir():
        raise UserError(f"{data_dir}: data.tfds_dir should be a folder")
    try:
        raw = reading.builder.find(path)
    except find.MissingError as missing:
        found = _fitting(data_dir, path, reading, missing)
        raw = Path(found.facts["path"])
        why = str(missing).partition(";")[0]
        quarantine.notices.append(f"{why}; the rows are those of {raw.name} as prepared in {found.folder}")
    else:
        config = reading.builder.config_for(raw, **reading.options)
        folder = data_dir / reading.builder.name / config.name / str(reading.builder.VERSION)
        if not folder.exists():
            with _quiet():
                builder = reading.builder(data_dir=data_dir, config=config)
            try:
                _prepare(builder, raw)
            except NoRowsError:  # whoever reads the chunks says what is wrong
                return str(raw), builder.chunks(raw, quarantine)
        found = _opened(folder)
        if found.facts["sha256"] != config.sha256:
            raise _damaged(folder, f"prepared of another file than {raw}")
    _reject(found, raw, quarantine)
    return str(raw), _chunks(found, cache)


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
def _quiet() -> Iterator[None]:
    """TFDS prints that it downloads, which it does not, and warns of configs that are not listed."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)


def _fitting(data_dir: Path, path: str | Path | None, reading: Reading, missing: UserError) -> DataSet:
    """The only prepared data set that is read so and, if the path names a file, is of one of that name."""
    wanted = ReviewsConfig("", **reading.options).reading()
    there, damaged = [], []
    for folder in sorted((data_dir / reading.builder.name).glob(f"*/{reading.builder.VERSION}")):
        try:
            there.append(_opened(folder))
        except UserError as error:
            damaged.append(error)
    found = [each for each in there if {name: each.facts[name] for name in wanted} == wanted]
    name = Path(path).name if path and not Path(path).is_dir() else ""
    if Path(name).suffix:  # else it is the name of a folder that is not there
        found = [each for each in found if each.raw_name == name]
    if len(found) == 1:
        return found[0]
    names = ", ".join(str(each.folder.relative_to(data_dir)) for each in found or there) or "none at all"
    if found:
        raise UserError(
            f"{missing}; {data_dir} holds {len(found)} prepared data sets that could be meant ({names}): let data.path "
            "name the raw file of one, or remove the others"
        )
    if damaged:
        raise damaged[0]
    raise UserError(
        f"{missing}; {data_dir} holds no data set that was prepared of it and is read in this way ({names})"
    )


def _opened(folder: Path) -> DataSet:
    """A prepared data set whose files are all there, and of the right size.

    Raises:
      UserError: they are not.
    """
    try:
        facts = orjson.loads((folder / "metadata.json").read_bytes())
        for name in _FACTS:
            facts[name]
        for name, size in facts["bytes"].items():
            there = (folder / name).stat().st_size
            if there != size:
                raise _damaged(folder, f"{name} has {there:,} bytes of {size:,}")
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
    """Whether the classes that a description of features names, whose modules TFDS imports, are its own."""
    if isinstance(described, list):
        return all(map(_only_of_tfds, described))
    if not isinstance(described, dict):
        return True
    named = [described[key] for key in ("pythonClassName", "python_class_name") if key in described]
    own = all(isinstance(name, str) and name.startswith("tensorflow_datasets.") for name in named)
    return own and all(map(_only_of_tfds, described.values()))


def _damaged(folder: Path, why: str) -> UserError:
    return UserError(f"{folder}: the prepared data set is damaged ({why}); remove that folder, and it is prepared anew")


def _reject(found: DataSet, raw: Path, quarantine: Quarantine) -> None:
    """Tells the quarantine what the preparation's was told, of the file where it is now."""
    try:
        lines = (found.folder / QUARANTINE).read_bytes().splitlines()
        for row in map(orjson.loads, lines):
            quarantine.record(raw, row["line"], row["reason"], row.get("value"))
    except (OSError, ValueError, KeyError, TypeError):
        raise _damaged(found.folder, f"{QUARANTINE} is not as it was written") from None
    if len(lines) != sum(found.facts["rejected"].values()):
        raise _damaged(found.folder, f"{QUARANTINE} has {len(lines):,} lines")
    quarantine.notices += [notice.replace(found.facts["path"], str(raw)) for notice in found.facts["notices"]]


def _chunks(found: DataSet, cache: Cache) -> Iterator[Chunk]:
    """The rows, some thousand at a time."""
    facts, rows = found.facts, _records(found)
    config = ReviewsConfig("", columns=facts["columns"])
    key = {name: facts[name] for name in (*config.reading(), "sha256")} | {"folder": found.folder.parts[-3:]}

    def decoded(begin: int, end: int) -> dict[str, np.ndarray]:
        try:
            encoded = rows.__getitems__(list(range(begin, end)))
            return records.decode(encoded, config.vectors, "split" in config.columns)
        except (RuntimeError, IndexError) as error:
            raise _damaged(found.folder, str(error).splitlines()[0]) from error

    with progress_bar(f"reading {found.folder.parent.name}", len(rows), "rows") as bar:
        for begin in range(0, len(rows), CHUNK_ROWS):
            end = min(begin + CHUNK_ROWS, len(rows))
            forget = len(rows) <= CHUNK_ROWS
            make = functools.partial(decoded, begin, end)
            arrays = make() if forget else cache("prepared", {}, key | {"rows": [begin, end]}, VERSION, make)
            yield records.chunk_of(arrays)
            bar.update(end - begin)


def _records(found: DataSet) -> Any:
    """The encoded rows, as a sequence that is read from the disk."""
    try:
        builder: Any = tfds.builder_from_directory(found.folder)
        return builder.as_data_source(SPLIT, deserialize_method=DeserializeMethod.RAW_BYTES)
    except (json_format.Error, RuntimeError, AssertionError, ValueError, LookupError) as error:
        raise _damaged(found.folder, str(error).splitlines()[0]) from error
