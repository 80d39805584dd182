"""Host forms of `spectrum`: NumPy's LAPACK."""

from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


def gram(strip: npt.NDArray[Any]) -> FloatArray:
    """See `weighbridge_kernels.spectrum.gram`."""
    x = strip.astype(np.float64, copy=False)
    product: FloatArray = x.swapaxes(-1, -2) @ x
    return product


def gram_product(strip: npt.NDArray[Any], block: FloatArray) -> FloatArray:
    """`x.T @ (x @ block)`; see `weighbridge_kernels.spectrum.add_gram_product`."""
    x = strip.astype(np.float64, copy=False)
    product: FloatArray = x.T @ (x @ block)
    return product


def singular_values_of_gram(total: FloatArray) -> FloatArray:
    """See `weighbridge_kernels.spectrum.singular_values_of_gram`."""
    finite = _finite(total)
    values = np.sqrt(np.maximum(np.linalg.eigvalsh(np.where(finite, total, 0)), 0))
    return np.where(finite[..., 0], values, np.nan)[..., ::-1]


def singular_values_direct(x: npt.NDArray[Any]) -> FloatArray:
    """See `weighbridge_kernels.spectrum.singular_values_direct`."""
    finite = _finite(x)
    values = np.linalg.svd(np.where(finite, x, 0).astype(np.float64), compute_uv=False)
    return np.where(finite[..., 0], values, np.nan)


def _finite(stack: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Of each matrix of a stack, whether all its entries are finite."""
    finite: npt.NDArray[np.bool_] = np.isfinite(stack).all(axis=(-2, -1), keepdims=True)
    return finite
