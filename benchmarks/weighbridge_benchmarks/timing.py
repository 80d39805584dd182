"""One measurement: the first call apart, for it compiles; then repeats until they have taken long enough to trust."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Timing:
    """Seconds of the first call, which compiles, and of the repeats; `spread` is half their relative quartile range."""

    first: float
    median: float
    least: float
    spread: float
    repeats: int


def measure(work: Callable[[], Any], *, seconds: float = 0.5, least: int = 3, most: int = 100) -> Timing:
    """Times `work`, which must wait for its result, for about `seconds`."""
    first = _once(work)
    times: list[float] = []
    while len(times) < least or (sum(times) < seconds and len(times) < most):
        times.append(_once(work))
    median = statistics.median(times)
    lower, _, upper = statistics.quantiles(times, n=4) if len(times) > 1 else (median, median, median)
    return Timing(first, median, min(times), (upper - lower) / 2 / median, len(times))


def _once(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
