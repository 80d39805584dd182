"""WeightWatcher's figures by its own definitions, under its own names, for those who compare with what they have.

Its eigenvalues are squared singular values; a convolution is one slice for each place of the kernel, pooled. Source:
Martin, Peng and Mahoney 2021, doi:10.1038/s41467-021-24025-8, and the figures of version 0.7.7, which the tests hold
this to; docs/weightwatcher.md says where those differ from what is written of them.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from weighbridge.checkpoints.protocol import Tensor
from weighbridge.matrix import MatrixView
from weighbridge_kernels.power_law import power_law
from weighbridge_kernels.spectrum_host import singular_values_direct

CUT_OFF = 1e-5
"""Eigenvalues up to this are left out of the fit."""
CONV_FACTOR = 0.5
"""What the eigenvalues of a convolution's slices are multiplied by."""

FloatArray = npt.NDArray[np.float64]


def rows(tensor: Tensor, view: MatrixView, options: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The row of a tensor: of a matrix, of a convolution's slices pooled, of a stack of matrices one each."""
    stack = slices(tensor, view)
    if not np.isfinite(stack).all():
        yield {"status": "failed", "reason": f"{tensor.name}: holds NaN or Inf, which leave no spectrum"}
        return
    if view.layout == "matrix" and len(stack) > 1:
        for i, matrix in enumerate(stack):
            yield {"part": str(i), "status": "done"} | figures(matrix[None], 1.0)
        return
    yield {"status": "done"} | figures(stack, 1.0 if view.layout == "matrix" else CONV_FACTOR)


def slices(tensor: Tensor, view: MatrixView) -> FloatArray:
    """The tensor as a stack of matrices: a convolution's by the places of its kernel, output by input channels."""
    x = tensor.entries(0, tensor.count).astype(np.float64)
    if view.layout == "matrix":
        return x.reshape(-1, *tensor.shape[-2:])
    outputs, inputs, space = view.filters
    places = int(np.prod(space))
    if view.layout == "out_in_space":
        return x.reshape(outputs, inputs, places).transpose(2, 0, 1)
    return x.reshape(places, inputs, outputs)


def figures(stack: FloatArray, factor: float) -> dict[str, Any]:
    """WeightWatcher's columns of a stack of matrices whose eigenvalues are pooled and multiplied by a factor."""
    values = np.sort(singular_values_direct(stack).reshape(-1)) * np.sqrt(factor)
    eigenvalues = np.square(values)
    short, long = sorted(stack.shape[-2:])
    greatest, total = float(eigenvalues[-1]), float(eigenvalues.sum())
    rank = int((values > values[-1] * long * np.finfo(np.float64).eps).sum())
    kept = eigenvalues[eigenvalues > CUT_OFF]
    law = power_law(kept)
    found = {
        "rows": stack.shape[-2],
        "cols": stack.shape[-1],
        "M": short,
        "N": long,
        "num_evals": eigenvalues.size,
        "alpha": law.alpha,
        "D": law.distance,
        "sigma": law.sigma,
        "xmin": law.xmin,
        "xmax": law.xmax,
        "num_pl_spikes": law.tail,
        "norm": total,
        "log_norm": _log10(total),
        "spectral_norm": greatest,
        "log_spectral_norm": _log10(greatest),
        "stable_rank": total / greatest if greatest else np.nan,
        "alpha_weighted": law.alpha * _log10(greatest),
        "log_alpha_norm": _log10(float((kept**law.alpha).sum())),
        "entropy": _entropy(eigenvalues, rank),
        "matrix_rank": rank,
        "rank_loss": eigenvalues.size - rank,
    }
    return {name: None if isinstance(value, float) and np.isnan(value) else value for name, value in found.items()}


def _entropy(eigenvalues: FloatArray, rank: int) -> float:
    """Of the shares of the eigenvalues, over the logarithm of the rank."""
    p = eigenvalues[eigenvalues > 0] / max(float(eigenvalues.sum()), 1e-300)
    return float(-(p @ np.log(p)) / np.log(rank)) if rank > 1 else np.nan


def _log10(value: float) -> float:
    return float(np.log10(value)) if value > 0 else np.nan
