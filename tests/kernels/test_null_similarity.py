"""The law of random cosines against simulation and against plain integrals."""

import numpy as np
import pytest

from weighbridge_kernels.correlation_host import correlations
from weighbridge_kernels.null_similarity import NullSimilarity
from weighbridge_kernels.similar_pairs import EDGES


@pytest.mark.parametrize("kind", ["cosine", "pearson"])
@pytest.mark.parametrize("cols", [4, 17, 400])
def test_expected_counts_are_those_of_noise(cols: int, kind: str) -> None:
    """By Kolmogorov's distance of 180,000 pairs, of which 600 rows are independent; chi-square would need more."""
    norms = np.random.default_rng(1).lognormal(0, 1, (600, 1))
    x = norms * np.random.default_rng(cols).standard_normal((600, cols))
    found = correlations(x, kind=kind, count=1).distribution
    expected = NullSimilarity(cols, kind).expected_counts(found.pairs)
    assert expected.sum() == pytest.approx(found.pairs, rel=1e-12)
    assert np.abs(np.cumsum(found.counts - expected)).max() < 0.005 * found.pairs
    assert found.counts[expected < 1e-6].sum() == 0


@pytest.mark.parametrize("cols", [2, 3, 7, 768, 100_000])
def test_density_cdf_and_quantiles_agree(cols: int) -> None:
    law = NullSimilarity(cols)
    q = np.array([1e-3, 0.1, 0.5, 0.975])
    np.testing.assert_allclose(law.cdf(law.quantile(q)), q, rtol=1e-8)
    grid = np.linspace(*law.quantile([0.3, 0.8]), 20_001)
    assert np.trapezoid(law.density(grid), grid) == pytest.approx(0.5, rel=1e-6)
    assert law.std == pytest.approx(cols**-0.5)


def test_three_dimensions_are_uniform() -> None:
    """Archimedes: on the sphere every cosine is as likely."""
    law = NullSimilarity(3)
    s = np.linspace(-0.99, 0.99, 11)
    np.testing.assert_allclose(law.density(s), 0.5, rtol=1e-12)
    np.testing.assert_allclose(law.expected_counts(1000), 500 * np.diff(EDGES), rtol=1e-9)
    assert law.density([-1.5, 1.5]).tolist() == [0, 0]


@pytest.mark.parametrize(("cols", "rows"), [(5, 30), (64, 100), (300, 41)])
def test_the_expected_greatest(cols: int, rows: int) -> None:
    """Within five standard errors of the mean over 400 draws, and 1 % of it."""
    rng = np.random.default_rng(cols)
    greatest = []
    for _ in range(400):
        x = rng.standard_normal((rows, cols))
        x /= np.linalg.norm(x, axis=1, keepdims=True)
        greatest.append(np.abs((x @ x.T)[np.triu_indices(rows, 1)]).max())
    error = np.std(greatest) / 20
    found = NullSimilarity(cols).expected_greatest(rows * (rows - 1) // 2)
    assert abs(found - np.mean(greatest)) < 5 * error + 0.01 * found


def test_greatest_of_none_one_and_many() -> None:
    assert np.isnan(NullSimilarity(9).expected_greatest(0))
    assert NullSimilarity(3).expected_greatest(1) == pytest.approx(0.5, rel=1e-4)
    assert NullSimilarity(3).expected_greatest(9) == pytest.approx(0.9, rel=1e-4)
    assert NullSimilarity(1024).expected_greatest(8 * 10**9) == pytest.approx(0.2, abs=0.02)


def test_one_dimension_has_no_density() -> None:
    for cols, kind in ((1, "cosine"), (2, "pearson")):
        with pytest.raises(ValueError, match="expected at least"):
            NullSimilarity(cols, kind)
