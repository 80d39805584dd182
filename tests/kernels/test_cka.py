"""Debiased CKA against its definition, its invariances, and what random matrices give."""

import numpy as np
import pytest

from weighbridge_kernels.cka import cka_null, debiased_cka


def hsic(k: np.ndarray, l_: np.ndarray) -> float:
    """HSIC_1 of Song et al. 2012, equation 5."""
    n = len(k)
    k, l_ = (x - np.diag(np.diag(x)) for x in (k, l_))
    ones = np.ones(n)
    total = np.trace(k @ l_) + (ones @ k @ ones) * (ones @ l_ @ ones) / ((n - 1) * (n - 2))
    return (total - 2 * (ones @ k @ l_ @ ones) / (n - 2)) / (n * (n - 3))


def definition(matrices: list[np.ndarray]) -> np.ndarray:
    grams = [x.astype(np.float64) @ x.T.astype(np.float64) for x in matrices]
    table = np.array([[hsic(k, l_) for l_ in grams] for k in grams])
    return table / np.sqrt(np.outer(np.diag(table), np.diag(table)))


def related(d: int, seed: int = 0) -> list[np.ndarray]:
    """Matrices of several widths that share some directions, off the origin, one in float32."""
    rng = np.random.default_rng(seed)
    shared = rng.standard_normal((d, 3))
    widths = (1, 5, 41, 97)
    made = [shared @ rng.standard_normal((3, p)) + rng.standard_normal((d, p)) + 0.5 for p in widths]
    return [made[0], made[1].astype(np.float32), *made[2:]]


@pytest.mark.parametrize("strip_bytes", [1, 20_000, 1 << 28])
@pytest.mark.parametrize("d", [4, 5, 31, 103])
def test_the_definition(d: int, strip_bytes: int) -> None:
    matrices = related(d)
    np.testing.assert_allclose(
        debiased_cka(matrices, strip_bytes=strip_bytes), definition(matrices), rtol=0, atol=1e-10
    )


def test_turns_and_scales_change_nothing() -> None:
    x, y = related(61)[2:]
    turn = np.linalg.qr(np.random.default_rng(1).standard_normal((41, 41)))[0]
    found = debiased_cka([x, 1e-200 * x @ turn, 1e150 * x + 3e150, y])
    np.testing.assert_allclose(found[:3, :3], 1, atol=1e-9)
    np.testing.assert_allclose(found[3, :3], found[3, 0], atol=1e-9)


def test_what_has_no_cka() -> None:
    turn = np.linalg.qr(np.random.default_rng(2).standard_normal((9, 9)))[0]
    broken = np.full((9, 2), np.nan)
    found = debiased_cka([np.eye(9), turn, np.zeros((9, 3)), np.ones((9, 3)), broken, related(9)[2]])
    assert np.isnan(found[:5]).all()
    assert found[5, 5] == pytest.approx(1)
    assert np.isnan(debiased_cka(related(3))).all()
    assert debiased_cka([]).shape == (0, 0)
    with pytest.raises(ValueError, match="one number of rows"):
        debiased_cka([np.ones((5, 2)), np.ones((6, 2))])


def test_the_null_level() -> None:
    """Unrelated matrices lie within it, related ones do not; it is about 0 where plain CKA is about 0.9."""
    rng = np.random.default_rng(3)
    unrelated = [rng.standard_normal((53, 400)) * rng.lognormal(0, 0.5, (53, 1)) for _ in range(3)]
    off = ~np.eye(3, dtype=bool)
    null = cka_null(unrelated, key=5, draws=20)
    z = np.abs(debiased_cka(unrelated) - null.mean)[off] / null.std[off]
    assert z.max() < 4
    assert np.abs(null.mean[off]).max() < 0.05
    matrices = related(53)[1:]
    null = cka_null(matrices, key=5, draws=20)
    assert ((debiased_cka(matrices) - null.mean)[off] / null.std[off]).min() > 5
    again = cka_null(matrices, key=5, draws=20)
    assert (again.mean == null.mean).all()
    assert np.isnan(cka_null(matrices, key=5, draws=1).std).all()
