"""What matrices have in common along the axis they share, all pairs at once."""

from typing import Any, Literal

import numpy as np

from weighbridge.report import Report
from weighbridge.roles import ROLES
from weighbridge.views.colours import Theme, colours
from weighbridge.views.frame import framed, load
from weighbridge.views.placeholder import placeholder

Quantity = Literal["cka", "excess"]
_LABELS: dict[Quantity, str] = {"cka": "debiased CKA", "excess": "standard deviations from random"}
_AGAINST: dict[Quantity, str] = {"cka": "", "excess": ", against random matrices"}
_SIDE = 640
_TICKS = 60
_FAR = 20.0
"""Standard deviations beyond which colours do not tell apart."""


def relations(report: Report, quantity: Quantity = "cka", *, theme: Theme = "light") -> Any:
    """Debiased linear CKA between all matrices that share the residual axis, as `hv.Rectangles`.

    Matrices stand by role, then layer. `excess` shows how many standard deviations the value is from that of random
    matrices with the same row norms. Hovering tells both. A report without relations gives a text; raises `ReportError`
    without the table.
    """
    hv, paint = load(), colours(theme)
    rows = report.table("relations", lists=True)
    rows = rows[rows["status"] == "done"]
    if len(rows) < 2:
        return placeholder("no two matrices share the residual axis", theme=theme)
    names, labels = _ordered(rows)
    place = {name: i for i, name in enumerate(names)}
    cells = []
    for row in rows.to_dict("records"):
        for other, *values in zip(row["others"], row["cka"], row["cka_null_mean"], row["cka_null_std"], strict=True):
            if other in place:
                cells.append((place[row["name"]], place[other], *values, row["name"], other))
    x, y, cka, mean, std, name, other = (np.array(column, object) for column in zip(*cells, strict=True))
    values = [column.astype(float) for column in (cka, mean, std)]
    deviations = (values[0] - values[1]) / np.where(values[2] > 0, values[2], np.nan)
    shown = values[0] if quantity == "cka" else np.clip(deviations, -_FAR, _FAR)
    left, top = x.astype(float), y.astype(float)
    grid = hv.Rectangles(
        (left, top, left + 1, top + 1, shown, values[0], values[1], deviations, name, other),
        ["left", "top", "right", "bottom"],
        [hv.Dimension("shown", label=_LABELS[quantity]), "cka", "random", "deviations", "name", "other"],
    )
    limit = 1.0 if quantity == "cka" else _FAR
    every = -(-len(names) // _TICKS)
    ticks = [(i + 0.5, label) for i, label in enumerate(labels)][::every]
    return framed(
        grid,
        f"{report.manifest.source}: debiased CKA along the residual axis{_AGAINST[quantity]}",
        theme=theme,
        width=_SIDE + 140,
        height=_SIDE,
        color="shown",
        cmap=list(paint.diverging),
        clim=(-limit, limit),
        line_color=None,
        colorbar=True,
        tools=["hover"],
        hover_tooltips=[
            ("", "@name"),
            ("", "@other"),
            ("CKA", "@cka{0.000}"),
            ("random", "@random{0.000}"),
            ("standard deviations", "@deviations{0.0}"),
        ],
        xticks=ticks,
        yticks=ticks,
        xrotation=60,
        invert_yaxis=True,
        xlabel="",
        ylabel="",
        xlim=(0, len(names)),
        ylim=(0, len(names)),
    )


def _ordered(rows: Any) -> tuple[list[str], list[str]]:
    """Names by role, layer and checkpoint order, and what each is called on an axis."""
    role = rows["role"].map({role: i for i, role in enumerate(ROLES)})
    ordered = rows.assign(_role=role, _layer=rows["layer"].fillna(-1).astype(int)).sort_values(
        ["_role", "_layer", "order"], kind="stable"
    )
    labels = [
        f"{role} {layer}" if layer >= 0 else role
        for role, layer in zip(ordered["role"], ordered["_layer"], strict=True)
    ]
    return list(ordered["name"]), labels
