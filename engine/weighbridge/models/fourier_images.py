"""Images as the Fourier coefficients they are made of, so that gradients move all frequencies alike.

Source: Olah, Mordvintsev and Schubert 2017, "Feature Visualization", Distill, doi:10.23915/distill.00007.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from weighbridge.models.image_colours import correlated

if TYPE_CHECKING:
    from jaxtyping import Array, Float, PRNGKeyArray

_CONTRAST = 0.25
"""Share of the whitened coefficients that the squashing sees, as in Lucid: its middle, where gradients live."""


def random_spectrum(key: PRNGKeyArray, shape: tuple[int, int, int], spread: float) -> Float[Array, "2 h f c"]:
    """Real and imaginary parts of the whitened coefficients of an image [h, w, c]: normal with a standard deviation."""
    height, width, channels = shape
    return spread * jax.random.normal(key, (2, height, width // 2 + 1, channels), jnp.float32)


def image(spectrum: Float[Array, "2 h f c"], width: int) -> Float[Array, "h w c"]:
    """The image in [0, 1] of whitened coefficients: each divided by its frequency, so that the spectrum is natural.

    `sigmoid(irfft2(coefficients · sqrt(h w) / frequency) / 4)`, where frequency is in cycles a pixel and at least one
    cycle over the longer side. Three channels are uncorrelated components of colours (`image_colours`), any other
    number stands for itself.
    """
    height = spectrum.shape[1]
    real, imaginary = spectrum * _scale(height, width)[..., None]
    pixels = _CONTRAST * jnp.fft.irfft2(jax.lax.complex(real, imaginary), (height, width), axes=(0, 1))
    return jax.nn.sigmoid(correlated(pixels) if spectrum.shape[-1] == 3 else pixels)


def _scale(height: int, width: int) -> Float[Array, "h f"]:
    frequency = jnp.hypot(jnp.fft.fftfreq(height)[:, None], jnp.fft.rfftfreq(width)[None, :])
    scale: Array = (height * width) ** 0.5 / jnp.maximum(frequency, 1 / max(height, width))
    return scale
