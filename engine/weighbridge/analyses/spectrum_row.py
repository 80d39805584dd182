"""The rows of the table `spectra`: from the matrices of a tensor, by the route that suits them, to their figures."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from weighbridge.analyses.matrices import STRIP_ENTRIES, Attention, Convolutions, Part, Reader, batches, parts_of
from weighbridge.checkpoints.config import Heads
from weighbridge.checkpoints.protocol import Tensor
from weighbridge.matrix import MatrixView
from weighbridge_kernels.convolution_spectrum import convolution_singular_values
from weighbridge_kernels.leading_spectrum import LeadingSpectrum, leading_spectrum
from weighbridge_kernels.localization import localization
from weighbridge_kernels.marchenko_pastur import marchenko_pastur
from weighbridge_kernels.power_law import power_law
from weighbridge_kernels.spectral_density import LanczosQuadrature, lanczos_quadrature, smoothed_density
from weighbridge_kernels.spectral_metrics import (
    SpectralMetrics,
    entropy,
    gram_floor,
    spectral_distance,
    spectral_metrics,
)
from weighbridge_kernels.variants import Variant

Route = Literal["gram", "direct"]
Baseline = Literal["none", "permuted"]
FloatArray = npt.NDArray[np.float64]
Row = dict[str, Any]

EXACT_UP_TO, EXACT_UP_TO_ON_ACCELERATOR = 8192, 16384
"""Short sides beyond which all singular values would take minutes."""
_ON_CPU = ("host", "jax:cpu")
PASSES = 8
"""Times that a matrix is read for its greatest singular values."""
PROBES, STEPS = 16, 32
"""Of the density: random vectors, and times that the matrix is read for them."""
_POINTS = 128
_WIDTH = 1 / 8
"""Of the root mean square singular value: how finely the density is resolved."""
VECTORS, CARRIERS = 4, 8
"""Leading singular vectors of each side that are looked at, and entries of each that are told."""
_VECTOR_PASSES = 16
_DETERMINED = 1e-3
"""Sine of the angle within which a singular vector is known, or it is left out."""
_CIRCULAR_WORK = 1e13
"""Operations, about an hour of a processor's."""
_SHUFFLED_ENTRIES = 1 << 26
_POOLED = 1 << 16
"""Singular values kept of a convolution as a map, which has those of every frequency: the greatest."""
NOT_FINITE: Row = {"status": "failed", "reason": "holds NaN or Inf, which leave no spectrum; see the scan for where"}
"""Of a matrix that has no spectrum."""


@dataclass(frozen=True)
class Options:
    """What a caller of `spectra` may choose; see there."""

    route: Route
    exact_up_to: int | None
    top: int
    key: int
    convolutions: Convolutions
    input_size: list[int] | None
    attention: Attention
    baseline: Baseline


@dataclass(frozen=True)
class Job:
    """A tensor to decompose, as a matrix and in heads where it has them, by kernels in one form."""

    tensor: Tensor
    view: MatrixView
    heads: Heads | None
    options: Options
    kernels: Variant


def rows(job: Job) -> Iterator[Row]:
    """A row for each matrix of a tensor."""
    if job.view.layout != "matrix" and job.options.convolutions == "circular":
        yield _circular(job)
        return
    reader = Reader(job.tensor)
    for batch in batches(parts_of(job.tensor, job.view, convolutions=job.options.convolutions, heads=job.heads)):
        too_large = min(batch[0].shape) > exact_up_to(job)
        found = [_leading(job, reader, batch[0])] if too_large else _exact(job, reader, batch)
        for part, row in zip(batch, found, strict=True):
            yield {"part": part.name, "rows": part.rows, "cols": part.cols} | row


def exact_up_to(job: Job) -> int:
    """The short side beyond which not all singular values are found: that asked for, or by where the kernels run."""
    return job.options.exact_up_to or (EXACT_UP_TO if job.kernels.name in _ON_CPU else EXACT_UP_TO_ON_ACCELERATOR)


def _exact(job: Job, reader: Reader, batch: Sequence[Part]) -> Iterator[Row]:
    """All singular values of matrices of one shape."""
    values, apply_grams = (_directly if job.options.route == "direct" else _by_gram)(job, reader, batch)
    for part, found, apply_gram in zip(batch, values, apply_grams, strict=True):
        if not np.isfinite(found).all():
            yield NOT_FINITE
            continue
        floor = _floor(job.options.route, part, float(found[0]))
        route = {"status": "done", "route": job.options.route, "accuracy": floor}
        short = min(part.shape)
        leading = leading_spectrum(apply_gram, short, count=VECTORS, passes=_VECTOR_PASSES, key=job.options.key)
        vectors = _localized(reader, part, leading, found, floor)
        yield route | figures(found, part.shape, floor) | vectors | _baseline(job, reader, part, found)


ApplyGram = Callable[[FloatArray], FloatArray]


def _by_gram(job: Job, reader: Reader, batch: Sequence[Part]) -> tuple[FloatArray, list[ApplyGram]]:
    short = min(batch[0].shape)
    total = job.kernels.gram(reader.strips(batch))
    values = job.kernels.singular_values_of_gram(total).reshape(-1, short)
    return values, [partial(np.matmul, gram) for gram in np.asarray(total).reshape(-1, short, short)]


def _directly(job: Job, reader: Reader, batch: Sequence[Part]) -> tuple[FloatArray, list[ApplyGram]]:
    wholes = np.stack([reader.whole(part) for part in batch])
    values = job.kernels.singular_values_direct(wholes)
    return values, [partial(job.kernels.gram_product, list(reader.strips([part]))) for part in batch]


def _floor(route: Route, part: Part, greatest: float) -> float:
    """Below what singular values are noise of the route."""
    if route == "direct":
        return greatest * max(part.shape) * float(np.finfo(np.float64).eps)
    return gram_floor(greatest, min(part.shape))


def _localized(reader: Reader, part: Part, leading: LeadingSpectrum, values: FloatArray, floor: float) -> Row:
    """Which rows and columns carry the leading singular vectors, of those above a floor that are determined.

    A vector turns into its neighbours' where singular values are close: by at most its residual over the gap.
    """
    found = leading.values[:VECTORS]
    eigenvalues = np.square(values)
    gaps = np.abs(np.diff(eigenvalues, append=0.0))
    gaps = np.minimum(gaps, np.concatenate([[np.inf], gaps[:-1]]))[: found.size]
    residuals = leading.bounds[:VECTORS] * np.maximum(found, leading.bounds[:VECTORS])
    known = np.flatnonzero((residuals < _DETERMINED * gaps) & (found > floor))
    if not known.size:
        return {}
    short = leading.vectors[:, known]
    sign = np.sign(np.take_along_axis(short, np.abs(short).argmax(axis=0)[None], axis=0))
    short = short * sign
    long = np.concatenate([strip.astype(np.float64) @ short for strip in reader.strips([part])])
    sides = (long, short) if part.rows >= part.cols else (short, long)
    row: Row = {"vector_ranks": known + 1}
    for side, vectors in zip(("row", "col"), sides, strict=True):
        at = localization(vectors / np.linalg.norm(vectors, axis=0), CARRIERS)
        row[f"{side}_participation"] = at.participation
        row[f"{side}_carriers"] = at.carriers.reshape(-1)
        row[f"{side}_loadings"] = at.loadings.reshape(-1)
    return row


def _baseline(job: Job, reader: Reader, part: Part, values: FloatArray) -> Row:
    """The spectrum of the same entries in random order, and how far the matrix's own is from it."""
    if job.options.baseline == "none":
        return {}
    shuffled = job.kernels.singular_values_of_gram(job.kernels.gram(permuted(reader, part, job.options.key)))
    return {
        "random_spectral_norm": float(shuffled[0]),
        "random_spikes": int((values > shuffled[0]).sum()),
        "random_distance": spectral_distance(values, shuffled),
    }


def permuted(reader: Reader, part: Part, key: int) -> Iterator[npt.NDArray[Any]]:
    """Strips of a matrix whose entries are in random order; of a very large one within blocks of 2^26 entries."""
    rng = np.random.default_rng(key)
    step = max(STRIP_ENTRIES // min(part.shape), 1)
    for block in reader.strips([part], entries=_SHUFFLED_ENTRIES):
        shuffled = block.copy(order="C")
        rng.shuffle(shuffled.reshape(-1).view(f"V{shuffled.itemsize}"))
        yield from (shuffled[at : at + step] for at in range(0, len(shuffled), step))


def _leading(job: Job, reader: Reader, part: Part) -> Row:
    """What is known of a matrix by its greatest singular values, its density and the sum of its squares."""
    options, side = job.options, min(part.shape)
    energy = _energy(reader.strips([part]))
    if not math.isfinite(energy):
        return NOT_FINITE

    def apply_gram(block: FloatArray) -> FloatArray:
        return job.kernels.gram_product(reader.strips([part]), block)

    found = leading_spectrum(apply_gram, side, count=options.top, passes=PASSES, key=options.key)
    quadrature = lanczos_quadrature(apply_gram, side, probes=PROBES, steps=STEPS, key=options.key)
    spectral = float(found.values[0])
    limit = f"its short side of {side:,} exceeds --exact-up-to {exact_up_to(job):,}"
    row: Row = {
        "status": "done",
        "reason": f"{limit}: leading values, and the density of all",
        "route": "leading",
        "accuracy": float(found.bounds.max()),
        "spectral_norm": spectral,
        "frobenius_norm": math.sqrt(energy),
        "log_spectral_norm": _log10(spectral, 2),
        "log_frobenius_norm": _log10(energy, 1),
        "stable_rank": energy / spectral**2 if spectral else None,
        "singular_values": found.values,
        "singular_value_bounds": found.bounds,
    }
    density = _density(quadrature, math.sqrt(energy / side), spectral)
    least = float(found.values[-1])  # whose neighbour below is not known
    return row | density | _localized(reader, part, found, found.values, least)


def _energy(strips: Iterable[npt.NDArray[Any]]) -> float:
    """The sum of the squares of all entries."""
    return sum(float(np.square(strip, dtype=np.float64).sum()) for strip in strips)


def _density(quadrature: LanczosQuadrature, scale: float, spectral: float) -> Row:
    """The smoothed density up to four times the root mean square singular value, `scale`: there the bulk lies."""
    if not scale:
        return {}
    width = _WIDTH * scale
    at = np.linspace(0, min(spectral, 4 * scale) + 3 * width, _POINTS)
    found = smoothed_density(quadrature, at, width)
    return {"density_at": at, "density": found.density, "density_error": found.error}


def _circular(job: Job) -> Row:
    """A convolution as a map of inputs of a given size, under circular padding and stride 1."""
    size = tuple(job.options.input_size or ())
    outputs, inputs, space = job.view.filters
    shape = math.prod(size) * outputs, math.prod(size) * inputs
    given = " x ".join(map(str, size))
    where = {"part": f"circular {given}", "rows": shape[0], "cols": shape[1], "route": "fourier"}
    if len(size) != len(space) or any(side < of_kernel for side, of_kernel in zip(size, space, strict=True)):
        expected = " x ".join(map(str, space))
        return where | {"status": "skipped", "reason": f"an input of {given} for a kernel of {expected}"}
    if math.prod(size) * outputs * inputs * min(outputs, inputs) > _CIRCULAR_WORK:
        return where | {"status": "skipped", "reason": f"would take hours at an input of {given}; give a smaller one"}
    kernel = job.view.places(job.tensor.entries(0, job.tensor.count).astype(np.float64))
    if not np.isfinite(kernel).all():
        return where | NOT_FINITE
    values = convolution_singular_values(kernel, size)
    metrics = spectral_metrics(values, shape)
    floor = float(values[0] * max(outputs, inputs) * np.finfo(np.float64).eps)
    remark = "under circular padding and stride 1, for one group of channels"
    row = where | {"status": "done", "reason": remark, "accuracy": floor, "singular_values": values[:_POOLED]}
    return row | defined(_norms(metrics) | {"entropy": entropy(values)})


def figures(values: FloatArray, shape: tuple[int, int], floor: float) -> Row:
    """The columns that follow from singular values; those below `floor` are left out of the fits."""
    eigenvalues = np.square(values)
    law = power_law(eigenvalues[values > floor])
    bulk = marchenko_pastur(eigenvalues, shape)
    found = _norms(spectral_metrics(values, shape)) | {
        "entropy": entropy(values),
        "alpha": law.alpha,
        "alpha_sigma": law.sigma,
        "alpha_xmin": law.xmin,
        "alpha_distance": law.distance,
        "alpha_tail": law.tail,
        "mp_sigma": bulk.sigma,
        "mp_edge": bulk.high,
        "mp_spikes": bulk.spikes,
        "mp_soft_rank": bulk.soft_rank,
    }
    return defined(found) | {"singular_values": values}


def _norms(metrics: SpectralMetrics) -> Row:
    return {name: getattr(metrics, name) for name in metrics.__slots__} | {
        "log_spectral_norm": _log10(metrics.spectral_norm, 2),
        "log_frobenius_norm": _log10(metrics.frobenius_norm, 2),
    }


def defined(row: Row) -> Row:
    """A row with null for what is NaN."""
    return {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in row.items()}


def _log10(value: float, power: int) -> float:
    return power * math.log10(value) if value > 0 else math.nan
