"""A method's values by place, on one scale for a batch, and their colours over what they are of.

One scale: each method's values are in shares of its limit, the 0.995 quantile of its magnitudes, so that the inputs of
a batch compare, and a colour means the same part of a method's range everywhere. Methods with signs are drawn in the
diverging map, others in the sequential one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from weighbridge.views.colours import Colours

if TYPE_CHECKING:
    from weighbridge.report.saliency import Saliency

_QUANTILE = 0.995
_FAINT = 0.25
"""How much of the picture's range is seen below a map."""
NAMES = {
    "gradient": "gradient",
    "input_x_gradient": "input × gradient",
    "integrated_gradients": "integrated gradients",
    "smoothgrad": "SmoothGrad",
    "grad_cam": "Grad-CAM",
    "occlusion": "occlusion",
}

FloatArray = npt.NDArray[np.floating[Any]]
Picture = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Map:
    """One input's values by place, summed over channels, in shares of its method's limit."""

    shares: FloatArray
    name: str
    limit: float
    signed: bool
    output: float
    warning: str = ""

    @property
    def title(self) -> str:
        return f"{self.name}{' ⚠ ' + self.warning if self.warning else ''}"


def maps(found: "Saliency", shape: tuple[int, ...], *, channel_axis: int = -1) -> list[Map]:
    """The maps of all inputs of a result; `shape` is the inputs', `channel_axis` theirs.

    Images (three axes and more for each input) and tokens (two) are summed over channels; the columns of tables stay.
    """
    axis = channel_axis % len(shape)
    values = found.values
    if values.shape == tuple(shape) and len(shape) > 2:
        values = values.sum(axis=axis)
    finite = np.abs(values[np.isfinite(values)])
    limit = float(np.quantile(finite, _QUANTILE)) if finite.size else 0.0
    limit = limit or float(finite.max(initial=0.0)) or 1.0
    name = NAMES.get(found.method, found.method)
    warned = ("" if done else "gap beyond 1 %" for done in found.converged)
    return [
        Map(value / limit, name, limit, found.signed, float(output), warning)
        for value, output, warning in zip(values, found.output, warned, strict=True)
    ]


def blended(shares: FloatArray, under: FloatArray, paint: Colours, *, signed: bool) -> Picture:
    """Colours of a map times a faint picture, (height, width, 3); dark themes screen instead, so zero is the picture.

    `shares` beyond 1 keep the ends' colours; it is spread over a larger picture by its nearest entries. `under` is
    (height, width), in [0, 1]. NaN has the theme's colour for it.
    """
    spread = nearest(shares, under.shape)
    known = np.nan_to_num(spread, nan=0.0, posinf=1.0, neginf=-1.0).clip(-1 if signed else 0, 1)
    scale = table(shades(paint, signed))
    at = (known + 1) / 2 if signed else known
    over = scale[np.rint(at * (len(scale) - 1)).astype(int)]
    dark = _dark(paint)
    faint = _FAINT * (under if dark else 1 - under)[..., None]
    mixed = 1 - (1 - over) * (1 - faint) if dark else over * (1 - faint)
    mixed[np.isnan(spread)] = table((paint.nan,))[0]
    return np.asarray(np.rint(mixed * 255), np.uint8)


def nearest(values: FloatArray, shape: tuple[int, ...]) -> FloatArray:
    for axis, size in enumerate(shape):
        extent = values.shape[axis]
        values = np.take(values, (2 * np.arange(size) + 1) * extent // (2 * size), axis=axis)
    return values


def _dark(paint: Colours) -> bool:
    return paint.background < "#808080"


def shades(paint: Colours, signed: bool) -> list[str]:
    """The colour map of methods with or without signs; on a dark ground zero is dark in both."""
    if signed or not _dark(paint):
        return list(paint.diverging if signed else paint.sequential)
    scale = table(paint.sequential)
    scale *= np.minimum(np.linspace(0, 4, len(scale)), 1)[:, None]
    return ["#" + "".join(f"{round(255 * part):02x}" for part in shade) for shade in scale]


def table(shades: Sequence[str]) -> FloatArray:
    return np.array([[int(shade[i : i + 2], 16) for i in (1, 3, 5)] for shade in shades]) / 255


def grey(image: FloatArray, channel_axis: int = -1) -> FloatArray:
    """A picture's mean over channels, from its least finite value to its greatest as 0 to 1."""
    flat = np.asarray(image, np.float64)
    flat = flat.mean(axis=channel_axis) if flat.ndim > 2 else flat
    return _within(flat)


def coloured(image: FloatArray, channel_axis: int = -1) -> Picture:
    """A picture as it is looked at, (height, width, 3): three channels as red, green and blue, others as `grey`.

    From its least finite value to its greatest, of all channels together.
    """
    flat = np.asarray(image, np.float64)
    if flat.ndim != 3 or flat.shape[channel_axis] != 3:
        return plain(grey(image, channel_axis))
    return np.asarray(np.rint(255 * _within(np.moveaxis(flat, channel_axis, -1))), np.uint8)


def plain(under: FloatArray) -> Picture:
    """A grey picture in [0, 1], (height, width), as red, green and blue."""
    return np.repeat(np.rint(under * 255).astype(np.uint8)[..., None], 3, axis=-1)


def _within(values: FloatArray) -> FloatArray:
    """From the least finite value to the greatest as 0 to 1."""
    finite = values[np.isfinite(values)]
    low, high = (finite.min(), finite.max()) if finite.size else (0.0, 1.0)
    return np.asarray(np.nan_to_num(values - low) / (high - low or 1.0)).clip(0, 1)


def of_one(channel_axis: int, ndim: int) -> int:
    """The channels' axis of one input, from that of a batch."""
    return channel_axis if channel_axis < 0 else channel_axis % ndim - 1
