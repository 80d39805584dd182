"""Host form of `semi_structured_sparsity`."""

import numpy as np
import numpy.typing as npt
from numba import njit


def groups_with_two_zeros(zero: npt.NDArray[np.bool_]) -> int:
    """See `weighbridge_kernels.semi_structured_sparsity.groups_with_two_zeros`."""
    return int(_count(zero.view(np.uint8)))


@njit(nogil=True, cache=True)
def _count(zero):  # type: ignore[no-untyped-def]
    found = 0
    for i in range(zero.shape[0]):
        row = zero[i]
        for j in range(0, row.size - 3, 4):
            found += row[j] + row[j + 1] + row[j + 2] + row[j + 3] >= 2
    return found
