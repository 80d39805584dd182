"""The tabs of a report's results beyond its tensors: one for each table that has one, in this order."""

from collections.abc import Callable
from typing import Any, NamedTuple

from weighbridge.app.attribution_tab import attribution_tab
from weighbridge.app.bias_tab import bias_tab
from weighbridge.app.criticality_tab import criticality_tab
from weighbridge.app.saliency_tab import saliency_tab
from weighbridge.app.training_tab import groups_tab, training_tab, units_tab
from weighbridge.app.trajectory_tab import trajectory_tab
from weighbridge.report import Report
from weighbridge.views.colours import Theme


class Result(NamedTuple):
    """What the tab of a table is called, and what builds it from the report alone."""

    label: str
    tab: Callable[[Report, Theme], Any]


RESULTS = {
    "saliency": Result("Saliency", saliency_tab),
    "saliency_weights": Result("Weights", attribution_tab),
    "training": Result("Training", training_tab),
    "training_groups": Result("Groups", groups_tab),
    "training_units": Result("Units", units_tab),
    "trajectory": Result("Trajectory", trajectory_tab),
    "criticality": Result("Criticality", criticality_tab),
    "bias": Result("Bias", bias_tab),
}
