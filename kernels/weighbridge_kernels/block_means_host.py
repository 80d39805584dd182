"""Host form of `block_means`."""

from typing import Any

import numpy as np
import numpy.typing as npt


def pooled_similarity(units: npt.NDArray[Any], *, block_rows: int) -> npt.NDArray[np.float64]:
    """See `weighbridge_kernels.block_means.pooled_similarity`."""
    if block_rows < 1:
        raise ValueError(f"pooled_similarity: got block_rows={block_rows}; expected at least 1")
    starts = range(0, units.shape[0], block_rows)
    means = np.empty((len(starts), units.shape[1]))
    for i, start in enumerate(starts):
        means[i] = units[start : start + block_rows].mean(axis=0, dtype=np.float64)
    pooled: npt.NDArray[np.float64] = means @ means.T
    return pooled
