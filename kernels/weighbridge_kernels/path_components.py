"""Principal components of a path of few points in very many dimensions, by the points' inner products. NumPy alone."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Path:
    """Where each point lies along each component [n, c], and the share of the variance that each explains [c]."""

    scores: FloatArray
    explained: FloatArray


def path_components(products: FloatArray, *, count: int) -> Path:
    """Scores of n points and the shares of variance of their `count` leading principal components.

    `products` [n, n] are the inner products of the points about any common origin, such as the first of them.
    Equivalent to `PCA(count).fit_transform(points)`, up to each component's sign: here that of the last point is
    positive, or that of the latest point whose score is not zero. Float64; relative accuracy of a component some
    2^-26 of the greatest, for products are squares. Shares are NaN where all points are one; NaN stays NaN.

    Source: Gower 1966, "Some distance properties of latent root and vector methods", doi:10.1093/biomet/53.3-4.325.
    """
    centred = products - products.mean(axis=0)
    centred = centred - centred.mean(axis=1, keepdims=True)
    if not np.isfinite(centred).all():
        count = min(count, len(products))
        return Path(np.full((len(products), count), np.nan), np.full(count, np.nan))
    values, vectors = np.linalg.eigh((centred + centred.T) / 2)
    values, vectors = np.maximum(values[::-1], 0), vectors[:, ::-1]
    scores = (vectors * np.sqrt(values))[:, :count]
    with np.errstate(invalid="ignore", divide="ignore"):
        explained = (values / values.sum())[:count]
    return Path(scores * _signs(scores), explained)


def _signs(scores: FloatArray) -> FloatArray:
    clear = np.abs(scores) > 1e-9 * np.abs(scores).max(axis=0, initial=0)
    last = len(scores) - 1 - clear[::-1].argmax(axis=0)
    signs: FloatArray = np.where(scores[last, np.arange(scores.shape[1])] < 0, -1.0, 1.0)
    return signs
