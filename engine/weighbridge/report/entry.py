"""One tensor of a report."""

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from weighbridge_kernels.distribution import Distribution

FloatArray = npt.NDArray[np.float64]


class Entry:
    """The row of one tensor: `entry["std"]` is a column, the properties are what follows from its lists."""

    def __init__(self, row: Mapping[str, Any]) -> None:
        self.row = dict(row)

    def __getitem__(self, column: str) -> Any:
        return self.row[column]

    @property
    def name(self) -> str:
        """The tensor's name."""
        return str(self.row["name"])

    @cached_property
    def distribution(self) -> Distribution:
        """The finite values and how often each occurs. Raises ValueError for a tensor that is not counted."""
        if self.row["histogram_bins"] is None:
            raise ValueError(f"{self.name}: {self.row['dtype']} with status {self.row['status']} has no histogram")
        return _distribution_of(self.row)

    @property
    def histogram(self) -> tuple[FloatArray, npt.NDArray[np.int64]]:
        """Values in ascending order and their counts; for float32 the middles of bins."""
        return self.distribution.values, self.distribution.counts

    def quantile(self, q: float | FloatArray) -> FloatArray:
        """See `Distribution.quantile`."""
        return self.distribution.quantile(q)

    def sparsity(self, threshold: float) -> float:
        """Share of finite entries with |w| <= threshold, in the units of the weights."""
        return self.distribution.sparsity(threshold)

    @property
    def row_l2(self) -> FloatArray | None:
        """L2 norm of each row, or output channel; None where it is not kept."""
        return self._channels("row_l2")

    @property
    def row_absmax(self) -> FloatArray | None:
        """Greatest magnitude of each row, or output channel; None where it is not kept."""
        return self._channels("row_absmax")

    @property
    def row_mean(self) -> FloatArray | None:
        """Mean of the finite entries of each row, or output channel; None where it is not kept."""
        return self._channels("row_mean")

    @property
    def col_l2(self) -> FloatArray | None:
        """L2 norm of each column, or input channel; None where it is not kept."""
        return self._channels("col_l2")

    @property
    def col_absmax(self) -> FloatArray | None:
        """Greatest magnitude of each column, or input channel; None where it is not kept."""
        return self._channels("col_absmax")

    @property
    def col_mean(self) -> FloatArray | None:
        """Mean of the finite entries of each column, or input channel; None where it is not kept."""
        return self._channels("col_mean")

    def _channels(self, column: str) -> FloatArray | None:
        stored = self.row[column]
        return None if stored is None else np.asarray(stored, np.float64)

    def __repr__(self) -> str:
        return f"Entry({self.name!r}, {list(map(int, self.row['shape']))}, {self.row['dtype']}, {self.row['status']})"

    def _repr_html_(self) -> str:
        from weighbridge.report.html import entry_html

        return entry_html(self)


def _distribution_of(row: Mapping[str, Any]) -> Distribution:
    """The distribution that a row's histogram columns hold. Raises KeyError or TypeError where it holds none."""
    bins = np.asarray(row["histogram_bins"], np.int64)
    counts = np.asarray(row["histogram_counts"], np.int64)
    if row["dtype"] not in ("F32", "F64"):
        return Distribution.of_codes(bins, counts, row["dtype"])
    exact = row["effective_dtype"] == "BF16"
    return Distribution.of_high_halves(bins, counts, int(row["zeros"]), (row["min"], row["max"]), exact=exact)
