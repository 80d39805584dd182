"""The density by stochastic Lanczos quadrature, the entries of vectors and convolutions as maps, against NumPy."""

import numpy as np
import pytest

from weighbridge_kernels.convolution_spectrum import convolution_singular_values
from weighbridge_kernels.localization import localization
from weighbridge_kernels.spectral_density import LanczosQuadrature, gaussian, lanczos_quadrature, smoothed_density

PROBES, STEPS, KEYS = 16, 32, 40


def orthonormal(rng: np.random.Generator, rows: int, cols: int) -> np.ndarray:
    return np.linalg.qr(rng.standard_normal((rows, cols)))[0]


def matrices() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    left, right = orthonormal(rng, 250, 200), orthonormal(rng, 200, 200)
    noise = rng.standard_normal((300, 200))
    return {
        "tall noise": noise,
        "square noise": rng.standard_normal((200, 200)),
        "heavy tail": (left * np.arange(1, 201) ** -0.5) @ right.T,
        "one spike": noise + 2000 * orthonormal(rng, 300, 1) @ orthonormal(rng, 200, 1).T,
        "two levels": (left * np.repeat([1.0, 0.2], 100)) @ right.T,
        "rank three": left[:, :3] @ right[:3],
    }


@pytest.mark.parametrize("name", list(matrices()))
def test_two_standard_errors_cover_the_density(name: str) -> None:
    """The density smoothed alike, by each of forty sets of probes, here run together.

    Of sixteen probes Student's t puts 93.6 of a hundred within two errors; neighbouring points err alike.
    """
    x = matrices()[name]
    values, gram, side = np.linalg.svd(x, compute_uv=False), x.T @ x, x.shape[1]
    scale = np.sqrt(np.square(values).mean())
    at, width = np.linspace(0, min(values[0], 4 * scale) + 0.4 * scale, 64), scale / 8
    true = gaussian((at[:, None] - values) / width).mean(axis=1) / width
    found = lanczos_quadrature(lambda block: gram @ block, side, probes=PROBES * KEYS, steps=STEPS, key=0)
    covered, bias = [], np.zeros(64)
    for first in range(0, PROBES * KEYS, PROBES):
        some = slice(first, first + PROBES)
        density = smoothed_density(LanczosQuadrature(found.nodes[some], found.weights[some]), at, width)
        off = density.density - true
        covered.append((np.abs(off) <= 2 * density.error)[true > 1e-3 * true.max()].mean())
        bias += off / true.max() / KEYS
    assert 0.9 <= np.mean(covered) <= 0.98
    assert np.abs(bias).max() < 0.02


@pytest.mark.parametrize("x", [np.zeros((30, 20)), np.eye(40), 3 * np.eye(40, 25)], ids=["zero", "identity", "tall"])
def test_a_space_that_is_exhausted_at_once(x: np.ndarray) -> None:
    found = lanczos_quadrature(lambda block: x.T @ (x @ block), x.shape[1], probes=4, steps=10, key=0)
    assert np.isfinite(found.nodes).all()
    np.testing.assert_allclose(found.weights.sum(axis=1), 1)
    np.testing.assert_allclose((found.weights * found.nodes).sum(axis=1), x.max(), atol=1e-12)


def test_the_quadrature_is_exact_for_moments() -> None:
    """To the power 2 · steps - 1 of the Gram matrix, for the very probes; the same key gives the same numbers."""
    x = np.random.default_rng(1).standard_normal((37, 23))
    gram = x.T @ x
    found = lanczos_quadrature(lambda block: gram @ block, 23, probes=5, steps=4, key=3)
    signs = np.random.default_rng(3).integers(0, 2, (23, 5)) * 2.0 - 1
    for power in range(8):
        expected = (signs * (np.linalg.matrix_power(gram, power) @ signs)).sum(axis=0) / 23
        np.testing.assert_allclose((found.weights * found.nodes ** (2 * power)).sum(axis=1), expected, rtol=1e-9)
    again = lanczos_quadrature(lambda block: gram @ block, 23, probes=5, steps=4, key=3)
    np.testing.assert_array_equal(found.nodes, again.nodes)


def test_localization_is_its_formula() -> None:
    vectors = np.random.default_rng(2).standard_normal((31, 3))
    found = localization(vectors, 4)
    np.testing.assert_allclose(found.participation, (vectors**2).sum(axis=0) ** 2 / (vectors**4).sum(axis=0))
    for j in range(3):
        order = np.argsort(-np.abs(vectors[:, j]))[:4]
        assert found.carriers[j].tolist() == order.tolist()
        np.testing.assert_array_equal(found.loadings[j], vectors[order, j])
    spread = localization(np.eye(5)[:, :1] * 7 + np.zeros((5, 1)), 9)
    assert (spread.participation[0], spread.carriers.shape) == (1, (1, 5))
    assert localization(np.ones((6, 1)), 2).participation[0] == pytest.approx(6)
    assert localization(np.zeros((6, 1)), 2).participation[0] == 0


@pytest.mark.parametrize("space", [(3,), (2, 3), (2, 1, 2)], ids=str)
def test_a_convolution_is_its_circulant_matrix(space: tuple[int, ...]) -> None:
    rng = np.random.default_rng(3)
    kernel = rng.standard_normal((*space, 4, 3))
    size = tuple(side + 2 + i for i, side in enumerate(space))
    dense = np.zeros((*size, 4, *size, 3))
    for at in np.ndindex(*size):
        for place in np.ndindex(*space):
            source = tuple((a - p) % side for a, p, side in zip(at, place, size, strict=True))
            dense[(*at, slice(None), *source)] += kernel[place]
    expected = np.linalg.svd(dense.reshape(np.prod(size) * 4, -1), compute_uv=False)
    np.testing.assert_allclose(convolution_singular_values(kernel, size), expected, atol=1e-12 * expected[0])
    with pytest.raises(ValueError, match="expected"):
        convolution_singular_values(kernel, (1,) * len(space))
