"""Sums over rows of unequal length without scatter: rows cut into segments of one width, whose sums are summed again.

A scatter adds in no fixed order on a GPU; gathers and sums along an axis do. Padding costs less than a segment a row,
however long the longest row (a hub) is. NumPy alone.
"""

import numpy as np
import numpy.typing as npt

WIDTH = 32

Table = npt.NDArray[np.int32]


def segment_tables(indptr: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int32], tuple[Table, ...]]:
    """Of rows [indptr[i], indptr[i + 1]): the row of each segment, and tables [segments, WIDTH], one a level.

    The first table holds positions among the entries, the next positions among the segments of the one before, until
    every row is one segment: log(longest row) / log(WIDTH) levels. A position past the last stands for nothing.
    """
    rows, table, indptr = _cut(indptr)
    owners, tables = rows, [table]
    while (np.diff(indptr) > 1).any():
        _, table, indptr = _cut(indptr)
        tables.append(table)
    return owners, tuple(tables)


def _cut(indptr: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int32], Table, npt.NDArray[np.int64]]:
    segments = np.maximum(-(-np.diff(indptr) // WIDTH), 1)
    rows = np.repeat(np.arange(segments.size), segments)
    upper = np.concatenate([[0], np.cumsum(segments)])
    first = indptr[rows] + (np.arange(rows.size) - upper[rows]) * WIDTH
    table = first[:, None] + np.arange(WIDTH)
    table = np.where(table < indptr[rows + 1][:, None], table, indptr[-1])
    return rows.astype(np.int32), table.astype(np.int32), upper
