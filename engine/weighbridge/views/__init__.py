"""Pictures of weights and of reports: HoloViews elements, for a notebook and for the page. One picture a file."""

from weighbridge.views.channels import channels
from weighbridge.views.circuit import circuit
from weighbridge.views.depth import depth
from weighbridge.views.distribution import distribution
from weighbridge.views.findings import findings
from weighbridge.views.heatmap import heatmap
from weighbridge.views.overlaps import overlaps
from weighbridge.views.overview import model_map, overview, ridge
from weighbridge.views.relations import relations
from weighbridge.views.scatter import scatter
from weighbridge.views.similarities import similarities
from weighbridge.views.similarity import similarity
from weighbridge.views.singular_vectors import singular_vectors
from weighbridge.views.snapshot import snapshot
from weighbridge.views.spectrum import spectrum

__all__ = [
    "channels",
    "circuit",
    "depth",
    "distribution",
    "findings",
    "heatmap",
    "model_map",
    "overlaps",
    "overview",
    "relations",
    "ridge",
    "scatter",
    "similarities",
    "similarity",
    "singular_vectors",
    "snapshot",
    "spectrum",
]
