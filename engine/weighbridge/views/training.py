"""How a recorded training went: a figure of every tensor over the steps, and gradients' exponents over the steps."""

from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from weighbridge.errors import BadArgument
from weighbridge.report import Report
from weighbridge.report.run_columns import TRAINING
from weighbridge.views.colours import Theme, colours
from weighbridge.views.curves import curves
from weighbridge.views.frame import framed, load
from weighbridge.views.placeholder import placeholder

By = Literal["tensor", "role"]
COLUMNS = tuple(c.name for c in TRAINING if c.type in ("int64", "float64") and c.name not in ("step", "order"))
_HEIGHT = 340
_NOT_FINITE = 255
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")

FloatArray = npt.NDArray[np.float64]


def training(
    report: Report,
    column: str = "gradient_norm",
    *,
    names: Sequence[str] = (),
    by: By = "tensor",
    theme: Theme = "light",
) -> Any:
    """A column of the table `training` over the steps, a line each tensor or the median of each role: `hv.Overlay`.

    Records whose gradient holds NaN or infinities are crosses. On a logarithmic axis where values are positive and
    decades apart. A report without records of these tensors gives a text. Raises `BadArgument` for a column that is no
    figure, `ReportError` without the table.
    """
    if column not in COLUMNS:
        raise BadArgument(f"column {column!r}; expected one of {', '.join(COLUMNS)}")
    if by not in get_args(By):
        raise BadArgument(f"by {by!r}; expected one of {', '.join(get_args(By))}")
    rows = report.table("training")
    rows = rows[(rows["status"] == "done") & (rows["name"].isin(names) if names else True)]
    rows = rows.assign(broken=rows["gradient_nan"].fillna(0) + rows["gradient_inf"].fillna(0) > 0)
    return curves(rows, column, report.manifest.source, by=by, theme=theme)


def gradient_histogram(report: Report, name: str, *, theme: Theme = "light") -> Any:
    """The binary exponents of one tensor's recorded gradients over the steps, as an `hv.Image`.

    Colour is the share of the entries with each exponent, both signs together; above the exponents in use stands a
    line of NaN and infinities where there are any, and the least row is that of zeros and subnormals. Steps are equally
    wide, and colours saturate where zeros are more than any exponent. A tensor without records gives a text.
    """
    rows = [row for row in report.matrices(name, "training") if row["status"] == "done"]
    if not rows:
        return placeholder(f"{name}: no gradient of it is recorded", theme=theme)
    hv, paint = load(), colours(theme)
    rows.sort(key=lambda row: row["step"])
    counts = np.stack([row["gradient_histogram"] for row in rows]).astype(np.float64)
    shares = (counts[:, :256] + counts[:, 256:]) / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    used = np.flatnonzero(shares[:, 1:_NOT_FINITE].any(axis=0)) + 1
    low, high = (int(used[0]) - 1, int(used[-1]) + 1) if used.size else (0, 2)
    image = np.concatenate([shares[:, :1], shares[:, low + 1 : high], shares[:, _NOT_FINITE:]], axis=1).T
    exponents = np.concatenate([[low], np.arange(low + 1, high), [high]]) - 127
    places = np.arange(len(rows))
    shown = np.where(image > 0, image, np.nan)
    picture = hv.Image((places, exponents, shown), ["record", "exponent"], "share")
    every = max(len(rows) // 8, 1)
    labels = {low - 127: "zero", high - 127: "NaN, Inf"}
    middle = [(int(e), "2" + str(e).translate(_RAISED)) for e in exponents[1:-1] if e % 4 == 0]
    return framed(
        picture,
        f"{name}: exponents of its gradient",
        theme=theme,
        height=_HEIGHT,
        cmap=list(paint.sequential),
        colorbar=True,
        clim=(0.0, float(image[1:-1].max(initial=0)) or 1.0),
        clipping_colors={"NaN": paint.background},
        tools=["hover"],
        xticks=[(int(i), f"{rows[i]['step']:,}") for i in places[::every]],
        yticks=[*labels.items(), *middle],
        xlabel="step",
        ylabel="magnitude",
    )
