"""Colours as they vary together in photographs, so that an optimiser's step in one moves along natural hues."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Array, Float

_COVARIANCE_ROOT = np.array([[0.26, 0.09, 0.02], [0.27, 0.00, -0.05], [0.27, -0.09, 0.03]], np.float32)
"""A square root of the covariance of red, green and blue over ImageNet's training images: brightness, blue against
yellow, green against magenta, scaled by their standard deviations. The figures are those of Lucid's
`optvis/param/color.py` (Apache 2.0), with which Olah et al. 2017 made their pictures (doi:10.23915/distill.00007)."""

COLOURS = _COVARIANCE_ROOT / np.linalg.norm(_COVARIANCE_ROOT, axis=0).max()
"""The root over its greatest column norm, so that what goes in and what comes out vary alike."""


def correlated(components: Float[Array, "*shape 3"]) -> Float[Array, "*shape 3"]:
    """Red, green and blue, before the squashing to [0, 1], of uncorrelated components: `components @ COLOURS.T`."""
    return jnp.matmul(components, COLOURS.T, precision=jax.lax.Precision.HIGHEST)
