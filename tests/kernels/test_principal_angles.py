"""Principal angles of planted subspaces, of deficient matrices, and against SciPy."""

import numpy as np
import pytest
from scipy.linalg import subspace_angles

from weighbridge_kernels.principal_angles import orthonormal_basis, principal_angles, subspace_overlaps


def spaces_at(angles: np.ndarray, d: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Two matrices with these principal angles, of ill-conditioned columns."""
    rng, k = np.random.default_rng(seed), len(angles)
    q = np.linalg.qr(rng.standard_normal((d, 2 * k)))[0]
    turned = q[:, :k] * np.cos(angles) + q[:, k:] * np.sin(angles)
    mix = [rng.standard_normal((k, k)) * np.geomspace(1, 1e-2, k)[:, None] for _ in range(2)]
    return q[:, :k] @ mix[0], turned @ mix[1]


@pytest.mark.parametrize("d", [13, 101])
def test_planted_angles(d: int) -> None:
    """Small ones to some eps, which cosines alone would give to its root."""
    angles = np.array([0.0, 1e-9, 1e-4, 0.3, np.pi / 4, np.pi / 2 - 1e-9])
    found = principal_angles(*spaces_at(angles, d))
    np.testing.assert_allclose(found, angles, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("k", "l_"), [(1, 1), (3, 7), (7, 3), (19, 19), (23, 5)])
def test_as_scipy(k: int, l_: int) -> None:
    rng = np.random.default_rng(k)
    a, b = rng.standard_normal((31, k)), rng.standard_normal((31, l_))
    np.testing.assert_allclose(principal_angles(a, b), subspace_angles(a, b)[::-1], atol=1e-7)


def test_deficient_ranks() -> None:
    rng = np.random.default_rng(2)
    a = rng.standard_normal((17, 2)) @ rng.standard_normal((2, 5))
    b = a[:, :1] * np.ones(3) * 1e30
    assert orthonormal_basis(a.astype(np.float32)).shape == (17, 2)
    np.testing.assert_allclose(principal_angles(a, b), [0], atol=1e-12)
    assert principal_angles(a, np.zeros((17, 3))).size == 0
    assert principal_angles(a, np.zeros((17, 0))).size == 0


def test_all_pairs_of_a_stack() -> None:
    rng = np.random.default_rng(3)
    stack = rng.standard_normal((5, 29, 4)).astype(np.float32)
    stack[1] = stack[0] @ rng.standard_normal((4, 4)).astype(np.float32)
    stack[2, :, 3] = stack[2, :, 0]
    stack[4] = 0
    found = subspace_overlaps(stack)
    assert found.ranks.tolist() == [4, 4, 3, 4, 0]
    for i in range(4):
        for j in range(4):
            angles = principal_angles(stack[i], stack[j])
            assert found.mean_squared_cosine[i, j] == pytest.approx(np.square(np.cos(angles)).mean())
            assert (found.least_angle[i, j], found.greatest_angle[i, j]) == pytest.approx((angles[0], angles[-1]))
    assert found.mean_squared_cosine[0, 1] == pytest.approx(1)
    for table in (found.mean_squared_cosine, found.least_angle, found.expected):
        assert np.isnan(table[4]).all()
        assert np.isnan(table[:, 4]).all()


def test_the_expected_overlap_of_random_spaces() -> None:
    """Over 66 pairs of ranks 4 in 40 dimensions, within 3 %; ranks differ in the second stack."""
    rng = np.random.default_rng(4)
    stack = rng.standard_normal((40, 40, 4))
    stack[::2, :, 2:] = 0
    found = subspace_overlaps(stack)
    pairs = np.triu_indices(40, 1)
    for rank in (2, 4):
        those = np.isclose(found.expected[pairs], rank / 40)
        assert those.sum() > 100
        assert found.mean_squared_cosine[pairs][those].mean() == pytest.approx(rank / 40, rel=0.05)
