"""Host form of `semi_structured_sparsity`."""

import numpy as np
import numpy.typing as npt


def groups_with_two_zeros(zero: npt.NDArray[np.bool_]) -> int:
    """See `weighbridge_kernels.semi_structured_sparsity.groups_with_two_zeros`.

    Four flags are one 32-bit word, and clearing its lowest bit leaves something where there are two or more.
    """
    whole = np.ascontiguousarray(zero[:, : zero.shape[1] // 4 * 4])
    words = whole.reshape(-1).view(np.uint32)
    return int(np.count_nonzero(words & (words - np.uint32(1))))
