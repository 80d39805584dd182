"""Weighbridge weighs very large neural networks: exact statistics of every tensor of a checkpoint of any size.

>>> import weighbridge
>>> report = weighbridge.scan("model.safetensors")
>>> report.table("scan")[["name", "std", "absmax"]]
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from weighbridge.analyses.circuits import circuits
    from weighbridge.analyses.correlations import correlate
    from weighbridge.analyses.findings import Finding, findings
    from weighbridge.analyses.projections import project
    from weighbridge.analyses.scan import scan
    from weighbridge.analyses.spectra import spectra
    from weighbridge.analyses.trajectory import trajectory
    from weighbridge.analyses.virtual_weights import virtual_weights
    from weighbridge.app import view
    from weighbridge.checkpoints import Checkpoint, Tensor, open
    from weighbridge.errors import (
        BadArgument,
        CorruptCheckpoint,
        NotLinear,
        ReadFailed,
        ReportError,
        SourceNotFound,
        TensorNotFound,
        WeighbridgeError,
    )
    from weighbridge.exports import export
    from weighbridge.models import recorder
    from weighbridge.models.bias import Bias, bias
    from weighbridge.models.chain_weights import chain_weights
    from weighbridge.models.criticality import criticality
    from weighbridge.models.expanded import expanded_weights
    from weighbridge.models.influence import influence
    from weighbridge.models.linearize import linearize
    from weighbridge.models.saliency import saliency
    from weighbridge.models.saliency_checks import deletion_insertion, parameter_randomisation
    from weighbridge.models.saliency_report import save_saliency
    from weighbridge.models.saliency_weights import attribution_to_weights
    from weighbridge.report import Report
    from weighbridge.report.saliency import Saliency
    from weighbridge.snapshots import snapshot

_HOMES = {
    "weighbridge.analyses.circuits": ("circuits",),
    "weighbridge.analyses.findings": ("Finding", "findings"),
    "weighbridge.analyses.projections": ("project",),
    "weighbridge.analyses.scan": ("scan",),
    "weighbridge.analyses.spectra": ("spectra",),
    "weighbridge.analyses.correlations": ("correlate",),
    "weighbridge.analyses.virtual_weights": ("virtual_weights",),
    "weighbridge.analyses.trajectory": ("trajectory",),
    "weighbridge.checkpoints": ("Checkpoint", "Tensor", "open"),
    "weighbridge.errors": (
        "BadArgument",
        "CorruptCheckpoint",
        "NotLinear",
        "ReadFailed",
        "ReportError",
        "SourceNotFound",
        "TensorNotFound",
        "WeighbridgeError",
    ),
    "weighbridge.exports": ("export",),
    "weighbridge.app": ("view",),
    "weighbridge.models.bias": ("Bias", "bias"),
    "weighbridge.models.criticality": ("criticality",),
    "weighbridge.models.chain_weights": ("chain_weights",),
    "weighbridge.models.expanded": ("expanded_weights",),
    "weighbridge.models.influence": ("influence",),
    "weighbridge.models.linearize": ("linearize",),
    "weighbridge.models.saliency": ("saliency",),
    "weighbridge.models.saliency_checks": ("deletion_insertion", "parameter_randomisation"),
    "weighbridge.models.saliency_report": ("save_saliency",),
    "weighbridge.models.saliency_weights": ("attribution_to_weights",),
    "weighbridge.report": ("Report",),
    "weighbridge.report.saliency": ("Saliency",),
    "weighbridge.snapshots": ("snapshot",),
}
_MODULES = {"recorder": "weighbridge.models.recorder"}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "BadArgument",
    "Bias",
    "Checkpoint",
    "CorruptCheckpoint",
    "Finding",
    "NotLinear",
    "ReadFailed",
    "Report",
    "ReportError",
    "Saliency",
    "SourceNotFound",
    "Tensor",
    "TensorNotFound",
    "WeighbridgeError",
    "attribution_to_weights",
    "bias",
    "chain_weights",
    "circuits",
    "correlate",
    "criticality",
    "deletion_insertion",
    "expanded_weights",
    "export",
    "findings",
    "influence",
    "linearize",
    "open",
    "parameter_randomisation",
    "project",
    "recorder",
    "saliency",
    "save_saliency",
    "scan",
    "snapshot",
    "spectra",
    "trajectory",
    "view",
    "virtual_weights",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(_MODULES[name])
    if name not in _HOME_OF:
        raise AttributeError(f"module 'weighbridge' has no attribute {name!r}")
    return getattr(import_module(_HOME_OF[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
