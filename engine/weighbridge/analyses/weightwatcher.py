"""WeightWatcher's figures by its own definitions, under its own names, for those who compare with what they have.

Its eigenvalues are squared singular values; a convolution is one slice for each place of the kernel, pooled. Source:
Martin, Peng and Mahoney 2021, doi:10.1038/s41467-021-24025-8, and the figures of version 0.7.7, which the tests hold
this to; docs/weightwatcher.md says where those differ from what is written of them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from weighbridge.analyses.weightwatcher_bulk import bulk
from weighbridge.checkpoints.protocol import Tensor
from weighbridge.matrix import MatrixView
from weighbridge_kernels.power_law import power_law
from weighbridge_kernels.spectral_metrics import gram_floor
from weighbridge_kernels.spectrum_host import gram, singular_values_direct, singular_values_of_gram

CUT_OFF = 1e-5
"""Eigenvalues up to this are left out of the fit."""
CONV_FACTOR = 0.5
"""What the eigenvalues of a convolution's slices are multiplied by."""

_CLEAR = 100
"""Times the noise of a Gram matrix that the least singular value must be, so that its square is right to 1e-4."""

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Options:
    """Whether to fit the bulk of the entries in random order as well, and what seeds that order."""

    key: int
    baseline: Literal["none", "permuted"]


def rows(tensor: Tensor, view: MatrixView, options: Options) -> Iterator[dict[str, Any]]:
    """The row of a tensor: of a matrix, of a convolution's slices pooled, of a stack of matrices one each."""
    stack = slices(tensor, view)
    if not np.isfinite(stack).all():
        yield {"status": "failed", "reason": f"{tensor.name}: holds NaN or Inf, which leave no spectrum"}
        return
    if view.layout == "matrix" and len(stack) > 1:
        for i, matrix in enumerate(stack):
            yield {"part": str(i), "status": "done"} | figures(matrix[None], 1.0, options)
        return
    yield {"status": "done"} | figures(stack, 1.0 if view.layout == "matrix" else CONV_FACTOR, options)


def slices(tensor: Tensor, view: MatrixView) -> FloatArray:
    """The tensor as a stack of matrices: a convolution's by the places of its kernel, output by input channels."""
    x = tensor.entries(0, tensor.count).astype(np.float64)
    if view.layout == "matrix":
        return x.reshape(-1, *tensor.shape[-2:])
    places = view.places(x)
    return places.reshape(-1, *places.shape[-2:])


def figures(stack: FloatArray, factor: float, options: Options) -> dict[str, Any]:
    """WeightWatcher's columns of a stack of matrices whose eigenvalues are pooled and multiplied by a factor."""
    eigenvalues = _eigenvalues(stack, factor)
    values = np.sqrt(eigenvalues)
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
    fit = bulk(eigenvalues, (long, short))
    found |= {"mp_softrank": fit.soft_rank, "num_spikes": fit.spikes, "sigma_mp": fit.sigma}
    if options.baseline == "permuted":
        rng = np.random.default_rng(options.key)
        shuffled = rng.permuted(stack.reshape(len(stack), -1), axis=1).reshape(stack.shape)
        found["rand_num_spikes"] = bulk(_eigenvalues(shuffled, factor), (long, short)).spikes
    return {name: None if isinstance(value, float) and np.isnan(value) else value for name, value in found.items()}


def _eigenvalues(stack: FloatArray, factor: float) -> FloatArray:
    """Of all matrices of a stack together, least first."""
    found: FloatArray = np.square(np.sort(_singular_values(stack).reshape(-1))) * factor
    return found


def _singular_values(stack: FloatArray) -> FloatArray:
    """By Gram matrices where the least values are well above what is noise there; directly where one is not."""
    long_last = stack if stack.shape[-2] >= stack.shape[-1] else stack.swapaxes(-1, -2)
    values = singular_values_of_gram(gram(long_last))
    noise = gram_floor(1.0, stack.shape[-1]) * values[..., 0]
    return values if (values[..., -1] > _CLEAR * noise).all() else singular_values_direct(stack)


def _entropy(eigenvalues: FloatArray, rank: int) -> float:
    """Of the shares of the eigenvalues, over the logarithm of the rank."""
    p = eigenvalues[eigenvalues > 0] / max(float(eigenvalues.sum()), 1e-300)
    return float(-(p @ np.log(p)) / np.log(rank)) if rank > 1 else np.nan


def _log10(value: float) -> float:
    return float(np.log10(value)) if value > 0 else np.nan
