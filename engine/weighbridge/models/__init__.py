"""What needs a running model: linearisation, weights between its layers, how much each unit carries.

`weighbridge.linearize`, `expanded_weights` and `influence` are the way in; this is what they are extended with, and
what goes beyond the mean case. flax is known by its modules alone, and only where it is loaded.
"""

from weighbridge.models.best_cases import BestCase, best_case
from weighbridge.models.cases import Cases, Factors, example_weights, factors
from weighbridge.models.expanded import ExpandedWeights, Kernel
from weighbridge.models.influence import Influence
from weighbridge.models.layers import layers, tap
from weighbridge.models.linearize import Linearization
from weighbridge.models.operands import Dependent
from weighbridge.models.rules import (
    RECOGNISED,
    RULES,
    Rule,
    Rules,
    Site,
    average_pool,
    frozen,
    gate,
    power,
    product,
    tangent,
)

__all__ = [
    "RECOGNISED",
    "RULES",
    "BestCase",
    "Cases",
    "Dependent",
    "ExpandedWeights",
    "Factors",
    "Influence",
    "Kernel",
    "Linearization",
    "Rule",
    "Rules",
    "Site",
    "average_pool",
    "best_case",
    "example_weights",
    "factors",
    "frozen",
    "gate",
    "layers",
    "power",
    "product",
    "tangent",
    "tap",
]
