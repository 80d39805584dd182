"""A square grid over an embedding, from whose nodes the forces of all points on all are interpolated.

Charges are spread to the nodes around each point, the nodes' forces on each other are a convolution, done by FFT, and a
point takes its force from the nodes around it. Source: Linderman, Rachh, Hoskins, Steinerberger and Kluger 2019, "Fast
interpolation-based t-SNE for improved visualization of single-cell RNA-seq data", Nature Methods 16, 243-245,
doi:10.1038/s41592-018-0308-4. There each box of width 1 has three nodes of its own; here a point takes the four nodes
around it on each axis, whichever boxes they are in, so the field is continuous, and as the kernels of the forces
themselves are convolved, one charge is spread, not four.

Functions are plain arithmetic, for NumPy, JAX and Numba alike.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

STENCIL = 4
"""Nodes around a point on each axis: two below, two above."""
SPACING = 1 / 3
"""Between nodes, while the grid can hold the embedding so: three to a box of width 1, as in the paper."""
SIDES = (
    *(64, 72, 80, 90, 100, 108, 120, 135, 144, 160, 180, 192, 216, 240, 256, 288, 320, 360, 384, 432, 480, 512),
    *(576, 640, 720, 768, 864, 960, 1024, 1152, 1280, 1440, 1536, 1728, 1920, 2048),
)
"""Nodes on a side: products of 2, 3 and 5, for whose doubles an FFT is fast. Beyond the last the nodes draw apart."""
_MARGIN = STENCIL + 1
_STEP = 2**0.25


@dataclass(frozen=True, slots=True)
class Grid:
    nodes: int
    spacing: float


def fitted(span: float, sides: tuple[int, ...] = SIDES) -> Grid:
    """The grid for an embedding whose longer side is `span`.

    Spacing is SPACING where some side can hold the span so, which is up to 680. Beyond, the greatest side holds it and
    the boxes widen: memory is bounded, at transforms of 4,096 x 4,096, half a GB in all. Below 20 the least side is
    finer than it need be. Other spacings are quarter octaves, so that the kernels change seldom.

    Raises `ValueError` for a span that is not finite: no point may fall outside the grid.
    """
    if not np.isfinite(span):
        raise ValueError(
            f"interpolation grid: span {span}; expected a finite one; start the embedding from small numbers"
        )
    if span > SPACING * (sides[-1] - _MARGIN):
        return Grid(sides[-1], _quarter_octave(span / (sides[-1] - _MARGIN)))
    nodes = next(side for side in sides if span <= SPACING * (side - _MARGIN))
    if nodes > sides[0]:
        return Grid(nodes, SPACING)
    return Grid(nodes, min(SPACING, _quarter_octave(max(span, 1e-6) / (nodes - _MARGIN))))


def _quarter_octave(spacing: float) -> float:
    return float(SPACING * _STEP ** np.ceil(np.log(spacing / SPACING) / np.log(_STEP)))


def weights(t: Any) -> tuple[Any, Any, Any, Any]:
    """Of the nodes at -1, 0, 1 and 2 for a point at t in [0, 1): the cubic Lagrange polynomials. They sum to 1."""
    below, above, far = t + 1, 1 - t, 2 - t
    return -t * above * far / 6, below * above * far / 2, below * t * far / 2, -below * t * above / 6


def kernels(x: Any, y: Any) -> tuple[Any, Any, Any]:
    """q = 1 / (1 + x^2 + y^2), q^2 x and q^2 y at displacements: what sums to Z, and to the forces."""
    q = 1 / (1 + x * x + y * y)
    return q, q * q * x, q * q * y
