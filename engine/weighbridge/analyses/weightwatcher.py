"""WeightWatcher's figures by its own definitions, under its own names, for those who compare with what they have.

Its eigenvalues are squared singular values; a convolution is one slice for each place of the kernel, pooled. Source:
Martin, Peng and Mahoney 2021, doi:10.1038/s41467-021-24025-8, and the figures of version 0.7.7, which the tests hold
this to; docs/weightwatcher.md says where those differ from what is written of them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from weighbridge.analyses.matrices import Part, Reader, parts_of
from weighbridge.analyses.spectrum_row import NOT_FINITE, Baseline, Row, defined, permuted
from weighbridge.analyses.weightwatcher_bulk import bulk
from weighbridge.checkpoints.protocol import Tensor
from weighbridge.matrix import MatrixView
from weighbridge_kernels.power_law import NO_LAW, PowerLaw, power_law
from weighbridge_kernels.spectral_metrics import gram_floor
from weighbridge_kernels.variants import Variant

CUT_OFF = 1e-5
"""Eigenvalues up to this are left out of the fit."""
CONV_FACTOR = 0.5
"""What the eigenvalues of a convolution's slices are multiplied by."""
_FEW, _LEAST_TAIL = 20, 8
"""Eigenvalues below which its alpha is corrected for the size of the sample, and then the least that a tail has."""
_CLEAR = 100
"""Times the noise of a Gram matrix that the least singular value must be, so that its square is right to 1e-4."""

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Options:
    """Whether to fit the bulk of the entries in random order as well, and what seeds that order."""

    key: int
    baseline: Baseline


def rows(tensor: Tensor, view: MatrixView, kernels: Variant, options: Options) -> Iterator[Row]:
    """The row of a matrix, of a convolution's slices pooled, of each matrix of a stack."""
    reader = Reader(tensor)
    parts = list(parts_of(tensor, view, convolutions="slices"))
    pooled = view.layout != "matrix"
    factor = CONV_FACTOR if pooled else 1.0
    for pool in [parts] if pooled else [[part] for part in parts]:
        shape = pool[0].shape
        about = {"part": "" if pooled else pool[0].name, "rows": shape[0], "cols": shape[1]}
        values = _singular_values(kernels, reader, pool)
        if not np.isfinite(values).all():
            yield about | NOT_FINITE
            continue
        random: Row = {}
        if options.baseline == "permuted":
            shuffled = [kernels.singular_values_of_gram(kernels.gram(permuted(reader, p, options.key))) for p in pool]
            random = {"rand_num_spikes": bulk(_eigenvalues(np.stack(shuffled), factor), shape).spikes}
        yield about | {"status": "done"} | figures(values, shape, factor) | random


def figures(values: FloatArray, shape: tuple[int, int], factor: float = 1.0) -> Row:
    """WeightWatcher's columns of matrices of one shape, from a row of singular values each.

    The eigenvalues of all are pooled and multiplied by a factor.
    """
    short, long = sorted(shape)
    eigenvalues = _eigenvalues(values, factor)
    greatest, total = float(eigenvalues[-1]), float(eigenvalues.sum())
    kept = eigenvalues[eigenvalues > CUT_OFF]
    law = law_of_few(kept) if kept.size < _FEW else power_law(kept)
    fit = bulk(eigenvalues, shape)
    rank = _rank(values.reshape(-1), long)
    return defined(
        {
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
            "rank_loss": sum(of_one.size - _rank(of_one, long) for of_one in values),
            "mp_softrank": fit.soft_rank,
            "num_spikes": fit.spikes,
            "sigma_mp": fit.sigma,
        }
    )


def law_of_few(eigenvalues: FloatArray) -> PowerLaw:
    """The power law of fewer than twenty eigenvalues, least first, as WeightWatcher fits it.

    Of the tails of eight or more, or of all where there are fewer, that nearest to its law: alpha = 1 + (n - 1) /
    sum(log(x / xmin)).
    """
    laws = []
    for start in range(max(eigenvalues.size - _LEAST_TAIL, 0) + 1):
        tail = eigenvalues[start:]
        logs = np.log(tail / tail[:1])
        if logs.any():
            n, alpha = tail.size, float(1 + (tail.size - 1) / logs.sum())
            distance = float(np.abs(1 - np.exp((1 - alpha) * logs) - np.arange(n) / n).max())
            laws.append(PowerLaw(alpha, (alpha - 1) / np.sqrt(n), float(tail[0]), float(tail[-1]), distance, n))
    return min(laws, key=lambda law: law.distance, default=NO_LAW)


def _eigenvalues(values: FloatArray, factor: float) -> FloatArray:
    """Of all matrices together, least first."""
    found: FloatArray = np.square(np.sort(values, axis=None)) * factor
    return found


def _singular_values(kernels: Variant, reader: Reader, parts: Sequence[Part]) -> FloatArray:
    """By Gram matrices where the least values are well above what is noise there; directly where one is not."""
    short = min(parts[0].shape)
    values = kernels.singular_values_of_gram(kernels.gram(reader.strips(parts))).reshape(-1, short)
    if (values[:, -1] <= _CLEAR * gram_floor(1.0, short) * values[:, 0]).any():
        values = kernels.singular_values_direct(np.stack([reader.whole(part) for part in parts]))
    return values


def _rank(values: FloatArray, long: int) -> int:
    return int((values > values.max() * long * np.finfo(np.float64).eps).sum())


def _entropy(eigenvalues: FloatArray, rank: int) -> float:
    """Of the shares of the eigenvalues, over the logarithm of the rank."""
    p = eigenvalues[eigenvalues > 0] / max(float(eigenvalues.sum()), 1e-300)
    return float(-(p @ np.log(p)) / np.log(rank)) if rank > 1 else np.nan


def _log10(value: float) -> float:
    return float(np.log10(value)) if value > 0 else np.nan
