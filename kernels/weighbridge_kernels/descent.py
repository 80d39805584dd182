"""Gradient descent as t-SNE runs it: the start, the stages, the answer. What every form of `tsne` shares.

The gradient, without the factor 4 that the learning rate absorbs, is

    F_i = exaggeration * sum_j p_ij q_ij (y_i - y_j) - sum_j q_ij^2 (y_i - y_j) / Z

with q_ij = 1 / (1 + |y_i - y_j|^2) and Z the sum of q over all pairs. A coordinate's gain grows by 0.2 where its last
move and its gradient differ in sign, else it becomes 0.8 of itself and 0.01; the move is momentum * move -
learning_rate * gain * F, at most 5 long, and the mean is moved back to 0.

Source: van der Maaten and Hinton 2008, JMLR 9, 2579-2605; the learning rate n / exaggeration: Belkina et al. 2019,
doi:10.1038/s41467-019-13055-y; the bounds on gains and moves as in openTSNE 1.0.4. NumPy alone.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from weighbridge_kernels.affinities import Graph
from weighbridge_kernels.kl_divergence import kl_with_normaliser

Float32Array = npt.NDArray[np.float32]
Progress = Callable[[int, int], None]
Repulsion = Literal["auto", "exact", "grid"]
State = TypeVar("State")

GAIN_STEP, GAIN_DECAY, LEAST_GAIN, LONGEST_MOVE = 0.2, 0.8, 0.01, 5.0
LEAST_NORMALISER = 1e-30
"""Z where all points are alone, so that nothing is divided by 0."""
EXACT_UP_TO = 4000
"""Points up to which all pairs are looked at: on two cores as fast as the grid, and without its error."""
_CHUNK = 50
"""Iterations between two calls of `progress`."""
_START_STD, _JITTER_STD = 1e-4, 1e-6
_FARTHEST = 1e5
"""Of a start from its mean, so that no square or sum leaves float32."""


@dataclass(frozen=True, slots=True)
class Embedding:
    """Where t-SNE put n points.

    `points` is float32 [n, 2] with mean 0. `kl` is KL(P || Q) of the given graph in nats, not exaggerated, with Z
    summed over all pairs if `repulsion` is `exact`, read off the interpolation grid if `grid`. `perplexity` is the
    graph's; `iterations` were done in all.
    """

    points: Float32Array
    kl: float
    perplexity: float
    repulsion: Literal["exact", "grid"]
    iterations: int


@dataclass(frozen=True, slots=True)
class Stage:
    """At most 50 iterations under one set of rates, of which the last is the `done`-th."""

    steps: int
    done: int
    exaggeration: float
    learning_rate: float
    momentum: float


@dataclass(frozen=True, slots=True)
class Schedule:
    """Two phases: so many iterations each, P exaggerated in the first, a momentum for each.

    The learning rate is n / exaggeration in the first and n in the second. Raises `ValueError` for negative iterations,
    an exaggeration below 1 or a momentum outside [0, 1).
    """

    iterations: tuple[int, int] = (250, 500)
    exaggeration: float = 12.0
    momentum: tuple[float, float] = (0.5, 0.8)

    def __post_init__(self) -> None:
        rates_hold = 1 <= self.exaggeration < np.inf and all(0 <= each < 1 for each in self.momentum)
        if not (rates_hold and min(self.iterations) >= 0):
            raise ValueError(
                f"tsne: {self}; expected iterations >= 0, exaggeration >= 1 and 0 <= momentum < 1; the defaults suit "
                "most data"
            )

    @property
    def total(self) -> int:
        return sum(self.iterations)

    def stages(self, n: int) -> Iterator[Stage]:
        done = 0
        for steps, exaggeration, momentum in zip(self.iterations, (self.exaggeration, 1.0), self.momentum, strict=True):
            for start in range(0, steps, _CHUNK):
                chunk = min(_CHUNK, steps - start)
                done += chunk
                yield Stage(chunk, done, exaggeration, n / exaggeration, momentum)


def scaled_start(scores: npt.NDArray[np.floating[Any]], key: int) -> Float32Array:
    """The first two principal scores, scaled so that the first has standard deviation 1e-4, as in openTSNE.

    [n, 1 or more] in, float32 [n, 2] out. Normal jitter of standard deviation 1e-6, drawn by `key`, parts equal rows;
    scores that are all equal, or missing, are jitter alone. Raises `ValueError` for scores that are not finite.
    """
    start = np.zeros((len(scores), 2))
    start[:, : scores.shape[1]] = scores[:, :2]
    _check_finite("scores", start)
    spread = float(start[:, 0].std()) if len(start) else 0.0
    scaled = start * (_START_STD / spread) if spread > 0 else np.zeros_like(start)
    jitter = np.random.default_rng(key).normal(0, _JITTER_STD, start.shape)
    return (scaled + jitter).astype(np.float32)


def coordinates(graph: Graph, start: npt.NDArray[np.floating[Any]]) -> Float32Array:
    """The start about its mean, as float32 [2, n].

    Raises `ValueError` where it is not [n, 2], not finite or not small, or where an affinity is not finite.
    """
    if start.shape != (graph.n, 2):
        raise ValueError(
            f"tsne: start {start.shape} for a graph of {graph.n} points; expected {(graph.n, 2)}: embeddings have two "
            "dimensions; take scaled_start of the principal scores"
        )
    _check_finite("start", start)
    _check_finite("affinities", graph.weights[:, None])
    centred = start.T - start.mean(axis=0, dtype=np.float64, keepdims=True).T if graph.n else start.T
    if np.abs(centred).max(initial=0) > _FARTHEST:
        raise ValueError(
            f"tsne: start reaches {np.abs(centred).max():g} from its mean; expected {_FARTHEST:g} at most; take "
            "scaled_start of it"
        )
    return np.ascontiguousarray(centred, dtype=np.float32)


def _check_finite(name: str, array: npt.NDArray[Any]) -> None:
    if not np.isfinite(array).all():
        row = int(np.flatnonzero(~np.isfinite(array).all(axis=1))[0])
        raise ValueError(
            f"tsne: {name}[{row}] is {array[row].tolist()}; expected finite numbers; leave out rows that are not finite"
        )


def route_of(repulsion: Repulsion, n: int) -> Literal["exact", "grid"]:
    """The way repulsion is computed for n points. Raises `ValueError` for one that is not known."""
    if repulsion not in ("auto", "exact", "grid"):
        raise ValueError(f"tsne: repulsion {repulsion!r}; expected 'auto', 'exact' or 'grid'; leave it to 'auto'")
    if repulsion == "auto":
        return "exact" if n <= EXACT_UP_TO else "grid"
    return repulsion


def descend(
    advance: Callable[[State, Stage], State], state: State, schedule: Schedule, n: int, progress: Progress | None
) -> State:
    """The state after all stages; `progress(done, total)` is called after each, and what it raises ends the descent."""
    for stage in schedule.stages(n):
        state = advance(state, stage)
        if progress is not None:
            progress(stage.done, schedule.total)
    return state


def answer(
    graph: Graph, y: Float32Array, z: float, repulsion: Literal["exact", "grid"], schedule: Schedule
) -> Embedding:
    """What is returned for coordinates [2, n] and the normaliser there."""
    points = np.ascontiguousarray(y.T)
    kl = kl_with_normaliser(graph, points, max(z, LEAST_NORMALISER))
    return Embedding(points, kl, graph.perplexity, repulsion, schedule.total)


def unmoved(graph: Graph, repulsion: Literal["exact", "grid"], schedule: Schedule) -> Embedding:
    """The answer for fewer than two points, on which no force acts."""
    return Embedding(np.zeros((graph.n, 2), np.float32), 0.0, graph.perplexity, repulsion, schedule.total)
