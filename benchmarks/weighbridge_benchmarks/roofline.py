"""The roofline: operations a second against operations a byte, under the machine's own two ceilings."""

from pathlib import Path
from typing import Any

_MARKERS = {"host": "o", "jax:cpu": "s", "numpy": "v"}


def draw(result: dict[str, Any], path: Path) -> None:
    """Writes the picture: kernels that compute under the roof, and every kernel by the bytes it reads a second.

    Needs matplotlib (extra `bench`). The form is that of Williams, Waterman and Patterson 2009,
    doi:10.1145/1498765.1498785.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt
    import numpy as np

    ceilings = result["ceilings"]
    bandwidth, peak = ceilings["host_read"], ceilings.get("matrix_product", float("nan"))
    rows = [row for row in result["rows"] if row["flops_per_second"]]
    figure, (axes, bars) = plt.subplots(1, 2, figsize=(12, 5), width_ratios=(3, 2), layout="constrained")
    intensity = np.geomspace(0.25, 4 * peak / bandwidth, 100)
    axes.loglog(intensity, np.minimum(bandwidth * intensity, peak) / 1e9, color="0.3", label="ceiling of this run")
    for name in dict.fromkeys(row["by"] for row in rows):
        mine = [row for row in rows if row["by"] == name]
        x = [row["flops_per_second"] / row["bytes_per_second"] for row in mine]
        y = [row["flops_per_second"] / 1e9 for row in mine]
        axes.scatter(x, y, marker=_MARKERS.get(name, "x"), label=name, alpha=0.8)
    axes.set(
        xlabel="operations a byte read",
        ylabel="10⁹ operations a second",
        title="kernels (one thread) under the machine's roof (two)",
    )
    axes.legend(frameon=False)
    _bandwidth_bars(
        bars, [row for row in result["rows"] if row["bytes_per_second"] and row["by"] != "numpy"], bandwidth
    )
    figure.savefig(path)
    plt.close(figure)


def _bandwidth_bars(axes: Any, rows: list[dict[str, Any]], bandwidth: float) -> None:
    """Best bytes a second of each case and variant over the shapes, against the read ceiling."""
    best: dict[str, float] = {}
    for row in rows:
        name = f"{row['case']} {row['by']}"
        best[name] = max(best.get(name, 0.0), row["bytes_per_second"] / 1e9)
    names = list(best)[::-1]
    axes.barh(names, [best[name] for name in names], color=["C0" if name.endswith("host") else "0.7" for name in names])
    axes.axvline(bandwidth / 1e9, color="0.3")
    axes.set(xlabel="GB a second read (line: two threads reading)", title="best over the shapes")
    axes.tick_params(axis="y", labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)
