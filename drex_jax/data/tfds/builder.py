"""What the builders share: rows as the plain readers give them, in file order, in array_record files.

A prepared data set is named by what its rows depend on: the bytes of the file and the options of reading. So a changed
file, or another scale, is another data set; nothing is reused that should not be.
"""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import hashlib
import importlib.util
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import orjson
import tensorflow_datasets as tfds
from tensorflow_datasets.core.splits import SplitDict

from drex_jax.common.errors import UserError
from drex_jax.data.readers import find, json_decode
from drex_jax.data.readers.chunk import Chunk
from drex_jax.data.readers.quarantine import Quarantine
from drex_jax.data.readers.table import KNOWN
from drex_jax.data.tfds import records

FORMAT = "array_record"  # what TFDS reads and writes without TensorFlow
SPLIT = "train"  # there is no official one; TFDS calls the whole of such a data set so
QUARANTINE = "quarantine.jsonl"
_HASH_LETTERS, _NAME_LETTERS = 16, 80
_Builder: Any = tfds.core.GeneratorBasedBuilder  # Any: TFDS decorates its methods into what no type checker knows


class NoRowsError(UserError):
    """There is nothing to prepare: no row of the file is good."""


@dataclasses.dataclass(eq=False)
class ReviewsConfig(tfds.core.BuilderConfig):
    """Which file, and how it is read.

    Attributes:
      files: names that the file may have in `manual_dir`; empty: it is the one that the format's reader finds there.
      sha256: of the file's bytes; empty: of whichever is found.
      rating_range: the scale; None where there are no ratings to read.
      columns: of a table: our name -> its column.
      time_format: of a table: see `drex_jax.data.readers.fields.time_parser`.
    """

    files: tuple[str, ...] = ()
    sha256: str = ""
    rating_range: tuple[float, float] | None = (1.0, 5.0)
    columns: Mapping[str, str] = dataclasses.field(default_factory=dict)
    time_format: str = ""

    def reading(self) -> dict[str, Any]:
        """What the rows depend on beside the file, as values of JSON."""
        scale = None if self.rating_range is None else list(map(float, self.rating_range))
        return {
            "rating_range": scale,
            "columns": dict(sorted(self.columns.items())),
            "time_format": self.time_format,
            "reader": json_decode.VERSION,
        }

    @property
    def vectors(self) -> tuple[str, ...]:
        """The names of the columns with vectors."""
        return tuple(sorted(set(self.columns) - set(KNOWN)))


class Reviews(_Builder):
    """A builder of reviews from a file that the user has put into `manual_dir`; it needs no TensorFlow.

    A config of `BUILDER_CONFIGS` names a file; the one a data set is prepared under names its content too
    (`config_for`). `download_and_prepare` goes from the first to the second as soon as it knows `manual_dir`.

    Args:
      file_format: array_record, the only one.
      **kwargs: of TFDS's builders: `config`, `data_dir`, `version`.
    """

    VERSION = tfds.core.Version("1.0.0")  # to be raised when the same file and options give other rows
    RELEASE_NOTES: ClassVar[dict[str, str]] = {"1.0.0": "The first one."}
    BUILDER_CONFIGS: ClassVar[list[ReviewsConfig]] = []
    builder_config: ReviewsConfig

    def __init__(self, *, file_format: Any = FORMAT, **kwargs: Any):
        _require_format(file_format)
        self._info_made: Any = None
        super().__init__(file_format=FORMAT, **kwargs)

    @classmethod
    @abc.abstractmethod
    def find(cls, path: str | Path | None) -> Path:
        """The file at a path or in a folder. Raises `files.MissingError` or `UserError`."""

    @abc.abstractmethod
    def chunks(self, path: Path, quarantine: Quarantine) -> Iterator[Chunk]:
        """The rows of the file as the plain reader gives them."""

    @abc.abstractmethod
    def about(self) -> dict[str, str]:
        """`description`, `homepage` and `citation` of the data set."""

    @classmethod
    def config_for(cls, path: str | Path, **options: Any) -> ReviewsConfig:
        """The config that a file is prepared under.

        Args:
          path: of the file.
          **options: `rating_range`, `columns` and `time_format`, where they are not those of the builder.

        Raises:
          UserError: the file cannot be read.
        """
        path = Path(path)
        found = next((config for config in cls.BUILDER_CONFIGS if path.name in config.files), cls.BUILDER_CONFIGS[0])
        stem = found.name if found.files else re.sub(r"[^A-Za-z0-9_.-]", "_", Path(path.name.removesuffix(".gz")).stem)
        config = dataclasses.replace(found, files=(path.name,), sha256=_sha256_of(path), **options)
        how = hashlib.sha256(orjson.dumps(config.reading())).hexdigest()
        config.name = f"{stem[:_NAME_LETTERS]}-{config.sha256[:_HASH_LETTERS]}-{how[: _HASH_LETTERS // 2]}"
        return config

    def source(self, manual_dir: str | Path) -> Path:
        """The config's file in a folder. Raises `files.MissingError` or `UserError`."""
        names = self.builder_config.files
        if not names:
            return self.find(manual_dir)
        found = [path for name in names if (path := Path(manual_dir, name)).is_file()]
        if not found:
            raise find.MissingError(f"{manual_dir}: no file here is named {' or '.join(names)}")
        return self.find(found[0])

    @property
    def info(self) -> Any:
        """As of every builder. (TFDS keeps it for good; ours is made anew when the config becomes that of a file.)"""
        if self._info_made is None:
            self._info_made = self._info()
        return self._info_made

    def _info(self) -> Any:
        text, config = tfds.features.Text, self.builder_config
        about: dict[str, Any] = {**self.about()}
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
        """Prepares the data set under `data_dir`, if it is not there; nothing is downloaded.

        The file is looked for in `download_config.manual_dir`, which is `data_dir/downloads/manual` by default.

        Raises:
          UserError: no file, or a wrong one, or not that of the config.
          NoRowsError: none of its rows is good.
        """
        _require_format(file_format)
        config, root = self.builder_config, self.data_dir_root
        if not config.sha256:
            manual_dir = download_config.manual_dir if download_config else None
            path = self.source(manual_dir or Path(download_dir or root / "downloads", "manual"))
            found = self.config_for(path, **_options(config))
            attributes: Any = vars(self)
            attributes.clear()
            self.__init__(data_dir=root, config=found)
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
        """Writes the records as they come.

        TFDS itself would sort them first, in memory up to a gigabyte and beyond that with TensorFlow.
        """
        most = download_config.max_examples_per_split
        if most == 0:
            return
        infos = []
        for name, examples in self._split_generators(dl_manager).items():
            template = tfds.core.ShardedFileTemplate(
                split=name, dataset_name=self.name, data_dir=self.data_path, filetype_suffix=FORMAT
            )
            kept = itertools.islice(examples, most)
            lengths, size = _write((records.encode(example) for _, example in kept), template, download_config)
            infos.append(
                tfds.core.SplitInfo(name=name, shard_lengths=lengths, num_bytes=size, filename_template=template)
            )
        self.info.set_splits(SplitDict(infos))
        written = sorted(Path(self.data_dir).glob(f"*.{FORMAT}-*"))
        self.info.metadata["bytes"] = {file.name: file.stat().st_size for file in written}


def _write(encoded: Iterable[bytes], template: Any, download_config: Any) -> tuple[list[int], int]:
    """Writes files of at most `max_shard_size` bytes, or one record: (records of each, bytes of all records)."""
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
    """One file of records, of which it knows how many and of how many bytes. Raises OSError as files do."""

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
def _disk_errors() -> Iterator[None]:
    """What fails in array_record is a RuntimeError, whatever it is; in writing it is the disk."""
    try:
        yield
    except RuntimeError as error:
        raise OSError(str(error).split(";")[0]) from error


def require_array_record() -> None:
    """Raises `UserError` where the package is not installed, as on other systems than Linux."""
    if importlib.util.find_spec("array_record") is None:
        raise UserError("data.tfds_dir needs the package array_record: pip install array_record, or leave it out")


def _options(config: ReviewsConfig) -> dict[str, Any]:
    return {name: getattr(config, name) for name in ("rating_range", "columns", "time_format")}


def _require_format(file_format: Any) -> None:
    if tfds.core.FileFormat.from_value(file_format) is not tfds.core.FileFormat.ARRAY_RECORD:
        raise ValueError(f"file_format={file_format!r}: these builders write {FORMAT}, which needs no TensorFlow")


def _sha256_of(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
