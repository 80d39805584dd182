"""Whether the kernels of a convolution are striped: how much they vary along x against y. NumPy alone."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class WeightBanding:
    """Spatial variances of kernels [h, w, in, out], in squared units of the weights, and what they come to.

    `along_x` [out] is the mean over rows and inputs of the variance within a row, `along_y` [out] that of the variance
    within a column. `index` [out] is (along_y - along_x) / (along_y + along_x): 1 for horizontal bands, -1 for vertical
    ones, 0 for none; NaN where neither varies. `whole` is the same of the sums over units.
    """

    along_x: FloatArray
    along_y: FloatArray
    index: FloatArray
    whole: float


def weight_banding(kernel: npt.ArrayLike) -> WeightBanding:
    """The banding of each unit of kernels [h, w, in, out], and of all together; in float64.

    NaN and Inf carry to the units that hold them. Raises `ValueError` for another number of axes and a side of 0.

    Source: Petrov, Voss, Schubert et al. 2021, "Weight Banding", Distill, doi:10.23915/distill.00024.009, which shows
    it; the number is ours.
    """
    weights = np.asarray(kernel, np.float64)
    if weights.ndim != 4 or 0 in weights.shape:
        raise ValueError(f"weight_banding: a kernel of shape {weights.shape}; expected [h, w, in, out], none of them 0")
    with np.errstate(invalid="ignore"):
        along_x = weights.var(axis=1).mean(axis=(0, 1))
        along_y = weights.var(axis=0).mean(axis=(0, 1))
        return WeightBanding(along_x, along_y, _index(along_x, along_y), float(_index(along_x.sum(), along_y.sum())))


def _index(along_x: npt.ArrayLike, along_y: npt.ArrayLike) -> FloatArray:
    x, y = np.asarray(along_x, np.float64), np.asarray(along_y, np.float64)
    total = x + y
    index: FloatArray = np.where(total == 0, np.nan, (y - x) / np.where(total == 0, 1, total))
    return index
