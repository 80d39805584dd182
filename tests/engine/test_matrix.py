"""Every tensor is looked at as one matrix: which one depends on its rank, role and name."""

import math

import numpy as np
import pytest

from weighbridge.matrix import matrix_view
from weighbridge.roles import assign

CASES = [
    ("scalar", "other", (), "vector", 1, 1),
    ("bias", "bias", (7,), "vector", 1, 7),
    ("empty", "other", (0,), "vector", 1, 0),
    ("dense.weight", "mlp_up", (19, 23), "matrix", 19, 23),
    ("no.rows", "other", (0, 5), "matrix", 0, 5),
    ("no.columns", "other", (5, 0), "matrix", 5, 0),
    ("experts.weight", "expert", (5, 7, 11), "matrix", 35, 11),
    ("conv1.weight", "conv", (6, 5, 3, 2), "out_in_space", 6, 30),
    ("conv1d.weight", "conv", (6, 5, 3), "out_in_space", 6, 15),
    ("Conv_0.kernel", "conv", (3, 2, 5, 6), "space_in_out", 30, 6),
    ("conv_as_matrix.weight", "conv", (6, 5), "matrix", 6, 5),
]


@pytest.mark.parametrize(("name", "role", "shape", "layout", "rows", "cols"), CASES, ids=[case[0] for case in CASES])
def test_view(name, role, shape, layout, rows, cols):
    view = matrix_view(name, shape, role)
    assert (view.layout, view.rows, view.cols) == (layout, rows, cols)
    assert view.rows * view.cols == math.prod(shape)
    assert view.has_channels == (len(shape) >= 2)


@pytest.mark.parametrize(("name", "axis"), [("conv1.weight", 0), ("conv1.kernel", 3)])
def test_the_long_axis_of_a_convolution_is_its_output(name, axis):
    """The entries of one output channel are one row, or one column, of the view."""
    shape = (6, 5, 3, 2)
    entries = np.arange(math.prod(shape)).reshape(shape)
    view = matrix_view(name, shape, assign(name, shape, "F32").role)
    matrix = entries.reshape(view.rows, view.cols)
    of_channel = np.take(entries, 1, axis=axis).reshape(-1)
    np.testing.assert_array_equal(matrix[1] if view.layout == "out_in_space" else matrix[:, 1], of_channel)
