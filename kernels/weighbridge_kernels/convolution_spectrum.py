"""The singular values of a convolution as the linear map that it is, under circular padding and stride 1.

Source: Sedghi, Gupta and Long 2019, "The singular values of convolutional layers", arXiv 1805.10408. NumPy alone.
"""

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

_ENTRIES = 1 << 22
"""Entries of the matrices that are decomposed together."""


def convolution_singular_values(kernel: FloatArray, size: tuple[int, ...]) -> FloatArray:
    """All singular values of a convolution over inputs of a spatial `size`, greatest first.

    `kernel` is [*space, rows, cols], with output and input channels as rows and columns or the other way round. At each
    of prod(size) frequencies the kernel's Fourier transform is a complex matrix of rows × cols; its singular values
    together are those of the map, prod(size) · min(rows, cols) of them. float64 throughout; units of the weights.
    Raises `ValueError` where a side of the kernel exceeds the input's, where it would wrap onto itself.
    """
    *space, rows, cols = kernel.shape
    if len(space) != len(size) or any(side < of_kernel for side, of_kernel in zip(size, space, strict=True)):
        raise ValueError(f"input size {size}; expected {len(space)} sides of at least {tuple(space)}")
    axes = tuple(range(len(space)))
    half = np.fft.rfftn(kernel, size, axes)
    twice = np.full(half.shape[: len(space)], 2)
    twice[..., 0] = 1
    if size[-1] % 2 == 0:
        twice[..., -1] = 1
    matrices = half.reshape(-1, rows, cols)
    step = max(_ENTRIES // (rows * cols), 1)
    values = [np.linalg.svd(matrices[i : i + step], compute_uv=False) for i in range(0, len(matrices), step)]
    together: FloatArray = np.repeat(np.concatenate(values), twice.reshape(-1), axis=0).reshape(-1)
    return np.sort(together)[::-1]
