"""Beyond the mean case: weights between two layers as examples see them, and the few cases they are made of.

Expanded weights average over all states of the gates, so that two cases of opposite sign cancel: an edge between two
textures whichever of them lies left. The gradient at an example knows in which case it is.

Source: Voss et al. 2021, "Visualizing Weights", Distill, doi:10.23915/distill.00024.007, which left it for the future.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from weighbridge.errors import BadArgument, NotLinear
from weighbridge.models.expanded import FloatArray, Kernel, place, whole, within
from weighbridge.models.layers import INPUT
from weighbridge.models.rules import RULES
from weighbridge.models.section import Section
from weighbridge_kernels.nmf import one_sided_nmf
from weighbridge_kernels.pca import pca


@dataclass(frozen=True)
class Cases:
    """Weights [examples, *kernel, source channels] to a unit, and the unit's `activations` [examples]."""

    values: FloatArray
    activations: FloatArray
    source: str
    target: str
    unit: int | tuple[int, ...]
    kernel: Kernel

    @property
    def mean(self) -> FloatArray:
        """The mean [*kernel, source channels] over the examples, in which cases may cancel."""
        mean: FloatArray = self.values.mean(axis=0)
        return mean


@dataclass(frozen=True)
class Factors:
    """Cases ~ `loadings` [examples, factors] @ `kernels` [factors, *kernel, source channels].

    `explained_share` is of the sum of squares, about zero for NMF and about the `mean` for PCA, which adds the mean.
    """

    kernels: FloatArray
    loadings: FloatArray
    mean: FloatArray
    explained_share: float


def example_weights(
    model: Callable[..., Any],
    examples: Any,
    *,
    target: tuple[str, int | tuple[int, ...]],
    source: str = INPUT,
) -> Cases:
    """The gradient of a unit in a layer before it, at each example: its weights with the gates as they stand there.

    Equivalent to `d target[unit] / d source` of the model itself, not made linear, for `examples` [examples, ...] that
    the model treats one by one. Names of layers, the unit of a map, and the cropping as in `expanded_weights`, at the
    examples' own size; not cropped where some gradient lies outside. NaN in an example stays in it.

    Raises `BadArgument` for a layer or unit that is not there.
    """
    name, unit = target
    at = jnp.asarray(examples)
    section = Section(model, RULES, 1.0, at, source, name)
    everywhere = whole(section, unit, True)
    index = (..., *everywhere.position, unit[-1] if isinstance(unit, tuple) else unit)
    start = jnp.zeros(section.shapes()[0], at.dtype)
    activations, pull = jax.vjp(lambda change: section.exact(change)[index], start)
    gradient = np.asarray(pull(jnp.ones_like(activations))[0])
    kernel = _cropped(replace(section, fed=at[:1]), unit, gradient) or everywhere
    values = gradient[(slice(None), *within(kernel))]
    return Cases(values, np.asarray(activations), source, name, unit, kernel)


def _cropped(section: Section, unit: int | tuple[int, ...], gradient: FloatArray) -> Kernel | None:
    """Where the network, made linear, has the kernel; None where it cannot be, or the model's own gradient is wider."""
    try:
        kernel = place(section, unit, True)
    except (NotLinear, BadArgument):
        return None
    inside = np.count_nonzero(gradient[(slice(None), *within(kernel))])
    return kernel if inside == np.count_nonzero(gradient) else None


def factors(cases: Cases, count: int, *, method: Literal["nmf", "pca"] = "nmf") -> Factors:
    """The few weights that those at many examples are made of.

    `nmf`: signed kernels that examples add in amounts which are not negative, so that two cases of opposite sign are
    two factors (`weighbridge_kernels.nmf.one_sided_nmf`, non-negative along the examples). `pca`: orthonormal kernels
    about the mean, greatest variance first (`weighbridge_kernels.pca`), where such a pair is one factor of both signs.

    Raises `ValueError` for a NaN, an infinity, and for more factors than examples or weights allow.
    """
    if not cases.values.size:
        raise BadArgument("factors: there are no examples")
    flat = cases.values.reshape(len(cases.values), -1).astype(np.float64)
    kernels, loadings, mean, share = (_nmf if method == "nmf" else _pca)(flat, count)
    shape = cases.values.shape[1:]
    return Factors(kernels.reshape(-1, *shape), loadings, mean.reshape(shape), share)


def _nmf(flat: FloatArray, count: int) -> tuple[FloatArray, FloatArray, FloatArray, float]:
    signed: Any = flat  # NumPy, so that it stays in float64
    found = one_sided_nmf(signed, count, axis=0)
    return found.spatial.T, found.channels.T, np.zeros(flat.shape[1]), found.explained_share


def _pca(flat: FloatArray, count: int) -> tuple[FloatArray, FloatArray, FloatArray, float]:
    def strips() -> Iterator[FloatArray]:
        yield flat

    found = pca(strips, (flat.shape[0], flat.shape[1]), count=count)
    share = float(found.explained_variance.sum() / found.total_variance) if found.total_variance > 0 else np.nan
    return found.components, (flat - found.mean) @ found.components.T, found.mean, share
