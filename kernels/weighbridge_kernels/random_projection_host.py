"""Host form of `random_projection`: Philox's numbers in NumPy."""

from typing import Any

import numpy as np
import numpy.typing as npt

from weighbridge_kernels.johnson_lindenstrauss import Law, blocks, check

Float32Array = npt.NDArray[np.float32]


def random_projection(x: npt.NDArray[Any], dimensions: int, *, key: int, law: Law = "gaussian") -> Float32Array:
    """See `weighbridge_kernels.random_projection.random_projection`, whose numbers are others by the same law."""
    check(dimensions, law)
    total = np.zeros((len(x), dimensions), np.float32)
    for number, extent in blocks(x.shape[1]):
        total += x[:, extent].astype(np.float32) @ lines(key, number, extent.stop - extent.start, dimensions, law=law)
    return total


def lines(key: int, number: int, count: int, dimensions: int, *, law: Law) -> Float32Array:
    """See `weighbridge_kernels.random_projection.lines`; for the lines of one `number`."""
    rng = np.random.Generator(np.random.Philox([key, number]))
    if law == "gaussian":
        drawn: Float32Array = rng.standard_normal((count, dimensions), np.float32) / np.sqrt(np.float32(dimensions))
        return drawn
    die = rng.integers(0, 6, (count, dimensions), np.int8)
    signs: Float32Array = (die == 0).astype(np.float32) - (die == 1).astype(np.float32)
    signs *= np.sqrt(np.float32(3 / dimensions))
    return signs
