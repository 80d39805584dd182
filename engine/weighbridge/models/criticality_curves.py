"""Ablation: how loss and accuracy fare as the weights of the highest scores are removed, or as many at random."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from weighbridge.errors import BadArgument
from weighbridge.models.criticality_data import Chunk, Dataset, DatasetEnded, device_arrays
from weighbridge.models.criticality_moments import FloatArray, Moments, empty, merge, summarize
from weighbridge.models.criticality_passes import Subject, ablated, fitted, shaped
from weighbridge.models.saliency_calls import abstract

RANDOM = "random"
_AT_ONCE = 512
"""Examples at a time, at most."""


@dataclass(frozen=True, eq=False)
class AblationCurve:
    """One order of removal: `loss`, its standard error over examples and `accuracy` at each share of the weights.

    `draw` numbers the orders of the score "random", and is 0 for others. Areas are means over the shares' range, by
    trapezoids: of the loss above that of the whole network, and of the accuracy.
    """

    score: str
    draw: int
    shares: FloatArray
    loss: FloatArray
    loss_error: FloatArray
    accuracy: FloatArray

    @property
    def loss_area(self) -> float:
        return _area(self.shares, self.loss - self.loss[0])

    @property
    def accuracy_area(self) -> float:
        return _area(self.shares, self.accuracy)


def _area(x: FloatArray, y: FloatArray) -> float:
    extent = x[-1] - x[0]
    return float(np.trapezoid(y, x) / extent) if extent > 0 else float(y[0])


def checked_shares(shares: Sequence[float]) -> FloatArray:
    """Shares in ascending order, 0 first. Raises `BadArgument`."""
    found = np.unique(np.concatenate([[0.0], np.asarray(shares, np.float64).reshape(-1)]))
    if not (found >= 0).all() or not (found <= 1).all():
        raise BadArgument(f"shares are {list(shares)}; expected parts of the weights, 0 to 1")
    return found


def ablation_curves(
    subject: Subject,
    dataset: Dataset,
    scores: Mapping[str, FloatArray],
    shares: FloatArray,
    *,
    draws: int,
    seed: int,
    told: Callable[[str, int, int], None],
) -> list[AblationCurve]:
    """Curves of each score, of the highest first, and of `draws` random orders of all weights; ties in their order.

    Examples whose loss is not finite with the whole network are left out. Raises `DatasetEnded` where the data set
    breaks off, with the curves of the examples before it as `partial`.
    """
    ranks = {name: _ranks(values) for name, values in scores.items()}
    orders = [*((name, 0) for name in scores), *((RANDOM, draw) for draw in range(draws))]
    firsts = np.rint(shares * subject.count).astype(np.int32)

    def arguments(n: int) -> tuple[Any, ...]:
        return *shaped(dataset.one, n), abstract((subject.count,), np.int32), abstract((), np.int32)

    def program(*of: Any) -> Any:
        return ablated(subject, *of)

    run = fitted(subject, program, arguments, _AT_ONCE, "one example of an ablated network")
    states = {(*order, i): empty((2,)) for order in orders for i in range(len(shares))}

    def pairs(chunk: Chunk, arrays: tuple[Any, Any], order: Any, first: int) -> FloatArray:
        """Loss and correctness of each example without the weights before `first`, (examples, 2)."""
        found = run.run(*arrays, order, np.int32(first))
        return np.stack([np.asarray(of, np.float64)[: chunk.count] for of in found], axis=1)

    def curves() -> list[AblationCurve]:
        return [_curve(*order, shares, [states[*order, i] for i in range(len(shares))]) for order in orders]

    seen = 0
    try:
        for chunk in dataset.chunks(run.size):
            arrays = device_arrays(chunk)
            whole = pairs(chunk, arrays, jnp.zeros(subject.count, jnp.int32), 0)
            kept = np.isfinite(whole[:, 0])
            for name, draw in orders:
                order = jnp.asarray(ranks[name] if name in ranks else _drawn(subject.count, seed, draw))
                for i, first in enumerate(firsts):
                    now = (pairs(chunk, arrays, order, first) if first else whole)[kept]
                    if len(now):
                        states[name, draw, i] = merge(states[name, draw, i], summarize(now))
            seen += chunk.count
            told("ablating", seen, 0)
    except DatasetEnded as error:
        error.partial = curves() if seen else []
        raise
    return curves()


def _curve(name: str, draw: int, shares: FloatArray, states: Sequence[Moments]) -> AblationCurve:
    means, errors = np.stack([s.value for s in states]), np.stack([s.error for s in states])
    return AblationCurve(name, draw, shares, means[:, 0], errors[:, 0], means[:, 1])


def _ranks(values: FloatArray) -> npt.NDArray[np.int32]:
    """The place of each weight, the highest value's 0; NaN comes last."""
    order = np.argsort(-np.nan_to_num(values, nan=-np.inf), kind="stable")
    ranks = np.empty(len(values), np.int32)
    ranks[order] = np.arange(len(values), dtype=np.int32)
    return ranks


def _drawn(count: int, seed: int, draw: int) -> npt.NDArray[np.int32]:
    return np.random.default_rng((seed, draw)).permutation(count).astype(np.int32)
