"""Tables of rows as Parquet parts, each written whole and renamed into place."""

import os
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from weighbridge.errors import ReportError
from weighbridge.report.columns import Column

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

PART_ROWS = 256
PART_SECONDS = 30.0
PART_ELEMENTS = 1 << 22
"""Elements of list columns that may wait in memory for their part."""
_ROW_GROUP = 64

Row = Mapping[str, Any]


class TableWriter:
    """Collects rows from any thread; writes a part of 256 of them, or of fewer large ones, or after 30 seconds."""

    def __init__(self, folder: Path, columns: Sequence[Column]) -> None:
        self._folder = folder
        self._columns = columns
        self._rows: list[Row] = []
        self._elements = 0
        self._lists = [column.name for column in columns if column.type.startswith("list<")]
        self._lock = threading.Lock()
        self._since = time.monotonic()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for leftover in folder.glob(".part-*"):
                leftover.unlink()
        except OSError as error:
            raise ReportError(f"{folder}: cannot be made: {error.strerror}; choose another --report") from error
        self._next = 1 + max((_number(part) for part in folder.glob("part-*.parquet")), default=-1)

    def add(self, row: Row) -> None:
        """Takes a row, of which missing columns are null; may write a part. Raises `ReportError`."""
        self.add_all([row])

    def add_all(self, rows: Sequence[Row]) -> None:
        """Takes rows that belong together: they lie in one part, so that a killed run leaves all of them or none."""
        with self._lock:
            self._rows += rows
            self._elements += sum(len(row[name]) for row in rows for name in self._lists if row.get(name) is not None)
            full = len(self._rows) >= PART_ROWS or self._elements > PART_ELEMENTS or self._late()
            taken, number = self._take() if full else ([], 0)
        if taken:
            self._write(taken, number)

    def flush(self) -> None:
        """Writes what has been collected."""
        with self._lock:
            rows, number = self._take()
        if rows:
            self._write(rows, number)

    def _late(self) -> bool:
        return time.monotonic() - self._since > PART_SECONDS

    def _take(self) -> tuple[list[Row], int]:
        rows, self._rows, self._elements = self._rows, [], 0
        number, self._next = self._next, self._next + bool(rows)
        self._since = time.monotonic()
        return rows, number

    def _write(self, rows: list[Row], number: int) -> None:
        import pyarrow as pa

        table = pa.table({column.name: _array(column, rows) for column in self._columns})
        _replace(self._folder / f"part-{number:05d}.parquet", table)


def clear(folder: Path) -> None:
    """Takes all parts of a table away."""
    for part, _ in parts_of(folder):
        (folder / part).unlink()


def drop_rows(folder: Path, names: Collection[str], part: str | None = None) -> None:
    """Takes the rows of some tensors out of the parts of a table, or of one part of theirs alone."""
    import pyarrow as pa
    import pyarrow.compute as pc

    gone = pc.field("name").isin(pa.array(names, pa.string()))
    _keep(folder, ~(gone if part is None else gone & (pc.field("part") == part)))


def drop_steps(folder: Path, first: int) -> None:
    """Takes the rows of step `first` and of later ones out of the parts of a table; those without a step stay."""
    import pyarrow.compute as pc

    _keep(folder, pc.field("step").is_null() | (pc.field("step") < first))


def _keep(folder: Path, kept: Any) -> None:
    """Leaves in the parts of a table the rows for which an expression holds. Raises `ReportError`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    for file in sorted(folder.glob("part-*.parquet")):
        try:
            table = pq.ParquetFile(file).read()
        except (OSError, pa.ArrowException) as error:
            raise ReportError(f"{file}: cannot be read: {error}; remove it or choose another report") from error
        left = table.filter(kept)
        if left.num_rows == 0:
            file.unlink()
        elif left.num_rows < table.num_rows:
            _replace(file, left)


def _replace(part: Path, table: "pa.Table") -> None:
    """Writes a part beside its place and renames it there, so that a reader never sees half of one."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    hidden = part.with_name(f".{part.stem}.{os.getpid()}")
    types = {field.name: field.type for field in table.schema}
    lists = {name: of.value_type for name, of in types.items() if pa.types.is_list(of)}
    encoding = {
        f"{name}.list.element": "BYTE_STREAM_SPLIT" if pa.types.is_floating(of) else "DELTA_BINARY_PACKED"
        for name, of in lists.items()
        if not pa.types.is_string(of)
    }
    texts = [name for name, of in types.items() if pa.types.is_string(of)]
    try:
        pq.write_table(
            table,
            hidden,
            row_group_size=_ROW_GROUP,
            compression="zstd",
            use_dictionary=texts + [f"{name}.list.element" for name, of in lists.items() if pa.types.is_string(of)],
            column_encoding=encoding,
        )
        hidden.replace(part)
    except OSError as error:
        hidden.unlink(missing_ok=True)
        raise ReportError(
            f"{part.parent}: cannot write a part: {error.strerror or error}; finished parts are kept, "
            "free space and use --resume"
        ) from error


def parts_of(folder: Path) -> list[tuple[str, int]]:
    """Names and modification times of the finished parts of a table."""
    return sorted((part.name, part.stat().st_mtime_ns) for part in folder.glob("part-*.parquet"))


def read_table(folder: Path, columns: Sequence[str] | None = None, names: Sequence[str] | None = None) -> "pa.Table":
    """All finished parts of a table, some columns and rows (by `name`) of it where given."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    wanted = None if names is None else pc.field("name").isin(pa.array(names, pa.string()))
    try:
        read = [
            pq.read_table(part, columns=None if columns is None else list(columns), filters=wanted, partitioning=None)
            for part in sorted(folder.glob("part-*.parquet"))
        ]
    except (OSError, pa.ArrowException) as error:
        raise ReportError(f"{folder}: a part cannot be read: {error}; scan again with --overwrite") from error
    return pa.concat_tables(read) if read else None


def frame(table: "pa.Table") -> "pd.DataFrame":
    """As pandas: whole numbers with gaps stay whole (Int64), lists are NumPy arrays."""
    import pandas as pd
    import pyarrow as pa

    integers = {pa.int64(): pd.Int64Dtype(), pa.int32(): pd.Int32Dtype()}
    result: pd.DataFrame = table.to_pandas(types_mapper=integers.get)
    return result


def records(table: "pa.Table") -> Iterator[dict[str, Any]]:
    """Row by row: plain values, None for null, NumPy arrays for lists."""

    columns = {name: table.column(name) for name in table.column_names}
    for i in range(table.num_rows):
        yield {name: _plain(column[i]) for name, column in columns.items()}


def _plain(cell: "pa.Scalar") -> Any:
    """A cell as Python has it, a list as a NumPy array."""
    import pyarrow as pa

    if pa.types.is_list(cell.type) and cell.is_valid:
        return cell.values.to_numpy(zero_copy_only=False)
    return cell.as_py()


def _array(column: Column, rows: Sequence[Row]) -> "pa.Array":
    import pyarrow as pa

    values = [row.get(column.name) for row in rows]
    if not column.type.startswith("list<"):
        return pa.array(values, pa.type_for_alias(column.type))
    element = pa.type_for_alias(column.type[5:-1])
    lengths = [0 if value is None else len(value) for value in values]
    present = [np.asarray(value) for value in values if value is not None and len(value)]
    flat = np.concatenate(present) if present else np.zeros(0)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    mask = pa.array([value is None for value in values])
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(flat).cast(element), mask=mask)


def _number(part: Path) -> int:
    digits = part.stem.removeprefix("part-")
    return int(digits) if digits.isdigit() else -1
