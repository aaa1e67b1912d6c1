"""A data set in Parquet files, as Hugging Face has them: encoded images and labels in columns.

The files' names say which part they are, train-00000-of-00002.parquet or test/0000.parquet; the
schema's metadata has the names of the classes. Needs pyarrow, the extra `parquet`.
"""

import json
import re
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from bam_search.errors import UserError, first_line
from bam_search.tasks.classification.array_source import named
from bam_search.tasks.classification.arrays import Classes, labels_of
from bam_search.tasks.classification.picture_source import (
    SPLIT,
    Labelled,
    Part,
    picture_source,
    split,
)
from bam_search.tasks.pictures.encoded import File, Pictures, known_pictures
from bam_search.tasks.pictures.parts import TEST, TRAIN
from bam_search.tasks.reading import Progress, Reading
from bam_search.tasks.task import Source

IMAGES = ("image", "img", "images")
LABELS = ("label", "fine_label", "labels", "class", "target")
"""What the columns are called, the one to take first."""
KEPT = 8
"""Row groups whose images are in memory at a time."""


def parquet_files(path: Path) -> list[Path]:
    """The Parquet files at a path: itself, or those in a folder and in its folders."""
    if path.is_file():
        return [path] if path.suffix == ".parquet" else []
    return sorted([*path.glob("*.parquet"), *path.glob("*/*.parquet")])


def parquet_source(path: Path, files: Sequence[Path], reading: Reading) -> Source:
    """The source of a data set in Parquet files. Raises UserError."""
    root = path if path.is_dir() else path.parent
    parts: dict[str, list[Path]] = {}
    for file in files:
        parts.setdefault(_part_of(file.relative_to(root)), []).append(file)
    train, test = _taken(path, parts)
    taken = (parts[train], parts[test] if test else ())
    tables = [[Table.of(file, root) for file in files] for files in taken]
    pictures = _pictures(root, [*tables[0], *tables[1]], reading.progress)
    data = _labelled(path, tables, pictures)
    if test:
        data = replace(data, parts=f"files of {train} and of {test}")
    unused = sorted(set(parts) - {train, test})
    notes = (f"not used: files of {', '.join(map(repr, unused))}",) if unused else ()
    return picture_source(replace(data, notes=notes), reading)


def _taken(path: Path, parts: Mapping[str, object]) -> tuple[str, str]:
    """The names of the training and the test part; "" is that of files without one.

    Raises UserError if there is no training part.
    """
    test = next((name for name in TEST if name in parts), "")
    train = next((name for name in (*TRAIN, "") if name in parts), None)
    if train is None:
        raise UserError(
            f"{path} has no training part, only {', '.join(parts)}",
            "the names of its files begin with train or test",
        )
    return train, test


def _pictures(root: Path, tables: Sequence["Table"], progress: Progress) -> Pictures:
    """The pictures in the rows of the tables, one table after the other."""
    rows = [(table, row) for table in tables for row in range(len(table.labels))]
    groups = RowGroups()
    files = [table.file(row) for table, row in rows]
    return known_pictures(root, files, lambda number: groups.image(*rows[number]), progress)


def _labelled(path: Path, tables: Sequence[Sequence["Table"]], pictures: Pictures) -> Labelled:
    """The pictures with their classes; those of training tables are split if there are no others.

    Raises UserError for labels that are none.
    """
    y_train, y_test = map(_joined, tables)
    where = str(path)
    classes = Classes.of(where, labels_of(where, y_train, len(y_train)))
    names = named(classes.names, tables[0][0].names)
    train = Part(np.arange(len(y_train)), classes.numbers(where, y_train))
    if tables[1]:
        index = len(y_train) + np.arange(len(y_test))
        test = Part(index, classes.numbers(where, labels_of(where, y_test, len(y_test))))
    else:
        train, test = split(train, pictures.facts, names)
    name = path.stem if path.is_file() else path.absolute().name
    return Labelled(name, where, SPLIT, pictures, train, test, names, ())


def _part_of(path: Path) -> str:
    """The part whose name is in a path, the folder's before the file's; "" for none."""
    for text in path.parts:
        words = re.split(r"[^a-z]+", text.lower().removesuffix(".parquet"))
        found = next((word for word in words if word in (*TRAIN, *TEST)), None)
        if found:
            return found
    return ""


def _joined(tables: Sequence["Table"]) -> np.ndarray:
    return np.concatenate([table.labels for table in tables]) if tables else np.zeros(0, int)


@dataclass(frozen=True, eq=False)
class Table:
    """A Parquet file, without its images: the label of each row, and the names of the classes.

    `ends` are the numbers of rows up to the end of each row group.
    """

    path: Path
    name: str
    length: int
    changed: int
    column: str
    labels: np.ndarray
    names: tuple[str, ...]
    ends: tuple[int, ...]

    @classmethod
    def of(cls, path: Path, root: Path) -> "Table":
        """The table in a file. Raises UserError if it has no images and labels."""
        parquet = _pyarrow_parquet()
        try:
            with parquet.ParquetFile(path) as file:
                columns = file.schema_arrow.names
                image, label = _column(path, columns, IMAGES), _column(path, columns, LABELS)
                labels = file.read(columns=[label]).column(label).to_numpy()
                metadata = file.schema_arrow.metadata or {}
                counts = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
        except UserError:
            raise
        except Exception as error:  # Arrow raises its own kinds
            raise UserError(f"{path} cannot be read: {first_line(error)}", _AGAIN) from None
        stat = path.stat()
        return cls(
            path,
            str(path.relative_to(root)),
            stat.st_size,
            stat.st_mtime_ns,
            image,
            labels.astype(str) if labels.dtype == object else labels,
            _names(metadata, label),
            tuple(np.cumsum(counts).tolist()),
        )

    def file(self, row: int) -> File:
        """A row as a file of its own, which changes with the table."""
        return File(f"{self.name}, row {row}", self.length, self.changed)


_AGAIN = "copy or download it again"


def _pyarrow_parquet() -> Any:
    try:
        from pyarrow import parquet
    except ImportError:
        raise UserError(
            "Parquet files need pyarrow, which is not installed",
            "pip install 'bam_search[parquet]'",
        ) from None
    return parquet


def _column(path: Path, columns: Sequence[str], known: Sequence[str]) -> str:
    found = next((name for name in known if name in columns), None)
    if found is None:
        raise UserError(
            f"{path} has no column {known[0]}; it has {', '.join(columns)}",
            f"its columns are {' or '.join(IMAGES[:2])}, and {' or '.join(LABELS[:2])}",
        )
    return found


def _names(metadata: Mapping[bytes, bytes], label: str) -> tuple[str, ...]:
    """The names of the classes in the metadata that Hugging Face writes; none without these."""
    try:
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
        return tuple(map(str, features[label]["names"]))
    except (KeyError, TypeError, ValueError):
        return ()


@dataclass(frozen=True, eq=False)
class RowGroups:
    """The images of the row groups that were asked for last; threads may share them."""

    kept: OrderedDict[tuple[str, int], list[Any]] = field(default_factory=OrderedDict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def image(self, table: Table, row: int) -> bytes:
        """The encoded image in a row. Raises OSError if there is none."""
        group = int(np.searchsorted(table.ends, row, side="right"))
        first = table.ends[group - 1] if group else 0
        with self.lock:
            key = (table.name, group)
            if key not in self.kept:
                self.kept[key] = _images(table, group)
                if len(self.kept) > KEPT:
                    self.kept.popitem(last=False)
            self.kept.move_to_end(key)
            content = self.kept[key][row - first]
        if isinstance(content, Mapping):
            content = content.get("bytes")
        if not isinstance(content, bytes):
            raise OSError("the row has no encoded image")
        return content


def _images(table: Table, group: int) -> list[Any]:
    with _pyarrow_parquet().ParquetFile(table.path) as file:
        images: list[Any] = file.read_row_group(group, [table.column]).column(0).to_pylist()
    return images
