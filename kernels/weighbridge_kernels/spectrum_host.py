"""Host forms of `spectrum`: NumPy's LAPACK."""

from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


def gram(strip: npt.NDArray[Any]) -> FloatArray:
    """See `weighbridge_kernels.spectrum.gram`."""
    x = strip.astype(np.float64, copy=False)
    product: FloatArray = x.T @ x
    return product


def singular_values_of_gram(total: FloatArray) -> FloatArray:
    """See `weighbridge_kernels.spectrum.singular_values_of_gram`."""
    values: FloatArray = np.sqrt(np.maximum(np.linalg.eigvalsh(total), 0))[..., ::-1]
    return values


def singular_values_direct(x: npt.NDArray[Any]) -> FloatArray:
    """See `weighbridge_kernels.spectrum.singular_values_direct`."""
    values: FloatArray = np.linalg.svd(x.astype(np.float64), compute_uv=False)
    return values
