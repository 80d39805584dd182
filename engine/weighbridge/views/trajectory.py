"""How saved checkpoints follow one another: the path of all weights in a plane, and figures of tensors over steps."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from weighbridge.errors import BadArgument
from weighbridge.report import Report
from weighbridge.report.matrix_columns import TRAJECTORY
from weighbridge.views.colours import Theme, colours
from weighbridge.views.curves import curves
from weighbridge.views.frame import framed, load
from weighbridge.views.placeholder import placeholder
from weighbridge.views.training import By

COLUMNS = tuple(c.name for c in TRAJECTORY if c.type in ("int64", "float64") and c.name not in ("step", "order"))
_SIDE = 520
_LABELS = 24


def trajectory(report: Report, components: tuple[int, int] = (0, 1), *, theme: Theme = "light") -> Any:
    """The path of all weights along two principal components, a point a checkpoint, as an `hv.Overlay`.

    Points are labelled with their steps and coloured from the first to the last; axes carry the share of the variance.
    A report without a path gives a text, checkpoints that are all one a path without variance. Raises `BadArgument` for
    components that are not there, `ReportError` without the table.
    """
    rows = report.table("trajectory_path", lists=True)
    why = next(iter(rows["reason"].dropna()), "nothing has been measured")
    rows = rows[rows["status"] == "done"].sort_values("order")
    if rows.empty:
        return placeholder(f"there is no path: {why}", theme=theme)
    explained = rows["explained"].iloc[0]
    if not all(0 <= c < len(explained) for c in components):
        raise BadArgument(f"components are {components}; expected two of 0 to {len(explained) - 1}")
    hv, paint = load(), colours(theme)
    scores = np.stack(rows["scores"].to_list())[:, list(components)]
    steps = rows["step"].to_numpy(float)
    axes = ["x", "y"]
    line = hv.Curve((scores[:, 0], scores[:, 1]), *axes).opts(color=paint.muted, line_width=1, backend="bokeh")
    points = hv.Points((scores[:, 0], scores[:, 1], steps, rows["checkpoint"].to_numpy(object)), axes, ["step", "name"])
    points = points.opts(
        color="step", cmap=list(paint.sequential)[64:], size=9, line_color=paint.text, tools=["hover"], backend="bokeh"
    )
    every = -(-len(rows) // _LABELS)
    named = slice(None, None, every)
    texts = [f"{int(step):,}" for step in steps[named]]
    labels = hv.Labels((scores[named, 0], scores[named, 1], texts), axes, "text")
    above = float(np.ptp(scores[:, 1])) * 0.02
    labels = labels.opts(
        text_color=paint.text, text_font_size="9pt", text_baseline="bottom", yoffset=above, backend="bokeh"
    )
    x, y = (f"component {c + 1} ({_share(explained[c])})" for c in components)
    return framed(
        hv.Overlay([line, points, labels]),
        f"{report.manifest.source}: the path of {int(rows['count'].iloc[0]):,} weights",
        theme=theme,
        width=_SIDE + 80,
        height=_SIDE,
        xlabel=x,
        ylabel=y,
        padding=0.1,
    )


def _share(explained: float) -> str:
    return f"{explained:.1%} of the variance" if np.isfinite(explained) else "no variance"


def trajectory_curves(
    report: Report, column: str = "l2", *, names: Sequence[str] = (), by: By = "tensor", theme: Theme = "light"
) -> Any:
    """A column of the table `trajectory` over the steps, a line each tensor or the median of each role: `hv.Overlay`.

    Raises `BadArgument` for a column that is no figure, `ReportError` without the table.
    """
    if column not in COLUMNS:
        raise BadArgument(f"column {column!r}; expected one of {', '.join(COLUMNS)}")
    rows = report.table("trajectory")
    rows = rows[(rows["status"] == "done") & (rows["name"].isin(names) if names else True)].assign(broken=False)
    return curves(rows, column, report.manifest.source, by=by, theme=theme)
