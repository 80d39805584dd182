"""The few sizes that arrays are padded to, so that a handful of compilations serve any checkpoint. Plain Python."""

_STEPS = 8
"""Sizes between a power of two and the next: padding adds an eighth at most."""


def padded_size(n: int) -> int:
    """The smallest size from n on: every number to 16, then eight evenly spaced ones to each doubling."""
    step = _step(n)
    return -(-n // step) * step


def unpadded_size(n: int) -> int:
    """The greatest of those sizes up to n."""
    step = _step(n)
    return n // step * step


def _step(n: int) -> int:
    return max(1 << max(n.bit_length() - 1, 0), _STEPS) // _STEPS
