"""The spectrum of a matrix: by rank, its tail with the power law, its bulk with the law of noise."""

from collections.abc import Mapping
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from weighbridge.errors import BadArgument
from weighbridge.views.colours import Theme, colours
from weighbridge.views.frame import framed, load, number
from weighbridge.views.placeholder import placeholder
from weighbridge_kernels.marchenko_pastur import density

Kind = Literal["ranked", "tail", "bulk"]
KINDS: tuple[Kind, ...] = get_args(Kind)
_HEIGHT = 380
_BINS = 60
_POINTS = 400

FloatArray = npt.NDArray[np.float64]


def spectrum(row: Mapping[str, Any], *, kind: Kind = "ranked", theme: Theme = "light") -> Any:
    """A row of the table `spectra` as an `hv.Overlay`.

    `ranked`: singular values by rank, on a logarithmic scale, with the level below which they are noise of the route.
    `tail`: the density of the eigenvalues (squared singular values) in logarithmic bins, with the power law from xmin
    on. `bulk`: their density in linear bins up to a little beyond the bulk, with that of noise (Marchenko and Pastur)
    and its edge; what lies beyond is counted in the title. Where only leading values are known it is the estimated
    density of all singular values, with two standard errors. A row without a spectrum, or without the fit asked for,
    gives a text. Raises `BadArgument` for another kind.
    """
    if kind not in KINDS:
        raise BadArgument(f"kind {kind!r}; expected one of {', '.join(KINDS)}")
    if row["status"] != "done":
        return placeholder(f"{row['name']}: {row['reason']}", theme=theme)
    values = np.asarray(row["singular_values"], np.float64)
    if row["route"] == "leading" and kind == "bulk" and row["density"] is not None:
        return _estimated(row, theme)
    if row["route"] in ("leading", "fourier") and kind != "ranked":
        return placeholder(f"{row['name']}: {row['reason']}", theme=theme)
    if not values.any():
        return placeholder(f"{row['name']}: all singular values are 0", theme=theme)
    return {"ranked": _ranked, "tail": _tail, "bulk": _bulk}[kind](row, values, theme)


def _title(row: Mapping[str, Any], facts: str) -> str:
    part = f"[{row['part']}]" if row["part"] else ""
    return f"{row['name']}{part}   {row['rows']:,} × {row['cols']:,}\n{facts}"


def _known(value: float | None) -> bool:
    return value is not None and not np.isnan(value)


def _ranked(row: Mapping[str, Any], values: FloatArray, theme: Theme) -> Any:
    hv, paint = load(), colours(theme)
    shown = values[values > 0]
    line = hv.Curve((np.arange(1, shown.size + 1), shown), "rank", "singular value")
    effective = row["effective_rank"]
    rest = f"effective rank {number(effective)}" if _known(effective) else "leading values"
    return framed(
        hv.Overlay(
            [line.opts(color=paint.accent, tools=["hover"], backend="bokeh"), _mark(hv.HLine, row["accuracy"], theme)]
        ),
        _title(row, f"stable rank {number(row['stable_rank'])}, {rest}"),
        theme=theme,
        height=_HEIGHT,
        logy=True,
        xlabel="rank",
        ylabel="singular value",
        ylim=(shown[-1] / 2, shown[0] * 2),
    )


def _tail(row: Mapping[str, Any], values: FloatArray, theme: Theme) -> Any:
    hv, paint = load(), colours(theme)
    eigenvalues = np.square(values[values > row["accuracy"]])
    alpha, start = row["alpha"], row["alpha_xmin"]
    if not _known(alpha):
        return placeholder(f"{row['name']}: too few different eigenvalues for a power law", theme=theme)
    edges = np.geomspace(eigenvalues.min(), eigenvalues.max() * (1 + 1e-9), _BINS + 1)
    heights = np.histogram(eigenvalues, edges)[0] / eigenvalues.size / np.diff(edges)
    middles = np.sqrt(edges[1:] * edges[:-1])
    points = hv.Scatter((middles[heights > 0], heights[heights > 0]), "eigenvalue", "density", label="eigenvalues")
    x = np.array([start, eigenvalues.max()])
    share = row["alpha_tail"] / eigenvalues.size
    law = share * (alpha - 1) / start * (x / start) ** -alpha
    line = hv.Curve((x, law), "eigenvalue", "density", label="power law of the tail")
    drawn = points.opts(color=paint.accent, size=6, tools=["hover"], backend="bokeh")
    fit = line.opts(color=paint.series[1], line_width=2, backend="bokeh")
    return framed(
        hv.Overlay([drawn, fit, _mark(hv.VLine, start, theme)]),
        _title(row, f"alpha {alpha:.2f} ± {row['alpha_sigma']:.2f} over {row['alpha_tail']:,} eigenvalues"),
        theme=theme,
        height=_HEIGHT,
        logx=True,
        logy=True,
        xlabel="eigenvalue (squared singular value)",
        ylabel="density",
        ylim=(min(heights[heights > 0].min(), law[-1]) / 2, heights.max() * 2),
        legend_position="bottom_left",
    )


def _estimated(row: Mapping[str, Any], theme: Theme) -> Any:
    """The density of all singular values where only the leading ones are known, with two standard errors."""
    hv, paint = load(), colours(theme)
    at, density, error = (np.asarray(row[key], np.float64) for key in ("density_at", "density", "density_error"))
    band = hv.Area((at, np.maximum(density - 2 * error, 0), density + 2 * error), "singular value", ["low", "high"])
    line = hv.Curve((at, density), "singular value", "density")
    beyond = int((np.asarray(row["singular_values"]) > at[-1]).sum())
    return framed(
        hv.Overlay(
            [
                band.opts(color=paint.accent, fill_alpha=0.3, line_color=None, backend="bokeh"),
                line.opts(color=paint.accent, tools=["hover"], backend="bokeh"),
            ]
        ),
        _title(row, f"estimated density ± 2 standard errors, {beyond:,} values beyond this picture"),
        theme=theme,
        height=_HEIGHT,
        xlabel="singular value",
        ylabel="density",
        xlim=(0, at[-1]),
        ylim=(0, 1.1 * float((density + 2 * error).max())),
        show_legend=False,
    )


def _bulk(row: Mapping[str, Any], values: FloatArray, theme: Theme) -> Any:
    hv, paint = load(), colours(theme)
    if not _known(row["mp_sigma"]):
        return placeholder(f"{row['name']}: half of its eigenvalues are 0, which leaves no bulk", theme=theme)
    eigenvalues = np.square(values)
    high = 1.6 * row["mp_edge"]
    heights, edges = np.histogram(eigenvalues, _BINS, range=(0, high))
    shares = heights / eigenvalues.size / np.diff(edges)
    bars = hv.Histogram((edges, shares), kdims="eigenvalue", vdims="density", label="eigenvalues")
    x = np.linspace(0, high, _POINTS)
    noise = density(x, row["mp_sigma"], (row["rows"], row["cols"]))
    line = hv.Curve((x, noise), "eigenvalue", "density", label="noise (Marchenko and Pastur)")
    beyond = int((eigenvalues > high).sum())
    facts = f"noise of sigma {number(row['mp_sigma'])}, {row['mp_spikes']:,} spikes, {beyond:,} beyond this picture"
    drawn = bars.opts(color=paint.accent, line_color=paint.background, tools=["hover"], backend="bokeh")
    law = line.opts(color=paint.series[1], line_width=2, line_join="round", backend="bokeh")
    return framed(
        hv.Overlay([drawn, law, _mark(hv.VLine, row["mp_edge"], theme)]),
        _title(row, facts),
        theme=theme,
        height=_HEIGHT,
        xlabel="eigenvalue (squared singular value)",
        ylabel="density",
        xlim=(0, high),
        legend_position="top_right",
    )


def _mark(line: Any, at: float, theme: Theme) -> Any:
    """A dotted line across the picture."""
    return line(at).opts(color=colours(theme).muted, line_dash="dotted", line_width=1, backend="bokeh")
