"""The named set: the shortest prefix of a ranking whose change closes a gap at little cost."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from weighbridge.models.bias_data import Rows
from weighbridge.models.bias_outcomes import Intervention, Judge
from weighbridge.models.bias_sites import IntArray, Site

_NOTHING = 1e-12
"""A gap of no more is none but for rounding."""


@dataclass(frozen=True)
class Aim:
    """How units are changed in the search, the share of the gap to remove and the accuracy that it may cost."""

    intervention: Intervention
    rescale: float
    remove: float
    lose: float


@dataclass(frozen=True, eq=False)
class Found:
    """The prefix's length, whether it removes what was asked for, and gap and accuracy of all that were looked at.

    `gaps` and `accuracies` are those of 0, 1, 2, ... units.
    """

    units: int
    reached: bool
    gaps: npt.NDArray[np.float64]
    accuracies: npt.NDArray[np.float64]

    @property
    def gapless(self) -> bool:
        """Whether there is no gap to close."""
        return _gapless(self.gaps)


def shortest(judge: Judge, rows: Rows, ranks: Mapping[Site, IntArray], candidates: int, aim: Aim) -> Found:
    """The shortest prefix of the candidates that serves; where none does, that within the cost that removes most.

    Without accuracies, which are then NaN, the cost bounds nothing. Prefixes are looked at a few at a time. Where there
    is no gap to close, none serves.
    """
    gaps, accuracies = np.zeros(0), np.zeros(0)
    while len(gaps) <= candidates:
        more = judge.prefixes(rows, ranks, aim.intervention, aim.rescale, len(gaps))
        gaps, accuracies = np.concatenate([gaps, more[0]]), np.concatenate([accuracies, more[1]])
        gaps, accuracies = gaps[: candidates + 1], accuracies[: candidates + 1]
        serves = _cheap(accuracies, aim) & (np.abs(gaps) <= (1 - aim.remove) * np.abs(gaps[0]))
        if serves[1:].any() and not _gapless(gaps):
            return Found(1 + int(np.argmax(serves[1:])), True, gaps, accuracies)
    left = np.where(_cheap(accuracies, aim), np.abs(gaps), np.inf)
    return Found(0 if _gapless(gaps) else int(np.argmin(left)), False, gaps, accuracies)


def _gapless(gaps: npt.NDArray[np.float64]) -> bool:
    return not abs(gaps[0]) > _NOTHING


def _cheap(accuracies: npt.NDArray[np.float64], aim: Aim) -> npt.NDArray[np.bool_]:
    return np.asarray(~(accuracies[0] - accuracies >= aim.lose))
