"""A result as lines of text."""

from collections.abc import Iterator
from typing import Any

_HEAD = ("case", "shape", "by", "compile", "run", "±", "GB/s", "GFLOP/s", "of read")


def lines(result: dict[str, Any]) -> Iterator[str]:
    """The machine, its ceilings, and a line a measurement; times in milliseconds, compilation apart."""
    machine = result["machine"]
    yield f"{machine['processor']}, {machine['cores']} cores; JAX on {machine['device']}; commit {machine['commit']}"
    yield "ceilings: " + ", ".join(f"{name} {value / 1e9:,.1f} G/s" for name, value in result["ceilings"].items())
    rows = [_HEAD, *(_cells(row) for row in result["rows"])]
    widths = [max(len(row[i]) for row in rows) for i in range(len(_HEAD))]
    for row in rows:
        cells = (cell.ljust(w) if i < 3 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True)))
        yield "  ".join(cells).rstrip()


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    return (
        row["case"],
        row["shape"],
        row["by"],
        f"{row['compile'] * 1e3:.0f} ms",
        f"{row['median'] * 1e3:.3f} ms",
        f"{row['spread']:.0%}",
        _giga(row["bytes_per_second"]),
        _giga(row["flops_per_second"]),
        "" if row["share_of_read"] is None else f"{row['share_of_read']:.3f}",
    )


def _giga(value: float | None) -> str:
    return "" if value is None else f"{value / 1e9:.2f}"
