"""What the kernels of a layer have in common: a few groups of inputs, and where in space each unit reads them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from weighbridge import devices
from weighbridge.errors import BadArgument
from weighbridge_kernels.variants import Device

FloatArray = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class WeightFactors:
    """Kernels [h, w, in, out] ~ sum over factors of `spatial` [out, h, w, r], signed, and `channels` [r, in].

    The channels of a factor are non-negative and of norm 1, or 0; spatial weights are in units of the kernel's. Factors
    stand by their energy, greatest first. `explained_share` is 1 - error² / norm², NaN for a kernel of zeros.
    """

    spatial: FloatArray
    channels: FloatArray
    explained_share: float


def weight_factors(
    kernel: npt.ArrayLike, count: int = 3, *, units: Sequence[int] | None = None, device: Device = "auto", key: int = 0
) -> WeightFactors:
    """One-sided non-negative factors of kernels [h, w, in, out], the same for all the units (by default every one).

    A matrix of one row for each unit and position, one column for each input, is factored so that inputs group without
    sign and positions keep theirs: `weighbridge_kernels.nmf.one_sided_nmf`. Give one unit to have factors of its own.
    Raises `BadArgument` for another shape, a unit that is not there, a count that is not possible and entries that
    are not finite.

    Source: Voss et al. 2021, "Visualizing Weights", Distill, doi:10.23915/distill.00024.007.
    """
    chosen = _chosen(np.asarray(kernel), units)
    height, width, inputs, outputs = chosen.shape
    rows = np.ascontiguousarray(np.moveaxis(chosen, 3, 0).reshape(-1, inputs))
    try:
        found = devices.select(device).module("nmf").one_sided_nmf(rows, count, key=key)
    except ValueError as error:
        raise BadArgument(str(error)) from error
    norms = np.linalg.norm(found.channels, axis=1)
    channels = found.channels / np.where(norms > 0, norms, 1)[:, None]
    spatial = (found.spatial * norms).reshape(outputs, height, width, count)
    order = np.argsort(-np.square(spatial).sum(axis=(0, 1, 2)), kind="stable")
    return WeightFactors(spatial[..., order], channels[order], found.explained_share)


def _chosen(kernel: npt.NDArray[Any], units: Sequence[int] | None) -> npt.NDArray[Any]:
    if kernel.ndim != 4 or 0 in kernel.shape:
        raise BadArgument(f"a kernel of shape {kernel.shape}; expected [h, w, in, out], none of them 0")
    wrong = [unit for unit in units or () if not 0 <= unit < kernel.shape[3]]
    if wrong or (units is not None and not len(units)):
        raise BadArgument(f"unit {wrong[0] if wrong else 'none'}; expected some of 0 to {kernel.shape[3] - 1}")
    return kernel if units is None else kernel[..., list(units)]
