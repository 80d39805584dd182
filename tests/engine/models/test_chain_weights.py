"""Expanded weights of chains of stored tensors, against impulses sent through sums over the kernels in float64."""

import numpy as np
import pytest
from scipy.signal import correlate2d

from weighbridge.errors import BadArgument, TensorNotFound
from weighbridge.models.chain_weights import chain_weights

RNG = np.random.default_rng(4)
KERNELS = {
    "conv1.weight": RNG.standard_normal((6, 2, 3, 3)),
    "conv2.weight": RNG.standard_normal((6, 1, 3, 3)),  # depthwise
    "conv3.weight": RNG.standard_normal((5, 6, 1, 1)),
    "fc1.weight": RNG.standard_normal((7, 5)),
    "fc2.weight": RNG.standard_normal((3, 7)),
    "fc1.bias": RNG.standard_normal(7),
}
STORED = {name: x.astype(np.float32) for name, x in KERNELS.items()}


def convolved(x, kernel, stride, padding):
    """One convolution [out, in, h, w] of maps [in, h, w] as sums over its kernel."""
    x = np.pad(x, ((0, 0), (padding, padding), (padding, padding)))
    groups = len(x) // kernel.shape[1]
    each, reads = len(kernel) // groups, kernel.shape[1]
    maps = [
        sum(correlate2d(x[o // each * reads + i], kernel[o, i], "valid") for i in range(reads))
        for o in range(len(kernel))
    ]
    return np.stack(maps)[:, ::stride, ::stride]


@pytest.mark.parametrize(("strides", "paddings"), [((1, 2, 1), (1, 1, 0)), ((2, 1, 1), (0, 2, 0))])
def test_convolutions_are_composed(strides, paddings):
    found = chain_weights(STORED, list(KERNELS)[:3], 4, strides=strides, paddings=paddings)
    size, jump = 21, strides[0]
    assert found.kernel.stride == (2, 2)
    assert found.values.shape == (3 + 2 * jump, 3 + 2 * jump, 2)
    gradient = np.zeros((size, size, 2))
    for at in np.ndindex(size, size, 2):
        x = np.zeros((2, size, size))
        x[at[2], at[0], at[1]] = 1
        for name, stride, padding in zip(list(KERNELS)[:3], strides, paddings, strict=True):
            x = convolved(x, KERNELS[name], stride, padding)
        gradient[at] = x[4, 5, 5]
    rows, cols = (np.flatnonzero(gradient.any(axis=axes)) for axes in ((1, 2), (0, 2)))
    kernel = gradient[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1]
    np.testing.assert_allclose(found.values, kernel, atol=1e-5 * np.abs(kernel).max())


def test_matrices_are_multiplied_and_gates_keep_their_share():
    found = chain_weights(STORED, ["fc1.weight", "fc2.weight"], keep=0.25)
    product = KERNELS["fc2.weight"] @ KERNELS["fc1.weight"]
    np.testing.assert_allclose(found.values, product / 4, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("chain", "options", "match"),
    [
        (["conv3.weight", "conv1.weight"], {}, "reads 2 units .* gives 5"),
        (["conv3.weight", "fc1.weight"], {}, "map of 0 axes"),
        (["fc1.weight", "fc1.bias"], {}, "no matrix or convolution"),
        (["conv1.weight"], {"strides": [1, 2]}, "2 strides for a chain of 1"),
        (["conv1.weight"], {"strides": 0}, "stride 0"),
        (["conv1.weight"], {"paddings": "some"}, "padding 'some'"),
        (["conv1.weight"], {"unit": 6}, "no unit 6; expected 0 to 5"),
        ([], {}, "empty"),
    ],
)
def test_what_cannot_be_a_chain(chain, options, match):
    with pytest.raises(BadArgument, match=match):
        chain_weights(STORED, chain, **options)
    with pytest.raises(TensorNotFound):
        chain_weights(STORED, ["conv9.weight"])
