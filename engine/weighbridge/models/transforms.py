"""Random movements of an image, differentiable: what excites a unit under all of them is no accident of the pixels.

Source: Olah et al. 2017 (`fourier_images`); the ranges are about Lucid's for images of 128 pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from weighbridge.errors import BadArgument

if TYPE_CHECKING:
    from jaxtyping import Array, Float, PRNGKeyArray


@dataclass(frozen=True)
class Movements:
    """How far an image moves, each drawn evenly about none: `jitter` down and across, as a share of the shorter side,
    `scale`, as a share of the size, `rotate`, in degrees. `Movements(0, 0, 0)` leaves it where it is.

    What a unit of an early layer looks for is small: there a jitter in pixels that suits late layers blurs it away.
    """

    jitter: float = 0.04
    scale: float = 0.1
    rotate: float = 10.0

    def __post_init__(self) -> None:
        if not (0 <= self.jitter <= 1 and 0 <= self.scale < 1 and 0 <= self.rotate <= 180):
            raise BadArgument(f"{self}; expected a jitter in [0, 1], a scale in [0, 1), degrees in [0, 180]")


def moved(image: Float[Array, "h w c"], key: PRNGKeyArray, movements: Movements) -> Float[Array, "h w c"]:
    """The image moved at random about its centre, between pixels bilinear; it goes on over its edges, as a torus does.

    An image made of whole waves has no seam there.
    """
    if movements == Movements(0, 0, 0):
        return image
    shift, scale, angle = _drawn(key, movements)
    shift = shift * min(image.shape[:2])
    rows, cols = (jnp.arange(side, dtype=jnp.float32) - (side - 1) / 2 for side in image.shape[:2])
    cosine, sine = jnp.cos(angle) * scale, jnp.sin(angle) * scale
    y = cosine * rows[:, None] - sine * cols[None, :] + shift[0] + (image.shape[0] - 1) / 2
    x = sine * rows[:, None] + cosine * cols[None, :] + shift[1] + (image.shape[1] - 1) / 2
    return _sampled(image, y, x)


def _drawn(key: PRNGKeyArray, movements: Movements) -> tuple[Array, Array, Array]:
    """Shares of a side down and across, a factor, radians."""
    even = jax.random.uniform(key, (4,), jnp.float32, -1, 1)
    return movements.jitter * even[:2], 1 + movements.scale * even[2], jnp.deg2rad(movements.rotate * even[3])


def _sampled(image: Float[Array, "h w c"], y: Float[Array, "p q"], x: Float[Array, "p q"]) -> Float[Array, "p q c"]:
    """Bilinear values at fractional places, modulo the sides."""
    top, left = jnp.floor(y), jnp.floor(x)
    down, across = (y - top)[..., None], (x - left)[..., None]
    i, j = top.astype(jnp.int32), left.astype(jnp.int32)

    def at(di: int, dj: int) -> Array:
        return image[(i + di) % image.shape[0], (j + dj) % image.shape[1]]

    upper = at(0, 0) * (1 - across) + at(0, 1) * across
    lower = at(1, 0) * (1 - across) + at(1, 1) * across
    return upper * (1 - down) + lower * down
