"""Weighbridge weighs very large neural networks: exact statistics of every tensor of a checkpoint of any size.

>>> import weighbridge
>>> report = weighbridge.scan("model.safetensors")
>>> report.table("scan")[["name", "std", "absmax"]]
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from weighbridge.analyses.correlations import correlate
    from weighbridge.analyses.findings import Finding, findings
    from weighbridge.analyses.scan import scan
    from weighbridge.analyses.spectra import spectra
    from weighbridge.app import view
    from weighbridge.checkpoints import Checkpoint, Tensor, open
    from weighbridge.errors import (
        BadArgument,
        CorruptCheckpoint,
        ReadFailed,
        ReportError,
        SourceNotFound,
        TensorNotFound,
        WeighbridgeError,
    )
    from weighbridge.exports import export
    from weighbridge.models.saliency import Saliency, saliency
    from weighbridge.models.saliency_checks import deletion_insertion, parameter_randomisation
    from weighbridge.models.saliency_weights import attribution_to_weights
    from weighbridge.report import Report
    from weighbridge.snapshots import snapshot

_HOMES = {
    "weighbridge.analyses.findings": ("Finding", "findings"),
    "weighbridge.analyses.scan": ("scan",),
    "weighbridge.analyses.spectra": ("spectra",),
    "weighbridge.analyses.correlations": ("correlate",),
    "weighbridge.checkpoints": ("Checkpoint", "Tensor", "open"),
    "weighbridge.errors": (
        "BadArgument",
        "CorruptCheckpoint",
        "ReadFailed",
        "ReportError",
        "SourceNotFound",
        "TensorNotFound",
        "WeighbridgeError",
    ),
    "weighbridge.exports": ("export",),
    "weighbridge.app": ("view",),
    "weighbridge.models.saliency": ("Saliency", "saliency"),
    "weighbridge.models.saliency_checks": ("deletion_insertion", "parameter_randomisation"),
    "weighbridge.models.saliency_weights": ("attribution_to_weights",),
    "weighbridge.report": ("Report",),
    "weighbridge.snapshots": ("snapshot",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "BadArgument",
    "Checkpoint",
    "CorruptCheckpoint",
    "Finding",
    "ReadFailed",
    "Report",
    "ReportError",
    "Saliency",
    "SourceNotFound",
    "Tensor",
    "TensorNotFound",
    "WeighbridgeError",
    "attribution_to_weights",
    "correlate",
    "deletion_insertion",
    "export",
    "findings",
    "open",
    "parameter_randomisation",
    "saliency",
    "scan",
    "snapshot",
    "spectra",
    "view",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'weighbridge' has no attribute {name!r}")
    return getattr(import_module(_HOME_OF[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
