"""Pictures of weights and of reports: HoloViews elements, for a notebook and for the page. One picture a file."""

from weighbridge.views.channels import channels
from weighbridge.views.depth import depth
from weighbridge.views.distribution import distribution
from weighbridge.views.findings import findings
from weighbridge.views.heatmap import heatmap
from weighbridge.views.overlaps import overlaps
from weighbridge.views.overview import model_map, overview, ridge
from weighbridge.views.relations import relations
from weighbridge.views.similarities import similarities
from weighbridge.views.singular_vectors import singular_vectors
from weighbridge.views.snapshot import snapshot
from weighbridge.views.spectrum import spectrum
from weighbridge.views.training import gradient_histogram, training
from weighbridge.views.trajectory import trajectory, trajectory_curves

__all__ = [
    "channels",
    "depth",
    "distribution",
    "findings",
    "gradient_histogram",
    "heatmap",
    "model_map",
    "overlaps",
    "overview",
    "relations",
    "ridge",
    "similarities",
    "singular_vectors",
    "snapshot",
    "spectrum",
    "training",
    "trajectory",
    "trajectory_curves",
]
