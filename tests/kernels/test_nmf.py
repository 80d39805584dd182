"""Non-negative factors against scikit-learn's from the same start, and what the factors promise, in both forms."""

from functools import cache
from types import ModuleType

import ml_dtypes
import numpy as np
import pytest

from weighbridge_kernels import nmf, nonnegative_factors

nmf_host = pytest.importorskip("weighbridge_kernels.nmf_host")


@pytest.fixture(params=[nmf_host, nmf], ids=["host", "jax"])
def form(request: pytest.FixtureRequest) -> ModuleType:
    return request.param


def low_rank(shape: tuple[int, int], rank: int, noise: float = 0.0, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    x = rng.exponential(size=(shape[0], rank)) @ rng.exponential(size=(rank, shape[1]))
    return np.maximum(x + noise * rng.standard_normal(shape), 0).astype(np.float32)


@cache
def cases() -> dict[str, np.ndarray]:
    datasets = pytest.importorskip("sklearn.datasets")
    signed = np.random.default_rng(1).standard_normal((301, 41)).astype(np.float32)
    return {
        "low rank and noise": low_rank((307, 61), 6, noise=0.5),
        "wide": low_rank((61, 307), 6, noise=0.5),
        "digits": datasets.load_digits().data.astype(np.float32),
        "signed parts": np.concatenate([np.maximum(signed, 0), np.maximum(-signed, 0)]),
    }


@pytest.mark.filterwarnings("ignore:Maximum number of iterations")
@pytest.mark.parametrize("count", [1, 7])
@pytest.mark.parametrize("case", ["low rank and noise", "wide", "digits", "signed parts"])
def test_the_loss_is_that_of_scikit_learn(form: ModuleType, case: str, count: int) -> None:
    decomposition = pytest.importorskip("sklearn.decomposition")
    x = cases()[case]
    peer = decomposition.NMF(count, solver="cd", init="nndsvd", max_iter=60, tol=0, random_state=0)
    loss = np.linalg.norm(x - peer.fit_transform(x) @ peer.components_)
    found = form.nmf(x, count, iterations=60, tolerance=0)
    assert found.error <= 1.01 * loss
    assert found.iterations <= 60


@pytest.mark.filterwarnings("ignore:Maximum number of iterations")
def test_the_loss_on_real_weights_is_that_of_scikit_learn(form: ModuleType) -> None:
    decomposition = pytest.importorskip("sklearn.decomposition")
    demo = pytest.importorskip("weighbridge.demo")
    load_file = pytest.importorskip("safetensors.numpy").load_file
    weights = load_file(demo.locate("digits"))
    w = max((x for x in weights.values() if x.ndim == 2), key=lambda x: x.size)
    peer = decomposition.NMF(6, solver="cd", init="nndsvd", max_iter=60, tol=0, random_state=0)
    stacked = np.concatenate([np.maximum(w, 0), np.maximum(-w, 0)])
    left = peer.fit_transform(stacked)
    signed = (left[: len(w)] - left[len(w) :]) @ peer.components_
    found = form.one_sided_nmf(w, 6, iterations=60, tolerance=0)
    assert form.nmf(stacked, 6, iterations=60, tolerance=0).error <= 1.01 * np.linalg.norm(
        stacked - left @ peer.components_
    )
    assert found.error <= 1.01 * np.linalg.norm(w - signed)


def test_the_forms_take_the_same_steps() -> None:
    x = cases()["low rank and noise"].astype(np.float64)
    host, device = (form.nmf(x, 5, iterations=7, tolerance=0) for form in (nmf_host, nmf))
    np.testing.assert_allclose(host.w, device.w, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(host.h, device.h, rtol=1e-9, atol=1e-9)
    assert host.w.dtype == device.w.dtype == np.float64


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, ml_dtypes.bfloat16], ids=str)
def test_the_figures_are_those_of_the_factors(form: ModuleType, dtype: type) -> None:
    x = low_rank((53, 31), 4, noise=0.3).astype(dtype)
    found = form.nmf(x, 4)
    assert found.w.dtype == (np.float64 if dtype is np.float64 else np.float32)
    assert found.w.shape == (53, 4)
    assert found.h.shape == (4, 31)
    assert found.w.min() >= 0
    assert found.h.min() >= 0
    left = x.astype(np.float64) - found.w.astype(np.float64) @ found.h.astype(np.float64)
    assert found.error == pytest.approx(np.linalg.norm(left), rel=1e-9)
    share = 1 - (np.linalg.norm(left) / np.linalg.norm(x.astype(np.float64))) ** 2
    assert found.explained_share == pytest.approx(share, rel=1e-9)


def test_a_product_is_found_again(form: ModuleType) -> None:
    assert form.nmf(low_rank((43, 29), 1), 1).explained_share > 1 - 1e-9
    blocks = np.kron(np.diag([1.0, 2.0, 3.0]), np.ones((7, 5))).astype(np.float32)
    assert form.nmf(blocks, 3).explained_share > 1 - 1e-9


@pytest.mark.filterwarnings("ignore:Maximum number of iterations")
@pytest.mark.parametrize("tolerance", [0.1, 1e-3])
def test_sweeps_end_where_those_of_scikit_learn_do(form: ModuleType, tolerance: float) -> None:
    decomposition = pytest.importorskip("sklearn.decomposition")
    x = cases()["low rank and noise"].astype(np.float64)
    peer = decomposition.NMF(6, solver="cd", init="nndsvd", max_iter=200, tol=tolerance, random_state=0).fit(x)
    assert abs(form.nmf(x, 6, tolerance=tolerance).iterations - peer.n_iter_) <= 1
    assert form.nmf(x, 6, tolerance=0, iterations=11).iterations == 11


def test_scale_changes_nothing_but_scale(form: ModuleType) -> None:
    x = low_rank((37, 23), 3, noise=0.2).astype(np.float64)
    one, small = form.nmf(x, 3, iterations=9), form.nmf(2.0**-60 * x, 3, iterations=9)
    np.testing.assert_allclose(small.w @ small.h, 2.0**-60 * (one.w @ one.h), rtol=1e-9)


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1), (2, 2), (13, 5)], ids=str)
def test_small_and_zero_matrices(form: ModuleType, shape: tuple[int, int]) -> None:
    count = min(shape)
    zero = form.nmf(np.zeros(shape, np.float32), count)
    assert (zero.error, zero.iterations) == (0, 1)
    assert np.isnan(zero.explained_share)
    assert not zero.w.any()
    assert not zero.h.any()
    ones = form.nmf(np.ones(shape, np.float32), count)
    assert ones.explained_share == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("axis", [0, 1])
def test_one_side_is_non_negative_and_the_other_signed(form: ModuleType, axis: int) -> None:
    rng = np.random.default_rng(2)
    spatial, channels = rng.standard_normal((61, 3)), rng.exponential(size=(3, 17))
    channels[rng.random(channels.shape) < 0.6] = 0
    x = (spatial @ channels).astype(np.float32)
    given = x.T if axis == 0 else x
    found = form.one_sided_nmf(given, 3, axis=axis)
    assert found.spatial.shape == (61, 3)
    assert found.channels.shape == (3, 17)
    assert found.channels.min() >= 0
    assert found.spatial.min() < 0
    left = x.astype(np.float64) - found.spatial.astype(np.float64) @ found.channels.astype(np.float64)
    assert found.error == pytest.approx(np.linalg.norm(left), rel=1e-6)
    assert found.explained_share == pytest.approx(1 - (np.linalg.norm(left) / np.linalg.norm(x)) ** 2, rel=1e-6)
    assert found.explained_share > 0.8
    both = form.nmf(np.concatenate([np.maximum(x, 0), np.maximum(-x, 0)]), 3)
    np.testing.assert_allclose(found.channels, both.h, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (-0.5, r"entry \(3, 1\) is -0.5, and 0 others are negative"),
        (np.nan, r"entry \(3, 1\) is nan"),
        (np.inf, "is inf"),
    ],
    ids=str,
)
def test_entries_that_have_no_factors(form: ModuleType, entry: float, message: str) -> None:
    x = np.ones((5, 4), np.float32)
    x[3, 1] = entry
    with pytest.raises(ValueError, match=message):
        form.nmf(x, 2)
    if entry < 0:
        assert form.one_sided_nmf(x, 2).error >= 0
    else:
        with pytest.raises(ValueError, match=message):
            form.one_sided_nmf(x, 2)


@pytest.mark.parametrize("count", [0, 4])
def test_more_factors_than_there_are(form: ModuleType, count: int) -> None:
    with pytest.raises(ValueError, match=rf"nmf: {count} factors of a matrix of 5 × 3; expected 1 to 3"):
        form.nmf(np.ones((5, 3), np.float32), count)
    with pytest.raises(ValueError, match=rf"nmf: {count} factors of a matrix of 10 × 3"):
        form.one_sided_nmf(np.ones((5, 3), np.float32), count)
    with pytest.raises(ValueError, match="expected 1 to 0"):
        form.nmf(np.ones((0, 3), np.float32), 1)


def test_beyond_a_side_the_start_is_the_same(form: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    x = low_rank((83, 47), 3, noise=0.1)
    whole = form.nmf(x, 3)
    monkeypatch.setattr(nonnegative_factors, "EXACT_UP_TO", 20)
    assert form.nmf(x, 3, key=1).error == pytest.approx(whole.error, rel=1e-6)
