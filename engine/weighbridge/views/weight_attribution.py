"""What a network's tensors and their channels contributed to the output of one input."""

from typing import TYPE_CHECKING, Any

import numpy as np

from weighbridge.errors import BadArgument
from weighbridge.views.colours import Theme
from weighbridge.views.frame import WIDTH, number
from weighbridge.views.placeholder import placeholder
from weighbridge.views.signed_bars import signed_bars

if TYPE_CHECKING:
    from weighbridge.report.saliency import FloatArray
    from weighbridge.report.weight_attribution import WeightAttribution

_MOST = 32
"""Bars of a picture: of more tensors or channels, those of the greatest magnitude."""


def tensor_attribution(
    found: "WeightAttribution", index: int = 0, *, theme: Theme = "light", width: int | None = WIDTH // 2
) -> Any:
    """What each tensor contributed to the output of an input, in the order of the attribution, as an `hv.Overlay`.

    Of more than 32 tensors those of the greatest magnitude. A layer through which all of the output passes, and that no
    bias follows, has the whole of it. Raises `BadArgument` for an index out of range.
    """
    if not len(found.output):
        return placeholder("contributions of weights: there are no inputs", theme=theme, width=width or WIDTH // 2)
    if not 0 <= index < len(found.output):
        raise BadArgument(f"index is {index}; there are {len(found.output)} inputs, give 0 to {len(found.output) - 1}")
    names = list(found.tensors)
    values = np.array([found.tensors[name][index] for name in names])
    shown = _greatest(values)
    title = f"Σ w ∂f/∂w by tensor{_left(len(values) - len(shown))}; output f = {number(found.output[index])}"
    return signed_bars([names[i] for i in shown], values[shown], title, "contribution", theme=theme, width=width)


def channel_attribution(
    found: "WeightAttribution", tensor: str, index: int = 0, *, theme: Theme = "light", width: int | None = WIDTH // 2
) -> Any:
    """What each channel of a tensor contributed to the output of an input, the greatest first, as an `hv.Overlay`.

    Of more than 32 channels those of the greatest magnitude. Raises `BadArgument` for an unknown tensor or an index out
    of range.
    """
    if tensor not in found.channels:
        raise BadArgument(f"tensor {tensor!r} is not in the attribution; there is: {', '.join(found.channels)}")
    every = found.channels[tensor]
    if not 0 <= index < len(every):
        raise BadArgument(f"index is {index}; there are {len(every)} inputs")
    values = every[index]
    shown = _greatest(values)
    shown = shown[np.argsort(-values[shown], kind="stable")]
    title = f"{tensor}: Σ w ∂f/∂w by channel{_left(len(values) - len(shown))}"
    return signed_bars([str(i) for i in shown], values[shown], title, "contribution", theme=theme, width=width)


def _greatest(values: "FloatArray") -> Any:
    """The places of the greatest magnitudes, in their order."""
    return np.sort(np.argsort(-np.nan_to_num(np.abs(values)), kind="stable")[:_MOST])


def _left(count: int) -> str:
    return f", {count:,} smaller ones left out" if count > 0 else ""
