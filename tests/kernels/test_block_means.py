"""Pooled similarities against means over blocks of the whole matrix."""

from types import SimpleNamespace

import numpy as np
import pytest

from weighbridge_kernels import block_means, block_means_host, unit_rows_host


@pytest.fixture(params=[block_means_host, block_means], ids=["host", "jax"])
def form(request: pytest.FixtureRequest) -> SimpleNamespace:
    return request.param


@pytest.mark.parametrize("block_rows", [1, 7, 64, 200])
@pytest.mark.parametrize("rows", [1, 63, 131])
def test_means_over_blocks(form: SimpleNamespace, rows: int, block_rows: int) -> None:
    x = np.random.default_rng(rows).standard_normal((rows, 29)).astype(np.float32) + 0.3
    x[rows // 2] = 0
    units, _ = unit_rows_host.unit_rows(x)
    s = units.astype(np.float64) @ units.T.astype(np.float64)
    cuts = np.arange(0, rows, block_rows)
    expected = [[s[i : i + block_rows, j : j + block_rows].mean() for j in cuts] for i in cuts]
    got = form.pooled_similarity(units, block_rows=block_rows)
    assert got.dtype == np.float64
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-12)


def test_no_rows(form: SimpleNamespace) -> None:
    assert form.pooled_similarity(np.zeros((0, 5), np.float32), block_rows=8).shape == (0, 0)
    with pytest.raises(ValueError, match="block_rows=0"):
        form.pooled_similarity(np.zeros((3, 5), np.float32), block_rows=0)
