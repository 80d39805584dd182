"""How a tensor of any rank is looked at as a matrix, the same everywhere: by blocks, by channels, by eye."""

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from weighbridge.roles import Role, is_conv_hwio

Layout = Literal["vector", "matrix", "out_in_space", "space_in_out"]


@dataclass(frozen=True)
class MatrixView:
    """`rows` × `cols` over the entries in stored order.

    A matrix is itself; more axes fold into the rows, all but the last. A convolution's kernel is one row an output
    channel where it is stored [out, in, *space] (PyTorch), and one column an output channel where it is stored
    [*space, in, out] (flax, Keras). What has fewer than two axes is one row, and has no channels.
    """

    shape: tuple[int, ...]
    layout: Layout

    @property
    def rows(self) -> int:
        """Rows of the view, in the order of the stored entries."""
        if self.layout == "vector":
            return 1
        return self.shape[0] if self.layout == "out_in_space" else math.prod(self.shape[:-1])

    @property
    def cols(self) -> int:
        """Entries of a row, which follow one another as stored."""
        if self.layout == "vector":
            return math.prod(self.shape)
        return math.prod(self.shape[1:]) if self.layout == "out_in_space" else self.shape[-1]

    @property
    def has_channels(self) -> bool:
        """Whether rows and columns are channels; of a vector or a scalar they are not."""
        return self.layout != "vector"

    @property
    def axes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The sides that the rows and the columns are folded from."""
        split = {"vector": 0, "out_in_space": 1}.get(self.layout, len(self.shape) - 1)
        return self.shape[:split], self.shape[split:]

    @property
    def filters(self) -> tuple[int, int, tuple[int, ...]]:
        """Output channels, input channels and the sides of a convolution's kernel."""
        if self.layout == "out_in_space":
            return self.shape[0], self.shape[1], self.shape[2:]
        return self.shape[-1], self.shape[-2], self.shape[:-2]

    def places(self, kernel: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """A convolution's kernel as matrices of channels, one for each place: [*space, rows, cols], rows as stored."""
        if self.layout == "out_in_space":
            return np.moveaxis(kernel.reshape(self.shape), (0, 1), (-2, -1))
        return kernel.reshape(self.shape)


@dataclass(frozen=True)
class Folded:
    """The first `split` axes of a shape as rows, the others as columns."""

    shape: tuple[int, ...]
    split: int

    @property
    def axes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The sides that the rows and the columns are folded from."""
        return self.shape[: self.split], self.shape[self.split :]

    @property
    def rows(self) -> int:
        """Rows, in the order of the stored entries."""
        return math.prod(self.axes[0])

    @property
    def cols(self) -> int:
        """Entries of a row."""
        return math.prod(self.axes[1])


def matrix_view(name: str, shape: tuple[int, ...], role: Role) -> MatrixView:
    """The view of a tensor, by its role and, for convolutions, by the habit that its name shows."""
    if len(shape) < 2:
        return MatrixView(shape, "vector")
    if role == "conv" and len(shape) > 2:
        return MatrixView(shape, "space_in_out" if is_conv_hwio(name) else "out_in_space")
    return MatrixView(shape, "matrix")
