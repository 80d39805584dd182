"""Neighbours against a float64 brute force, and the memory that they take."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import ml_dtypes
import numpy as np
import pytest

from weighbridge_kernels import neighbours, neighbours_host
from weighbridge_kernels.similar_pairs import NO_ROW, Neighbours

FORMS = {"host": neighbours_host, "jax": neighbours}


@pytest.fixture(params=FORMS.values(), ids=list(FORMS))
def form(request: pytest.FixtureRequest) -> SimpleNamespace:
    return request.param


def scores(queries: np.ndarray, keys: np.ndarray, metric: str, first: int | None) -> np.ndarray:
    """Cosines, or distances below 0, in float64; NaN for pairs that do not exist."""
    q, k = (x.astype(np.float64) for x in (queries, keys))
    q[~np.isfinite(q).all(axis=1)], k[~np.isfinite(k).all(axis=1)] = np.nan, np.nan
    if metric == "euclidean":
        s = -np.linalg.norm(q[:, None] - k[None], axis=2)
    else:
        norms = [np.linalg.norm(x, axis=1, keepdims=True) for x in (q, k)]
        q, k = (x / np.where(norm > 0, norm, np.nan) for x, norm in zip((q, k), norms, strict=True))
        s = np.clip(q @ k.T, -1, 1)
    if first is not None:
        s[np.arange(len(q)), first + np.arange(len(q))] = np.nan
    return s


def assert_nearest(got: Neighbours, s: np.ndarray, sign: int, close: float) -> None:
    assert got.indices.dtype == np.int32
    assert got.values.dtype == np.float32
    for i, row in enumerate(np.where(np.isnan(s), -np.inf, s)):
        there = min(int((row > -np.inf).sum()), got.indices.shape[1])
        found = got.indices[i, :there]
        assert (got.indices[i, there:] == NO_ROW).all()
        assert np.isnan(got.values[i, there:]).all()
        assert len(set(found.tolist())) == there
        np.testing.assert_allclose(row[found], np.sort(row)[::-1][:there], atol=close, rtol=0)
        np.testing.assert_allclose(sign * got.values[i, :there], row[found], atol=close, rtol=1e-6)


def matrix(rows: int, cols: int, seed: int = 0) -> np.ndarray:
    x = np.random.default_rng(seed).standard_normal((rows, cols)).astype(np.float32)
    if rows > 20:
        x[3], x[11], x[5, 0], x[19] = 0, x[2], np.nan, -x[2]
    return x


def within(keys: np.ndarray, metric: str) -> float:
    """How far apart two values may be that change places: for distances, by the greatest squared norm."""
    if metric == "cosine" or len(keys) == 0:
        return 4e-6
    y = keys[np.isfinite(keys).all(axis=1)].astype(np.float64)
    return 4e-6 * float(np.square(y - y.mean(axis=0)).sum(axis=1).max()) + 1e-6


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("block", [7, 64, 512])
def test_rows_among_themselves(form: SimpleNamespace, block: int, metric: str) -> None:
    x = matrix(151, 29)
    got = form.neighbours(x, x, count=6, metric=metric, first=0, block=block)
    assert_nearest(got, scores(x, x, metric, 0), 1 if metric == "cosine" else -1, within(x, metric))


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("first", [None, 31])
def test_queries_among_keys(form: SimpleNamespace, first: int | None, metric: str) -> None:
    keys = matrix(113, 17)
    queries = matrix(23, 17, seed=1) if first is None else keys[first : first + 23]
    got = form.neighbours(queries, keys, count=4, metric=metric, first=first, block=19)
    sign = 1 if metric == "cosine" else -1
    assert_nearest(got, scores(queries, keys, metric, first), sign, within(keys, metric))


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("sizes", [(0, 0), (0, 3), (3, 0), (1, 1), (2, 5), (3, 4)], ids=str)
def test_few_rows(form: SimpleNamespace, sizes: tuple[int, int], metric: str) -> None:
    queries, keys = matrix(sizes[0], 3), matrix(sizes[1], 3, seed=4)
    got = form.neighbours(queries, keys, count=9, metric=metric, block=4)
    assert got.indices.shape == (sizes[0], 9)
    assert_nearest(got, scores(queries, keys, metric, None), 1 if metric == "cosine" else -1, within(keys, metric))


def test_copies_far_from_the_origin_are_at_distance_zero(form: SimpleNamespace) -> None:
    x = 100 + matrix(53, 7, seed=2)
    x = x[np.isfinite(x).all(axis=1)]
    got = form.neighbours(np.repeat(x, 2, axis=0), x, count=1, metric="euclidean", block=16)
    assert (got.indices[:, 0] == np.repeat([0, 1, 2, *range(3, len(x))], 2)).sum() >= 2 * len(x) - 2
    assert not got.values.any()


def test_ties_by_lower_index(form: SimpleNamespace) -> None:
    x = np.ones((40, 3), np.float32)
    for metric in ("cosine", "euclidean"):
        got = form.neighbours(x, x, count=3, metric=metric, first=0, block=16)
        assert got.indices[:5].tolist() == [[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2], [0, 1, 2]]


def test_bfloat16(form: SimpleNamespace) -> None:
    x = matrix(89, 31)[6:].astype(ml_dtypes.bfloat16)
    assert_nearest(form.neighbours(x, x, count=5, first=0, block=20), scores(x, x, "cosine", 0), 1, 4e-6)


def peak(rows: int, cols: int, queries: int, dtype: str) -> float:
    """Peak resident memory, in GiB, of a process that makes a matrix and looks for neighbours in it.

    Not by `getrusage`, whose peak a child inherits from the process that started it.
    """
    program = f"""
import numpy as np, ml_dtypes
from weighbridge_kernels.neighbours_host import neighbours
rng, x = np.random.default_rng(0), np.empty(({rows}, {cols}), "{dtype}")
for start in range(0, {rows}, 4096):
    x[start : start + 4096] = rng.standard_normal(x[start : start + 4096].shape, np.float32)
found = neighbours(x[:{queries}], x, count=15, first=0)
assert (found.indices >= 0).all()
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return float(run.stdout) / 2**20


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux")
def test_memory_beyond_the_matrix_is_blocks() -> None:
    """Of 24 MiB of float32; a matrix of all pairs would take 1.1 GiB more, the libraries some 0.2."""
    assert peak(17_000, 380, 17_000, "bfloat16") < 0.5


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_memory_of_a_large_vocabulary(dtype: str) -> None:
    assert peak(128_256, 1024, 8192, dtype) < 2
