"""`visualize_feature`: the input that a unit of a network looks for, found by ascending the gradient.

Source: Olah, Mordvintsev and Schubert 2017, "Feature Visualization", Distill, doi:10.23915/distill.00007.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from weighbridge.errors import BadArgument
from weighbridge.models.fourier_images import image, random_spectrum
from weighbridge.models.objectives import Objective
from weighbridge.models.transforms import Movements, moved

if TYPE_CHECKING:
    from jaxtyping import Array, Float, PRNGKeyArray

_SPREAD = 0.01
"""Standard deviation of the coefficients to begin with: a nearly grey image."""

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Features:
    """What was found for each unit.

    `images` [units, height, width, channels] in [0, 1]; `activations` [units], what the objective gives for them as
    they are; `history` [units, steps], what it gave on the way, each time for the image as it had been moved.
    """

    images: FloatArray
    activations: FloatArray
    history: FloatArray


def visualize_feature(
    function: Callable[[Any], Any],
    objective: Objective,
    *,
    shape: tuple[int, int, int],
    key: PRNGKeyArray,
    steps: int = 256,
    rate: float = 0.05,
    movements: Movements | None = None,
) -> Features:
    """An image for each unit of an objective that excites it, by `steps` of Adam at a `rate` on Fourier coefficients.

    `function` maps images [1, height, width, channels] in [0, 1] to activations, an array [1, ..., units] or a dict of
    such; it brings the network's own preprocessing. A function that is a pytree (`jax.tree_util.Partial`, a flax nnx
    or equinox module) takes its weights along as data: another set of them, other units and other keys do not compile
    again. `shape` is an image's: 3 channels are red, green and blue, any other number is independent values in [0, 1].
    There is no picture of what a network of tokens or of plain vectors looks for: for those name the units' top
    tokens or channels. All units ascend together, each from its own start and under its own `movements`; the same key
    gives the same images on one machine. Units behind a ReLU that none of the images opens stay grey: have `function`
    give what comes before the ReLU.

    Raises `BadArgument` for an objective that does not fit the activations, for another kind of shape and for no
    steps, `ModuleNotFoundError` without optax.
    """
    if len(shape) != 3 or min(shape) < 1:
        raise BadArgument(f"shape {shape}; expected height, width and channels: other inputs have no picture")
    if steps < 1 or not rate > 0:
        raise BadArgument(f"{steps} steps at a rate of {rate}; expected one or more, at a rate above 0")
    carried = function if _has_leaves(function) else jax.tree_util.Partial(function)  # type: ignore[no-untyped-call]
    one = jnp.zeros((1, *shape), jnp.float32)
    objective.check(jax.eval_shape(carried, one))
    _optax()
    found = _ascended(carried, objective, key, jnp.float32(rate), shape, steps, movements or Movements())
    return Features(*jax.device_get(found))


def _has_leaves(function: Any) -> bool:
    return not jax.tree_util.all_leaves([function])


@partial(jax.jit, static_argnames=("shape", "steps", "movements"))
def _ascended(
    function: Callable[[Any], Any],
    objectives: Any,
    key: PRNGKeyArray,
    rate: Float[Array, ""],
    shape: tuple[int, int, int],
    steps: int,
    movements: Movements,
) -> tuple[Array, Array, Array]:
    """Images [units, h, w, c], their activations [units] and the histories [units, steps]."""
    units = jax.tree.leaves(objectives)[0].shape[0]
    ascent = partial(_one_ascended, function, rate=rate, shape=shape, steps=steps, movements=movements)
    found: tuple[Array, Array, Array] = jax.vmap(ascent)(objectives, jax.random.split(key, units))
    return found


def _one_ascended(
    function: Callable[[Any], Any],
    objective: Objective,
    key: PRNGKeyArray,
    *,
    rate: Float[Array, ""],
    shape: tuple[int, int, int],
    steps: int,
    movements: Movements,
) -> tuple[Array, Array, Array]:
    optimizer = _optax().adam(rate)
    start, key = jax.random.split(key)
    spectrum = random_spectrum(start, shape, _SPREAD)

    def loss(spectrum: Array, key: PRNGKeyArray) -> Array:
        return -objective(function(moved(image(spectrum, shape[1]), key, movements)[None]))

    def step(state: tuple[Array, Any], key: PRNGKeyArray) -> tuple[tuple[Array, Any], Array]:
        spectrum, moments = state
        value, gradient = jax.value_and_grad(loss)(spectrum, key)
        with jax.numpy_dtype_promotion("standard"):  # Adam raises a float to an integer power
            change, moments = optimizer.update(gradient, moments)
        return (spectrum + change, moments), -value

    keys = jax.random.split(key, steps)
    (spectrum, _), history = jax.lax.scan(step, (spectrum, optimizer.init(spectrum)), keys)
    made = image(spectrum, shape[1])
    return made, objective(function(made[None])), history


def _optax() -> Any:
    try:
        import optax
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("optax is not installed; pip install 'weighbridge[models]'", name="optax") from error
    return optax
