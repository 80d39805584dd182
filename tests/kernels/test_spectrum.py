"""Singular values against prescribed spectra and float64 LAPACK; what follows from them against plain formulas."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import NamedTuple

import jax
import numpy as np
import pytest

from weighbridge_kernels import spectrum, spectrum_host, variants
from weighbridge_kernels.marchenko_pastur import density, marchenko_pastur
from weighbridge_kernels.power_law import NO_LAW, power_law
from weighbridge_kernels.spectral_metrics import entropy, spectral_distance, spectral_metrics
from weighbridge_kernels.variants import Variant

SHAPES = ((1, 1), (7, 5), (64, 64), (257, 61), (61, 257), (300, 1), (1, 300))


def _in_jax(kernel: Callable) -> Callable:
    def call(x: np.ndarray) -> np.ndarray:
        with jax.enable_x64(True):
            return np.asarray(kernel(x))

    return call


JAX = SimpleNamespace(
    gram=_in_jax(spectrum.gram),
    singular_values_of_gram=_in_jax(spectrum.singular_values_of_gram),
    singular_values_direct=_in_jax(spectrum.singular_values_direct),
)


@pytest.fixture(params=[spectrum_host, JAX], ids=["host", "jax"])
def form(request: pytest.FixtureRequest) -> SimpleNamespace:
    return request.param


def prescribed(shape: tuple[int, int], condition: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A float32 matrix with singular values from 1 down to 1 / condition, and those of what was stored."""
    rng = np.random.default_rng(seed)
    k = min(shape)
    left, right = (np.linalg.qr(rng.standard_normal((side, k)))[0] for side in shape)
    x = ((left * np.geomspace(1, 1 / condition, k)) @ right.T).astype(np.float32)
    return x, np.linalg.svd(x.astype(np.float64), compute_uv=False)


def by_gram(form: SimpleNamespace, x: np.ndarray, strips: int = 1) -> np.ndarray:
    long = x if x.shape[0] >= x.shape[1] else x.T
    total = sum(form.gram(strip) for strip in np.array_split(long, strips))
    return form.singular_values_of_gram(total)


def assert_values(got: np.ndarray, expected: np.ndarray) -> None:
    """Within 1e-5 relative above a thousandth of the largest, within 1e-6 of the largest below."""
    top = expected.max(initial=0)
    large = expected > 1e-3 * top
    np.testing.assert_allclose(got[large], expected[large], rtol=1e-5)
    np.testing.assert_allclose(got[~large], expected[~large], rtol=0, atol=1e-6 * top)


@pytest.mark.parametrize("condition", [1.0, 1e3, 1e6])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_prescribed_spectra(form: SimpleNamespace, shape: tuple[int, int], condition: float) -> None:
    x, expected = prescribed(shape, condition)
    assert_values(by_gram(form, x), expected)
    assert_values(by_gram(form, x, strips=7), expected)
    np.testing.assert_allclose(form.singular_values_direct(x), expected, rtol=0, atol=1e-13 * expected.max())


@pytest.mark.parametrize("x", [np.zeros((9, 5)), np.eye(31), np.ones((40, 8))], ids=["zero", "identity", "rank one"])
def test_singular_matrices(form: SimpleNamespace, x: np.ndarray) -> None:
    assert_values(by_gram(form, x), np.linalg.svd(x, compute_uv=False))


def test_grams_of_strips_add(form: SimpleNamespace) -> None:
    x = np.random.default_rng(1).standard_normal((101, 13)).astype(np.float32)
    parts = sum(form.gram(x[i : i + 17]) for i in range(0, 101, 17))
    np.testing.assert_allclose(parts, x.astype(np.float64).T @ x.astype(np.float64), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("shape", [(101, 13), (3, 101, 13)], ids=str)
def test_the_variants_sum_over_strips(variant: Variant, shape: tuple[int, ...]) -> None:
    """Strips of unequal length, of a matrix or a stack; the product with a block needs no Gram matrix."""
    x = np.random.default_rng(4).standard_normal(shape).astype(np.float32)
    cuts = [x[..., at : at + 17, :] for at in range(0, 101, 17)]
    total = variant.gram(iter(cuts))
    np.testing.assert_allclose(np.asarray(total), np.swapaxes(x.astype(np.float64), -1, -2) @ x, rtol=1e-6, atol=1e-5)
    expected = np.linalg.svd(x.astype(np.float64), compute_uv=False)
    np.testing.assert_allclose(variant.singular_values_of_gram(total), expected, rtol=1e-10)
    np.testing.assert_allclose(variant.singular_values_direct(x), expected, rtol=1e-12)
    if x.ndim == 2:
        block = np.random.default_rng(5).standard_normal((13, 4))
        wide = x.astype(np.float64)
        np.testing.assert_allclose(variant.gram_product(iter(cuts), block), wide.T @ (wide @ block), rtol=1e-12)


def test_a_device_without_float64_leaves_decompositions_to_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """JAX's forms are not there to be called."""

    class Place(NamedTuple):
        platform: str

    class OnDevice(np.ndarray):
        def devices(self) -> set[Place]:
            return {Place("tpu")}

    monkeypatch.delattr(spectrum, "singular_values_of_gram")
    monkeypatch.delattr(spectrum, "singular_values_direct")
    forms = variants._JaxForms(iter([Place("tpu")]), "sort")
    x = np.random.default_rng(7).standard_normal((9, 6))
    expected = np.linalg.svd(x, compute_uv=False)
    np.testing.assert_allclose(forms.singular_values_of_gram((x.T @ x).view(OnDevice)), expected, rtol=1e-12)
    np.testing.assert_allclose(forms.singular_values_direct(x), expected, rtol=1e-14)


def test_a_matrix_that_is_not_finite_has_no_values(form: SimpleNamespace) -> None:
    """And the others of its stack have theirs."""
    stack = np.random.default_rng(6).standard_normal((3, 8, 5))
    stack[1, 2, 2] = np.inf
    for values in (form.singular_values_of_gram(form.gram(stack)), form.singular_values_direct(stack)):
        assert np.isfinite(values).all(axis=1).tolist() == [True, False, True]
        np.testing.assert_allclose(values[2], np.linalg.svd(stack[2], compute_uv=False), rtol=1e-10)


def test_many_of_one_shape_at_once(form: SimpleNamespace) -> None:
    stack = np.random.default_rng(2).standard_normal((5, 40, 11))
    grams = np.stack([form.gram(x) for x in stack])
    np.testing.assert_allclose(
        form.singular_values_of_gram(grams), np.linalg.svd(stack, compute_uv=False), rtol=1e-12, atol=1e-12
    )


def test_metrics_are_their_formulas() -> None:
    x = np.random.default_rng(3).standard_normal((60, 23)) * 1e-30
    s = np.linalg.svd(x, compute_uv=False)
    found = spectral_metrics(s, x.shape)
    p = s / s.sum()
    assert found.spectral_norm == s[0]
    assert found.frobenius_norm == pytest.approx(np.linalg.norm(x), rel=1e-12)
    assert found.nuclear_norm == pytest.approx(s.sum(), rel=1e-12)
    assert found.stable_rank == pytest.approx((s**2).sum() / s[0] ** 2, rel=1e-12)
    assert found.effective_rank == pytest.approx(np.exp(-(p * np.log(p)).sum()), rel=1e-12)
    q = (s / s[0]) ** 2
    assert found.participation_ratio == pytest.approx(q.sum() ** 2 / (q**2).sum(), rel=1e-12)
    assert found.rank == np.linalg.matrix_rank(x.astype(np.float32) * np.float32(1e20))
    assert found.condition == pytest.approx(s[0] / s[-1], rel=1e-12)
    assert entropy(s) == pytest.approx(-(q / q.sum() * np.log(q / q.sum())).sum() / np.log(23), rel=1e-12)


def test_metrics_of_plain_matrices() -> None:
    identity = spectral_metrics(np.ones(7), (7, 7))
    assert (identity.stable_rank, identity.rank, identity.condition) == (7, 7, 1)
    assert identity.effective_rank == pytest.approx(7)
    zero = spectral_metrics(np.zeros(4), (4, 9))
    assert (zero.spectral_norm, zero.rank) == (0, 0)
    assert np.isnan(zero.stable_rank)
    assert spectral_metrics(np.array([2.0, 0.0]), (2, 2)).condition == np.inf
    assert np.isnan(entropy(np.array([3.0, 0.0])))


def plain_fit(values: np.ndarray) -> tuple[float, float, float]:
    """Alpha, distance and xmin by a loop over candidates."""
    x = np.sort(values)
    best = (np.nan, np.inf, np.nan)
    for i in range(x.size - 1):
        tail, n = x[i:], x.size - i
        alpha = 1 + n / np.log(tail / x[i]).sum()
        distance = np.abs(1 - (tail / x[i]) ** (1 - alpha) - np.arange(n) / n).max()
        if distance < best[1]:
            best = (alpha, distance, x[i])
    return best


@pytest.mark.parametrize("size", [2, 3, 61, 700, 3001])
def test_the_power_law_is_the_best_of_all_candidates(size: int) -> None:
    values = np.random.default_rng(size).lognormal(0, 1.5, size)
    found = power_law(values)
    assert (found.alpha, found.distance, found.xmin) == pytest.approx(plain_fit(values), rel=1e-9)
    assert found.tail == (values >= found.xmin).sum()
    assert found.xmax == values.max()
    assert found.sigma == pytest.approx((found.alpha - 1) / np.sqrt(found.tail))


def test_what_has_no_power_law() -> None:
    for values in ([], [1.0], [2.0, 2.0, 2.0], [0.0, -1.0, np.nan, np.inf], [0.0, 3.0]):
        assert str(power_law(np.array(values))) == str(NO_LAW)


def test_ties_are_one_candidate() -> None:
    values = np.repeat(np.random.default_rng(0).pareto(2, 50) + 1, 3)
    assert power_law(values).tail % 3 == 0


@pytest.mark.parametrize("alpha", [2.0, 3.5])
def test_two_sigma_cover_the_truth(alpha: float) -> None:
    """Of Pareto samples with xmin given, over 200 seeds, in 90 to 99 of a hundred."""
    covered = 0
    for seed in range(200):
        values = 3 * (1 + np.random.default_rng(seed).pareto(alpha - 1, 400))
        found = power_law(values, xmin=3.0)
        covered += abs(found.alpha - alpha) <= 2 * found.sigma
    assert 180 <= covered <= 198


def eigenvalues_of(x: np.ndarray) -> np.ndarray:
    """Squared singular values, least first."""
    return np.linalg.eigvalsh(x.T @ x if x.shape[0] >= x.shape[1] else x @ x.T)


@pytest.mark.parametrize("shape", [(800, 200), (400, 400), (200, 1000)], ids=str)
def test_noise_is_a_bulk_without_spikes(shape: tuple[int, int]) -> None:
    x = 0.02 * np.random.default_rng(5).standard_normal(shape)
    eigenvalues = eigenvalues_of(x)
    found = marchenko_pastur(eigenvalues, shape)
    assert found.sigma == pytest.approx(0.02, rel=0.01)
    assert found.spikes == 0
    assert found.soft_rank == pytest.approx(1, abs=0.03)
    assert eigenvalues.max() == pytest.approx(found.high, rel=0.03)


def test_planted_spikes_are_counted() -> None:
    rng = np.random.default_rng(6)
    x = rng.standard_normal((450, 200))
    for strength in (80, 100, 140):
        x += strength * np.outer(*(v / np.linalg.norm(v) for v in (rng.standard_normal(450), rng.standard_normal(200))))
    found = marchenko_pastur(eigenvalues_of(x), x.shape)
    assert found.spikes == 3
    assert found.sigma == pytest.approx(1, rel=0.02)


def test_the_density_is_one_and_that_of_noise() -> None:
    shape, sigma = (600, 200), 0.5
    high = (sigma * (np.sqrt(600) + np.sqrt(200))) ** 2
    grid = np.linspace(0, 1.1 * high, 40_001)
    law = density(grid, sigma, shape)
    assert np.trapezoid(law, grid) == pytest.approx(1, abs=1e-3)
    eigenvalues = eigenvalues_of(sigma * np.random.default_rng(7).standard_normal(shape))
    share = np.trapezoid(law[grid <= high / 3], grid[grid <= high / 3])
    assert (eigenvalues <= high / 3).mean() == pytest.approx(share, abs=0.02)
    assert density(np.array([0.0, 2 * high]), sigma, shape).tolist() == [0, 0]


def test_a_zero_matrix_has_no_bulk() -> None:
    found = marchenko_pastur(np.zeros(5), (5, 9))
    assert np.isnan(found.sigma)
    assert found.spikes == 0


def test_the_distance_of_spectra() -> None:
    rng = np.random.default_rng(8)
    a = rng.uniform(1, 2, 400)
    assert spectral_distance(a, a) == 0
    assert spectral_distance(a, a / 3) == pytest.approx(1)
    assert spectral_distance(7 * a, 35 * rng.uniform(1, 2, 400)) == pytest.approx(1)
    assert 0 < spectral_distance(a, a + 0.2) < 1
    assert np.isnan(spectral_distance(np.zeros(3), np.zeros(3)))
    assert np.isnan(spectral_distance(a, a[:0]))
