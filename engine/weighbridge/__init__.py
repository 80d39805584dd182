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
    from weighbridge.analyses.trajectory import trajectory
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
    from weighbridge.models import recorder
    from weighbridge.report import Report
    from weighbridge.snapshots import snapshot

_HOMES = {
    "weighbridge.analyses.findings": ("Finding", "findings"),
    "weighbridge.analyses.scan": ("scan",),
    "weighbridge.analyses.spectra": ("spectra",),
    "weighbridge.analyses.correlations": ("correlate",),
    "weighbridge.analyses.trajectory": ("trajectory",),
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
    "weighbridge.report": ("Report",),
    "weighbridge.snapshots": ("snapshot",),
}
_MODULES = {"recorder": "weighbridge.models.recorder"}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "BadArgument",
    "Checkpoint",
    "CorruptCheckpoint",
    "Finding",
    "ReadFailed",
    "Report",
    "ReportError",
    "SourceNotFound",
    "Tensor",
    "TensorNotFound",
    "WeighbridgeError",
    "correlate",
    "export",
    "findings",
    "open",
    "recorder",
    "scan",
    "snapshot",
    "spectra",
    "trajectory",
    "view",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(_MODULES[name])
    if name not in _HOME_OF:
        raise AttributeError(f"module 'weighbridge' has no attribute {name!r}")
    return getattr(import_module(_HOME_OF[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
