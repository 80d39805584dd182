"""What a call of saliency is given, checked before any work: each function gives the checked thing or raises."""

from collections.abc import Callable, Iterable
from numbers import Integral
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from weighbridge.errors import BadArgument
from weighbridge.models.saliency_calls import Network, abstract
from weighbridge.report.saliency import IntArray


def floating(inputs: Any) -> Any:
    """Inputs as a floating-point array with the batch first."""
    found = array("inputs", inputs)
    if not jnp.issubdtype(found.dtype, jnp.floating):
        raise BadArgument(f"inputs are {found.dtype}; expected floating-point values, such as embeddings of tokens")
    if not found.ndim:
        raise BadArgument("inputs are one number; expected a batch, with the inputs along the first axis")
    return found


def array(what: str, given: Any, convert: Callable[[Any], Any] = jnp.asarray) -> Any:
    """`given` as an array; rows of different lengths, words and objects are none."""
    try:
        return convert(given)
    except (TypeError, ValueError) as error:
        raise BadArgument(
            f"{what} cannot be an array: {_first_line(error)}; give numbers, rows of one length"
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def baseline_of(given: Any, x: Any) -> Any:
    """A baseline in the inputs' shape and dtype."""
    found = array("baseline", given, lambda values: jnp.asarray(values, x.dtype))
    try:
        return jnp.broadcast_to(found, x.shape)
    except ValueError:
        raise BadArgument(
            f"baseline has shape {found.shape}; expected one that broadcasts to the inputs' {x.shape}"
        ) from None


def context_of(given: Iterable[Any], x: Any) -> tuple[Any, ...]:
    """Further arguments of a network, with the inputs' batch axis."""
    found = tuple(array("context", one) for one in given)
    for one in found:
        if one.shape[:1] != x.shape[:1]:
            raise BadArgument(f"context has shape {one.shape}; expected {len(x)} entries along its first axis")
    return found


def output_shape(found: Network, x: Any, context: tuple[Any, ...]) -> tuple[int, ...]:
    """Axes of the output for one input.

    Traced at two batch sizes, for the runs take whatever size their memory allows.
    """
    count = max(len(x), 1)
    shape, other = _shape_at(found, x, context, count), 1 if count > 1 else 2
    try:
        again = _shape_at(found, x, context, other)
    except BadArgument as error:
        raise BadArgument(f"{error}; {_of_any_size(count)}") from error
    if again != shape:
        raise BadArgument(f"function gives outputs {again} in a batch of {other}; {_of_any_size(count)}")
    return shape


def _of_any_size(count: int) -> str:
    return f"the function must treat any batch size, not {count} alone, as x.reshape(len(x), ...) does"


def _shape_at(found: Network, x: Any, context: tuple[Any, ...], count: int) -> tuple[int, ...]:
    """Axes of the output for one input in a batch of `count`."""
    batch = [abstract((count, *one.shape[1:]), one.dtype) for one in (x, *context)]
    try:
        out = jax.eval_shape(found.apply, found.params, found.fixed, *batch)
    except Exception as error:
        raise BadArgument(f"function fails on inputs of shape {(count, *x.shape[1:])}: {_first_line(error)}") from error
    shape = getattr(out, "shape", None)
    if shape is None or shape[:1] != (count,):
        got = f"shape {shape}" if shape is not None else f"a {type(out).__name__}"
        raise BadArgument(f"function gives {got} for {count} inputs; expected one array ({count}, ...)")
    if not jnp.issubdtype(out.dtype, jnp.floating):
        raise BadArgument(f"function gives {out.dtype}; expected floating-point outputs, such as logits")
    return tuple(shape[1:])


def targets_of(targets: Any, count: int, shape: tuple[int, ...]) -> IntArray:
    """Indices of the chosen output of every input: (batch, axes of one output)."""
    if targets is None:
        if shape:
            raise BadArgument(f"targets is None; the outputs of an input have shape {shape}, give the index of one")
        return np.zeros((count, 0), np.int64)
    given = array("targets", targets, np.asarray)
    if given.dtype.kind not in "iu":
        raise BadArgument(f"targets are {given.dtype}; expected integers, indices into outputs of shape {shape}")
    spread = given[..., None] if len(shape) == 1 and given.ndim < 2 else given
    if spread.ndim > 2 or spread.shape[-1:] != (len(shape),) or spread.shape[:-1] not in ((), (count,)):
        raise BadArgument(
            f"targets have shape {given.shape}; expected one index, or {count}, for each axis of the outputs {shape}"
        )
    found = np.broadcast_to(spread, (count, len(shape))).astype(np.int64)
    for row, axis in np.argwhere((found < 0) | (found >= np.array(shape, np.int64)))[:1]:
        raise BadArgument(
            f"targets[{row}] is {found[row, axis]}; the network has {shape[axis]} outputs, give 0 to {shape[axis] - 1}"
        )
    return found


def least_and_most(steps: Any) -> tuple[int, int]:
    """The fewest and the most steps, two positive ints."""
    given = list(steps) if isinstance(steps, Iterable) else []
    if len(given) != 2 or not all(map(whole, given)) or not 1 <= given[0] <= given[1]:
        raise BadArgument(f"steps is {steps}; expected the fewest and the most, such as (64, 512)")
    return int(given[0]), int(given[1])


def whole(number: Any) -> bool:
    """Whether a number is an int, Python's or NumPy's."""
    return isinstance(number, Integral)


def random_key(key: Any) -> Any:
    """A key of `jax.random`, typed or of the older kind."""
    try:
        jax.random.fold_in(key, 0)
    except (TypeError, ValueError) as error:
        raise BadArgument(f"key is {str(key)[:40]}; expected a key of jax.random, such as jax.random.key(0)") from error
    return key


def sides(what: str, given: Any, shape: tuple[int, ...], channel_axis: int, default: list[int]) -> tuple[int, ...]:
    """The sides of a window, or strides: as given for each axis, or the same for all but the channels' axis."""
    channels = channel_axis % (len(shape) + 1) - 1 if len(shape) > 1 else -1
    each = (shape[i] if i == channels else default[i] if given is None else given for i in range(len(shape)))
    found = given if isinstance(given, tuple) else tuple(each)
    own = given if isinstance(given, tuple) else () if given is None else (given,)
    odd = not all(map(whole, own)) or len(found) != len(shape)
    if odd or any(side < 1 for side in found if side != 0 or 0 not in shape):
        raise BadArgument(
            f"{what} is {given}; expected a positive int, or {len(shape)} of them in a tuple for inputs of {shape}"
        )
    return tuple(min(int(side), max(extent, 1)) for side, extent in zip(found, shape, strict=True))
