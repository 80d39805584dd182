"""What a reviewer wants to be told, as a table."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from weighbridge.views.colours import Theme
from weighbridge.views.frame import WIDTH, load
from weighbridge.views.placeholder import placeholder

if TYPE_CHECKING:
    from weighbridge.analyses.findings import Finding

_COLUMNS = ("severity", "check", "summary", "evidence", "tensors")
_HEIGHT = 320


def findings(found: "Sequence[Finding]", *, theme: Theme = "light") -> Any:
    """Findings as an `hv.Table`, worst first as they are given; a text where there are none."""
    if not found:
        return placeholder("no findings", theme=theme)
    rows = [(one.severity, one.check, one.summary, one.evidence, len(one.rows)) for one in found]
    table = load().Table(rows, [], list(_COLUMNS))
    return table.opts(width=WIDTH, height=_HEIGHT, fit_columns=True, backend="bokeh")
