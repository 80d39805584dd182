"""Planted blocks come out contiguous, planted sequences in their order."""

import numpy as np
import pytest

from weighbridge_kernels.seriation import OPTIMAL_ROWS, seriation
from weighbridge_kernels.unit_rows_host import unit_rows

ROUTES = {"hierarchical": 4096, "spectral": 16}
"""How many rows are ordered hierarchically; more are parted first."""


def runs(labels: np.ndarray) -> int:
    return 1 + int((np.diff(labels) != 0).sum())


@pytest.mark.parametrize("most", ROUTES.values(), ids=list(ROUTES))
@pytest.mark.parametrize("sizes", [(31, 40), (13, 61, 29, 97, 7), (19,) * 7, (200, 3)], ids=str)
def test_shuffled_blocks_come_out_whole(most: int, sizes: tuple[int, ...]) -> None:
    rng = np.random.default_rng(len(sizes))
    labels = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    centres = rng.standard_normal((len(sizes), 37))
    units, _ = unit_rows(centres[labels] + 0.3 * rng.standard_normal((labels.size, 37)))
    order = seriation(units, key=3, hierarchical_rows=most)
    assert sorted(order.tolist()) == list(range(labels.size))
    assert runs(labels[order]) == len(sizes)


@pytest.mark.parametrize("most", ROUTES.values(), ids=list(ROUTES))
def test_a_shuffled_arc_comes_out_in_order(most: int) -> None:
    place = np.random.default_rng(4).permutation(101)
    angle = np.pi * place / 101
    order = seriation(unit_rows(np.column_stack([np.cos(angle), np.sin(angle)]))[0], key=1, hierarchical_rows=most)
    found = place[order]
    assert (found if found[0] < found[-1] else found[::-1]).tolist() == list(range(101))


@pytest.mark.parametrize("rows", [0, 1, 2, 3, 5])
@pytest.mark.parametrize("most", ROUTES.values(), ids=list(ROUTES))
def test_few_rows_and_equal_ones(most: int, rows: int) -> None:
    assert sorted(seriation(np.eye(7)[:rows], hierarchical_rows=most).tolist()) == list(range(rows))
    assert sorted(seriation(np.ones((rows, 4)) / 2, hierarchical_rows=most).tolist()) == list(range(rows))


@pytest.mark.parametrize("most", ROUTES.values(), ids=list(ROUTES))
def test_rows_without_direction_come_last(most: int) -> None:
    x = np.random.default_rng(5).standard_normal((23, 5))
    x[[0, 9]] = 0
    assert seriation(unit_rows(x)[0], hierarchical_rows=most)[-2:].tolist() == [0, 9]


def test_beyond_the_optimal_order() -> None:
    rng = np.random.default_rng(6)
    labels = rng.permutation(np.arange(OPTIMAL_ROWS + 53) % 3)
    units, _ = unit_rows(np.eye(3)[labels] + 0.05 * rng.standard_normal((labels.size, 3)))
    assert runs(labels[seriation(units)]) == 3


def test_the_key_gives_the_same_order() -> None:
    x = unit_rows(np.random.default_rng(7).standard_normal((67, 5)))[0]
    assert (seriation(x, key=2, hierarchical_rows=16) == seriation(x, key=2, hierarchical_rows=16)).all()
