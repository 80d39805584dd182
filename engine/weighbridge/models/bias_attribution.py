"""Contributions of all units of a call's sites, summed until they account for what ablating each site removes."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from weighbridge.models.bias_data import Rows
from weighbridge.models.bias_sites import Probe, Site

_RELATIVE, _ABSOLUTE = 0.01, 1e-4
"""Completeness: shares of what ablation removes, and of the metric's magnitude, that the units' sum may miss."""

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class SiteSum:
    """Of a site: the sum of its units, what its ablation takes off the gap, and the steps of the integral."""

    site: Site
    total: float
    ablated: float
    steps: int
    complete: bool

    @property
    def distance(self) -> float:
        return abs(self.total - self.ablated)


@dataclass(frozen=True, eq=False)
class Attribution:
    """Contributions (inputs, units), the first group's `first` inputs before the second's; `gap` is the surrogate's."""

    values: npt.NDArray[np.float32]
    first: int
    gap: float
    sums: tuple[SiteSum, ...]

    @property
    def units(self) -> FloatArray:
        """Each unit's part of the gap."""
        return _between(self.values, self.first)


def attributed(probe: Probe, rows: Rows, steps: tuple[int, int]) -> Attribution:
    """Contributions for the inputs of the attribution; see `bias`."""
    first, every = len(rows[0]), np.concatenate(rows)
    found, sums, gap = [], [], np.nan
    for site in probe.sites:
        ends = probe.ablated(site, every).astype(np.float64)
        gap = float(_between(ends[:, 1], first))
        removed = gap - float(_between(ends[:, 0], first))
        allowed = max(_RELATIVE * abs(removed), _ABSOLUTE * float(np.abs(ends[:, 1]).mean()))
        used = steps[0]
        while True:
            values = probe.contributions(site, every, used)
            total = float(_between(values, first).sum())
            complete = abs(total - removed) <= allowed
            if complete or 2 * used > steps[1] or not np.isfinite(total):
                break
            used *= 2
        found.append(values.astype(np.float32))
        sums.append(SiteSum(site, total, removed, used, complete))
    return Attribution(np.concatenate(found, axis=1), first, gap, tuple(sums))


def _between(values: npt.NDArray[np.floating], first: int) -> FloatArray:
    """Mean over the first rows less that over the others."""
    return np.asarray(values[:first].mean(axis=0, dtype=np.float64) - values[first:].mean(axis=0, dtype=np.float64))
