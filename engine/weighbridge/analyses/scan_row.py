"""From a tensor's merged state to its row in the table `scan`."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from weighbridge.analyses.scan_state import MAX_CHANNELS, Classes, TensorState, counting
from weighbridge.report.scan_columns import QUANTILES, SPARSITIES
from weighbridge_kernels import formats
from weighbridge_kernels.distribution import HIGH_HALF, Distribution, entropy, exponent_entropy
from weighbridge_kernels.quantizers import BLOCK_QUANTIZERS
from weighbridge_kernels.states import AxisSums, IntArray, Moments

Row = dict[str, Any]

_OUTLIER_MEDIANS = 6
_LARGEST_WHOLE = 2**53
_UNDERFLOW_SHARE = 0.02
"""Share of NVFP4's squared error that blocks below E4M3's range may make uncertain: 1 % of the column."""


def finished_row(state: TensorState, content_hash: str) -> Row:
    """All statistics of a tensor that was read to its end."""
    row: Row = {"status": "done", "content_hash": content_hash}
    reasons: list[str] = []
    {"codes": _codes, "float": _floats, "integer": _integers, "complex": _complexes}[counting(state.tensor.dtype)](
        row, state, reasons
    )
    _channels(row, state, reasons)
    row["reason"] = "; ".join(reasons) or None
    return {name: _plain(value) for name, value in row.items()}


def _codes(row: Row, state: TensorState, reasons: list[str]) -> None:
    dtype = state.tensor.dtype.name
    counts = state.total.counts if state.total.counts is not None else np.zeros(0, np.int64)
    (bins,) = np.nonzero(counts)
    occupied = counts[bins]
    values = formats.values(dtype)[bins]
    distribution = Distribution.of_codes(bins, occupied, dtype)
    row |= {
        "effective_dtype": dtype,
        "nan": int(occupied[np.isnan(values)].sum()),
        "posinf": int(occupied[np.isposinf(values)].sum()),
        "neginf": int(occupied[np.isneginf(values)].sum()),
        "zeros": int(occupied[values == 0].sum()),
        "distinct": distribution.values.size,
        "entropy": entropy(occupied) if occupied.size else None,
        "exponent_entropy": exponent_entropy(bins, occupied, dtype) if occupied.size else None,
        "histogram_bins": bins,
        "histogram_counts": occupied,
    }
    moments = distribution.moments()
    _distribution(row, distribution, moments)
    if state.tensor.dtype.kind == "float":
        _quantization(row, state, distribution, moments, reasons)
    _groups(row, state)


def _floats(row: Row, state: TensorState, reasons: list[str]) -> None:
    total = state.total
    counts = total.counts if total.counts is not None else np.zeros(0, np.int64)
    (bins,) = np.nonzero(counts)
    occupied = counts[bins]
    moments = total.moments
    row |= {
        "effective_dtype": _effective_dtype(state),
        "nan": total.classes.nan,
        "posinf": total.classes.posinf,
        "neginf": total.classes.neginf,
        "zeros": total.classes.zeros,
        "exponent_entropy": _exponent_entropy(bins, occupied, total.classes) if state.tensor.count else None,
        "histogram_bins": bins,
        "histogram_counts": occupied,
    }
    if row["effective_dtype"] == "BF16":
        patterns = _with_zeros(bins, occupied, total.classes.zeros)
        row["distinct"], row["entropy"] = int(np.count_nonzero(patterns)), entropy(patterns)
    _moments(row, moments)
    if moments.count:
        extremes = (moments.min, moments.max)
        distribution = Distribution.of_high_halves(
            bins, occupied, total.classes.zeros, extremes, exact=row["effective_dtype"] == "BF16"
        )
        _shares(row, distribution, moments)
        if not sum(total.beyond):
            _quantization(row, state, distribution, moments, reasons)
    if sum(total.beyond):
        reasons.append(f"{sum(total.beyond):,} entries lie beyond float32's range; quantiles take them at its edge")
    _groups(row, state)


def _exponent_entropy(bins: IntArray, counts: IntArray, classes: Classes) -> float:
    """Over all words: zeros have the exponent field 0, NaN and ±Inf the last one, and no bin holds them."""
    apart = [classes.zeros, classes.nan + classes.posinf + classes.neginf]
    return exponent_entropy(np.append(bins, [0, 0x7F80]), np.append(counts, apart), HIGH_HALF)


def _with_zeros(bins: IntArray, counts: IntArray, zeros: int) -> IntArray:
    return np.append(counts, zeros) if zeros else counts


def _effective_dtype(state: TensorState) -> str:
    total, stored = state.total, state.tensor.dtype
    if stored.bits == 64:
        return "F32" if total.half_precision and state.tensor.count else stored.name
    if total.moments.count == 0:
        return stored.name
    return "BF16" if total.low_halves == 0 else "F16" if total.half_precision else stored.name


def _integers(row: Row, state: TensorState, reasons: list[str]) -> None:
    sums = state.total.integers
    row |= {"effective_dtype": state.tensor.dtype.name, "nan": 0, "posinf": 0, "neginf": 0}
    row["zeros"] = state.total.classes.zeros
    if sums.least is not None and sums.greatest is not None:
        row |= {
            "min": float(sums.least),
            "max": float(sums.greatest),
            "mean": sums.total / state.tensor.count,
            "absmax": float(max(abs(sums.least), abs(sums.greatest))),
        }
        if row["absmax"] > _LARGEST_WHOLE:
            reasons.append("min, max and absmax: rounded to float64, which holds integers to 2^53")


def _complexes(row: Row, state: TensorState, reasons: list[str]) -> None:
    total = state.total
    row |= {"effective_dtype": state.tensor.dtype.name, **vars(total.classes)}
    if total.moments.count:
        row |= {"l1": total.moments.l1, "l2": math.sqrt(total.squares), "absmax": total.moments.max}


def _distribution(row: Row, distribution: Distribution, moments: Moments) -> None:
    _moments(row, moments)
    if moments.count:
        _shares(row, distribution, moments)


def _moments(row: Row, moments: Moments) -> None:
    if moments.count == 0:
        return
    row |= {
        "min": moments.min,
        "max": moments.max,
        "mean": moments.mean,
        "std": moments.std,
        "skewness": moments.skewness,
        "kurtosis": moments.kurtosis,
        "l1": moments.l1,
        "l2": moments.l2,
        "absmax": max(abs(moments.min), abs(moments.max)),
    }


def _shares(row: Row, distribution: Distribution, moments: Moments) -> None:
    row |= dict(zip(QUANTILES, distribution.quantile(np.array(list(QUANTILES.values()))), strict=True))
    absmax = max(abs(moments.min), abs(moments.max))
    row |= {name: distribution.sparsity(relative * absmax) for name, relative in SPARSITIES.items()}


def _quantization(
    row: Row, state: TensorState, distribution: Distribution, moments: Moments, reasons: list[str]
) -> None:
    """Relative errors; null for a tensor of norm 0, whose error has nothing to be relative to."""
    norm = moments.l2 if moments.count else 0.0
    if norm == 0 or not math.isfinite(norm):
        return
    row["qerr_int8"] = math.sqrt(distribution.int8_error()) / norm
    row["qerr_fp8_e4m3"] = math.sqrt(distribution.e4m3_error()) / norm
    errors = state.total.errors
    if errors is None:
        return
    for name, squares in zip(BLOCK_QUANTIZERS, errors.squares, strict=True):
        row[f"qerr_{name}"] = math.sqrt(squares) / norm
    if errors.nvfp4_underflow() > _UNDERFLOW_SHARE * errors.squares[-1]:
        row["qerr_nvfp4_16"] = None
        reasons.append("qerr_nvfp4_16: block maxima span more than E4M3's range, so it depends on what is flushed")


def _groups(row: Row, state: TensorState) -> None:
    groups = state.view.rows * (state.view.cols // 4)
    if groups and state.total.sparse_groups is not None:
        row["sparsity_2of4"] = state.total.sparse_groups / groups


def _channels(row: Row, state: TensorState, reasons: list[str]) -> None:
    if not state.view.has_channels:
        return
    channels = state.view.rows, state.view.cols
    if state.view.layout == "space_in_out":
        channels = channels[::-1]
    for side, sums, number in zip(("row", "col"), state.channels(), channels, strict=True):
        if sums is not None:
            _side(row, side, sums)
        elif number > MAX_CHANNELS:
            reasons.append(f"{side}s: {number:,} channels, kept up to {MAX_CHANNELS:,}")


def _side(row: Row, side: str, sums: AxisSums) -> None:
    norms = sums.l2
    live = norms[norms > 0]
    row |= {
        f"outlier_{side}s": int((norms > _OUTLIER_MEDIANS * np.median(live)).sum()) if live.size else 0,
        f"dead_{side}s": int(((sums.absmax == 0) & (sums.count > 0)).sum()),
        f"{side}_l2": _sixteen_bits(norms),
        f"{side}_absmax": sums.absmax.astype(np.float32),
        f"{side}_mean": _sixteen_bits(sums.mean),
    }


def _sixteen_bits(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """Rounded to 16 significant bits, relative error 2^-16: a third of the bytes a norm takes in a report."""
    with np.errstate(over="ignore"):
        words = x.astype(np.float32).view(np.uint32)
    finite = (words & 0x7F800000) != 0x7F800000
    return np.where(finite, (words + 0x80) & 0xFFFFFF00, words).view(np.float32)


def _plain(value: Any) -> Any:
    """Python's own numbers, and None for what is not a number: a table has nulls."""
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
