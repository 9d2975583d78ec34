"""The common part of the builders: the rows of the plain readers, in file order, in array_record files.

The name of a prepared data set contains a hash of everything its rows depend on: the bytes of the file and the settings
of reading. So a changed file, or another rating scale, is another data set.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib.util
import itertools
import re
from collections.abc import Generator, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import orjson
import tensorflow_datasets as tfds
from tensorflow_datasets.core.splits import SplitDict

from drex_jax.common.errors import UserError
from drex_jax.data.readers import find, json_decode, json_reviews
from drex_jax.data.readers.chunk import Chunk
from drex_jax.data.readers.quarantine import Quarantine
from drex_jax.data.readers.table import KNOWN
from drex_jax.data.tfds import records

FORMAT = "array_record"  # TFDS reads and writes it without TensorFlow
SPLIT = "train"  # TFDS uses this name for a whole data set without an official split
QUARANTINE = "quarantine.jsonl"
_HASH_LETTERS, _NAME_LETTERS = 16, 80
_Builder: Any = tfds.core.GeneratorBasedBuilder  # Any: type checkers do not understand its decorated methods


class NoRowsError(UserError):
    """No row of the file is good, so there is nothing to prepare."""


@dataclasses.dataclass(eq=False)
class ReviewsConfig(tfds.core.BuilderConfig):
    """The file of a data set, and the settings of reading.

    Attributes:
      files: possible names of the file in `manual_dir`; empty: the file that the reader of the format finds there.
      sha256: hash of the bytes of the file; empty: any file.
      rating_range: the rating scale; None if ratings are not read.
      columns: for a table: our name -> its column.
      time_format: for a table: see `drex_jax.data.readers.fields.time_parser`.
    """

    files: tuple[str, ...] = ()
    sha256: str = ""
    rating_range: tuple[float, float] | None = (1.0, 5.0)
    columns: Mapping[str, str] = dataclasses.field(default_factory=dict)
    time_format: str = ""

    def reading(self) -> dict[str, Any]:
        """Return everything but the file that the rows depend on, as JSON values."""
        scale = None if self.rating_range is None else list(map(float, self.rating_range))
        return {
            "rating_range": scale,
            "columns": dict(sorted(self.columns.items())),
            "time_format": self.time_format,
            "reader": json_decode.VERSION,
        }

    @property
    def vectors(self) -> tuple[str, ...]:
        """Names of the columns with vectors."""
        return tuple(sorted(set(self.columns) - set(KNOWN)))


class Reviews(_Builder, skip_registration=True):  # pyright: ignore[reportGeneralTypeIssues, reportCallIssue]
    """A builder of reviews from a file that the user has put into `manual_dir`, without TensorFlow.

    A config in `BUILDER_CONFIGS` names a file. The config of a prepared data set also names the content of the file
    (`config_for`); `download_and_prepare` replaces the first by the second once it knows `manual_dir`.

    Args:
      file_format: must be array_record.
      **kwargs: arguments of TFDS builders: `config`, `data_dir`, `version`.

    Attributes:
      READER: module of `drex_jax.data.readers` with `find` and, for JSON lines, `FORMAT`.
      DESCRIPTION, HOMEPAGE, CITATION: texts about the data set.
    """

    READER: ClassVar[Any]
    DESCRIPTION: ClassVar[str]
    HOMEPAGE: ClassVar[str] = ""
    CITATION: ClassVar[str] = ""
    VERSION = tfds.core.Version("1.0.0")  # increase it when the same file and settings give different rows
    RELEASE_NOTES: ClassVar[dict[str, str]] = {"1.0.0": "The first one."}
    BUILDER_CONFIGS: ClassVar[list[ReviewsConfig]] = []
    builder_config: ReviewsConfig

    def __init__(self, *, file_format: Any = FORMAT, **kwargs: Any):
        _require_format(file_format)
        self._info_made: Any = None
        super().__init__(file_format=FORMAT, **kwargs)

    @classmethod
    def find(cls, path: str | Path | None) -> Path:
        """Return the file at a path or in a folder. Raises `find.MissingError` or `UserError`."""
        return cls.READER.find(path)

    def chunks(self, path: Path, quarantine: Quarantine) -> Iterator[Chunk]:
        """Return the rows of the file as from the plain reader."""
        assert self.builder_config.rating_range is not None
        return json_reviews.read(path, self.READER.FORMAT, self.builder_config.rating_range, quarantine)

    def about(self) -> dict[str, str]:
        """Return `description`, `homepage` and `citation` of the data set."""
        return {"description": self.DESCRIPTION, "homepage": self.HOMEPAGE, "citation": self.CITATION}

    @classmethod
    def config_for(cls, path: str | Path, **options: Any) -> ReviewsConfig:
        """Return the config of the data set prepared from a file.

        Args:
          path: the file.
          **options: `rating_range`, `columns` and `time_format`, if they differ from those of the builder.

        Raises:
          UserError: the file cannot be read.
        """
        path = Path(path)
        base = next((config for config in cls.BUILDER_CONFIGS if path.name in config.files), cls.BUILDER_CONFIGS[0])
        stem = base.name if base.files else re.sub(r"[^A-Za-z0-9_.-]", "_", Path(path.name.removesuffix(".gz")).stem)
        config = dataclasses.replace(base, files=(path.name,), sha256=_sha256_of(path), **options)
        how = hashlib.sha256(orjson.dumps(config.reading())).hexdigest()
        config.name = f"{stem[:_NAME_LETTERS]}-{config.sha256[:_HASH_LETTERS]}-{how[: _HASH_LETTERS // 2]}"
        return config

    def source(self, manual_dir: str | Path) -> Path:
        """Return the file of the config in a folder. Raises `find.MissingError` or `UserError`."""
        names = self.builder_config.files
        if not names:
            return self.find(manual_dir)
        present = [path for name in names if (path := Path(manual_dir, name)).is_file()]
        if not present:
            raise find.MissingError(f"{manual_dir}: no file here is named {' or '.join(names)}")
        return self.find(present[0])

    @property
    def info(self) -> Any:
        """Information about the data set; computed again when the config changes (TFDS would cache it)."""
        if self._info_made is None:
            self._info_made = self._info()
        return self._info_made

    def _info(self) -> Any:
        text, config = tfds.features.Text, self.builder_config
        about: dict[str, Any] = dict(self.about())
        features: dict[str, Any] = {
            "user_id": text(doc="Who wrote the review."),
            "item_id": text(doc="What it is about."),
            "rating": tfds.features.Scalar(np.float32, doc="NaN where it is missing."),
            "timestamp": tfds.features.Tensor(
                shape=(), dtype=np.float64, encoding="bytes", doc="Seconds since 1970, UTC."
            ),
            "text": text(doc="Empty where it is missing."),
        }
        if "split" in config.columns:
            features["split"] = tfds.features.Scalar(np.int64, doc="The file's: 0 train, 1 validation, 2 test.")
        if config.vectors:
            features["vectors"] = {
                name: tfds.features.Tensor(shape=(None,), dtype=np.float32, doc="Without elements where it is missing.")
                for name in config.vectors
            }
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(features),
            supervised_keys=None,
            disable_shuffling=True,  # rows stay in the order of the file
            metadata=tfds.core.MetadataDict(),
            **about,
        )

    def download_and_prepare(
        self, *, download_dir: Any = None, download_config: Any = None, file_format: Any = FORMAT, **kwargs: Any
    ) -> None:
        """Prepare the data set under `data_dir`, unless it exists; nothing is downloaded.

        The file is expected in `download_config.manual_dir`, by default `data_dir/downloads/manual`.

        Raises:
          UserError: there is no file, its format is wrong, or it is not the file of the config.
          NoRowsError: none of its rows is good.
        """
        _require_format(file_format)
        config, root = self.builder_config, self.data_dir_root
        if not config.sha256:
            manual_dir = download_config.manual_dir if download_config else None
            path = self.source(manual_dir or Path(download_dir or root / "downloads", "manual"))
            options = {name: getattr(config, name) for name in ("rating_range", "columns", "time_format")}
            attributes: Any = vars(self)
            attributes.clear()
            self.__init__(data_dir=root, config=self.config_for(path, **options))
        super().download_and_prepare(
            download_dir=download_dir, download_config=download_config, file_format=FORMAT, **kwargs
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
        path = self.source(dl_manager.manual_dir)
        if _sha256_of(path) != self.builder_config.sha256:
            raise UserError(f"{path}: not the file of the config {self.builder_config.name}, which names its content")
        return {SPLIT: self._generate_examples(path)}

    def _generate_examples(self, path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
        numbers = itertools.count()
        with Quarantine(Path(self.data_dir, QUARANTINE)) as quarantine:
            for chunk in self.chunks(path, quarantine):
                for example in records.examples_of(chunk, self.builder_config.vectors):
                    yield next(numbers), example
            facts = {"path": str(path), "sha256": self.builder_config.sha256, **self.builder_config.reading()}
            facts |= {"rejected": dict(quarantine.ranked()), "notices": quarantine.notices}
        self.info.metadata.update(facts)

    def _download_and_prepare(self, dl_manager: Any, download_config: Any) -> None:
        """Write the records in file order.

        TFDS itself would sort them first: up to a gigabyte in memory, above that with TensorFlow.
        """
        most = download_config.max_examples_per_split
        if most == 0:
            return
        examples = itertools.islice(self._split_generators(dl_manager)[SPLIT], most)
        template = tfds.core.ShardedFileTemplate(
            split=SPLIT, dataset_name=self.name, data_dir=self.data_path, filetype_suffix=FORMAT
        )
        lengths, size = _write((records.encode(example) for _, example in examples), template, download_config)
        info = tfds.core.SplitInfo(name=SPLIT, shard_lengths=lengths, num_bytes=size, filename_template=template)
        self.info.set_splits(SplitDict([info]))
        written = sorted(Path(self.data_dir).glob(f"*.{FORMAT}-*"))
        self.info.metadata["bytes"] = {file.name: file.stat().st_size for file in written}


def _write(encoded: Iterable[bytes], template: Any, download_config: Any) -> tuple[list[int], int]:
    """Write files of at most `max_shard_size` bytes, or one record; return (records of each file, bytes of all)."""
    require_array_record()
    parts: list[_Part] = []
    for record in encoded:
        if not parts or parts[-1].size + len(record) > download_config.max_shard_size:
            if parts:
                parts[-1].close()
            parts.append(_Part(Path(template.data_dir, f"{len(parts)}.part")))
        parts[-1].write(record)
    if not parts:
        raise NoRowsError(f"{template.data_dir}: nothing to prepare, as no row of the file is good")
    parts[-1].close()
    for number, part in enumerate(parts):
        part.path.replace(template.sharded_filepath(shard_index=number, num_shards=len(parts)))
    return [part.records for part in parts], sum(part.size for part in parts)


class _Part:
    """A file of records that counts them and their bytes. Raises OSError like other files."""

    def __init__(self, path: Path):
        from array_record.python.array_record_module import ArrayRecordWriter

        self.path, self.records, self.size = path, 0, 0
        with _disk_errors():
            self._writer: Any = ArrayRecordWriter(str(path), "group_size:1")

    def write(self, record: bytes) -> None:
        with _disk_errors():
            self._writer.write(record)
        self.records += 1
        self.size += len(record)

    def close(self) -> None:
        with _disk_errors():
            self._writer.close()


@contextlib.contextmanager
def _disk_errors() -> Generator[None]:
    """Turn a RuntimeError of array_record, which it raises for a failure of the disk too, into an OSError."""
    try:
        yield
    except RuntimeError as error:
        raise OSError(str(error).split(";")[0]) from error


def require_array_record() -> None:
    """Raise `UserError` if the package is not installed (there is one for Linux only)."""
    if importlib.util.find_spec("array_record") is None:
        raise UserError("data.tfds_dir needs the package array_record: pip install array_record, or leave it out")


def _require_format(file_format: Any) -> None:
    if tfds.core.FileFormat.from_value(file_format) is not tfds.core.FileFormat.ARRAY_RECORD:
        raise ValueError(f"file_format={file_format!r}: these builders write {FORMAT}, which needs no TensorFlow")


def _sha256_of(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
