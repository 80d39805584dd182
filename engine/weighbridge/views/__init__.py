"""Pictures of weights and of reports: HoloViews elements, for a notebook and for the page. One picture a file.

What shows many small pictures is a `Sheet`, which becomes elements by `.element()` and a file by `.save(file)`.
"""

from weighbridge.views.banding import banding
from weighbridge.views.bias import bias, bias_interventions, bias_map
from weighbridge.views.bias_file import save_bias
from weighbridge.views.channels import channels
from weighbridge.views.circuit import circuit
from weighbridge.views.circuit_file import circuit_file
from weighbridge.views.criticality import (
    criticality,
    criticality_curves,
    criticality_layers,
    criticality_selectivity,
)
from weighbridge.views.depth import depth
from weighbridge.views.distribution import distribution
from weighbridge.views.factors import factors
from weighbridge.views.factors_rgb import factors_rgb
from weighbridge.views.filters import filters
from weighbridge.views.findings import findings
from weighbridge.views.heatmap import heatmap
from weighbridge.views.images import images
from weighbridge.views.overlaps import overlaps
from weighbridge.views.overview import model_map, overview, ridge
from weighbridge.views.relations import relations
from weighbridge.views.saliency import saliency, saliency_input
from weighbridge.views.saliency_curves import saliency_curves, saliency_randomisation, save_saliency_curves
from weighbridge.views.saliency_sheet import saliency_sheet, save_saliency_sheet
from weighbridge.views.scatter import scatter
from weighbridge.views.sheet import Sheet, Tile
from weighbridge.views.similarities import similarities
from weighbridge.views.similarity import similarity
from weighbridge.views.singular_vectors import singular_vectors
from weighbridge.views.small_multiples import expanded_inputs, family_grid, strongest_inputs
from weighbridge.views.snapshot import snapshot
from weighbridge.views.spatial_weights import spatial_weights
from weighbridge.views.spectrum import spectrum
from weighbridge.views.training import gradient_histogram, training
from weighbridge.views.training_groups import group_conflicts, group_curves, group_shares, idle_units, noise_scale
from weighbridge.views.trajectory import trajectory, trajectory_curves
from weighbridge.views.weight_attribution import channel_attribution, tensor_attribution

__all__ = [
    "Sheet",
    "Tile",
    "banding",
    "bias",
    "bias_interventions",
    "bias_map",
    "channel_attribution",
    "channels",
    "circuit",
    "circuit_file",
    "criticality",
    "criticality_curves",
    "criticality_layers",
    "criticality_selectivity",
    "depth",
    "distribution",
    "expanded_inputs",
    "factors",
    "factors_rgb",
    "family_grid",
    "filters",
    "findings",
    "gradient_histogram",
    "group_conflicts",
    "group_curves",
    "group_shares",
    "heatmap",
    "idle_units",
    "images",
    "model_map",
    "noise_scale",
    "overlaps",
    "overview",
    "relations",
    "ridge",
    "saliency",
    "saliency_curves",
    "saliency_input",
    "saliency_randomisation",
    "saliency_sheet",
    "save_bias",
    "save_saliency_curves",
    "save_saliency_sheet",
    "scatter",
    "similarities",
    "similarity",
    "singular_vectors",
    "snapshot",
    "spatial_weights",
    "spectrum",
    "strongest_inputs",
    "tensor_attribution",
    "training",
    "trajectory",
    "trajectory_curves",
]
